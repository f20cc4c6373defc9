/* What every file here needs: system calls that the C library lacks, text without printf, whole reads and writes.
 * Functions return 0 or a count, or a negative errno; errno itself is read only where a libc call has just failed. */
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))
#define PATH_SIZE 4096

static inline int negative(long rc) { return rc < 0 ? -errno : 0; } /* a call that gives no value */
static inline int value_of(long rc) { return rc < 0 ? -errno : (int)rc; } /* a call that gives an fd, a pid, a count */

/* musl's open(2) sets close-on-exec a second time by fcntl(2), for kernels before 2.6.23: one call in twenty of a start. */
#define open(...) openat(AT_FDCWD, __VA_ARGS__)

/* -- kernel interfaces newer than the headers we may meet */
struct open_how_ { uint64_t flags, mode, resolve; };
struct mount_attr_ { uint64_t set, clear, propagation, userns; };
struct clone_args_ { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup; };

enum { RESOLVE_NO_MAGICLINKS_ = 2, RESOLVE_NO_SYMLINKS_ = 4, RESOLVE_IN_ROOT_ = 16 };
enum { OPEN_TREE_CLONE_ = 1, FROM_EMPTY = 4, TO_EMPTY = 0x40 };
#define AT_RECURSIVE_ 0x8000
#define MOUNT_ATTR_IDMAP_ 0x100000

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
enum { NR_open_tree = 428, NR_move_mount, NR_fsopen, NR_fsconfig, NR_fsmount, NR_pidfd_open = 434, NR_clone3, NR_close_range,
	NR_openat2, NR_pidfd_getfd, NR_faccessat2, NR_mount_setattr = 442 };

static inline int open2(int dir, const char *path, uint64_t flags, uint64_t resolve)
{
	struct open_how_ how = { .flags = flags | O_CLOEXEC, .resolve = resolve };
	return value_of(syscall(NR_openat2, dir, path, &how, sizeof how));
}
static inline int open_tree_(int dir, const char *path, unsigned flags) { return value_of(syscall(NR_open_tree, dir, path, flags)); }
static inline int move_mount_(int tree, int target)
{
	return negative(syscall(NR_move_mount, tree, "", target, "", FROM_EMPTY | TO_EMPTY));
}
static inline int mount_setattr_(int dir, const char *path, unsigned flags, struct mount_attr_ *attr)
{
	return negative(syscall(NR_mount_setattr, dir, path, flags, attr, sizeof *attr));
}
static inline int pidfd_open_(pid_t pid) { return value_of(syscall(NR_pidfd_open, pid, 0)); }
static inline int pidfd_kill(int pidfd, int signal) { return negative(syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0)); }

/* -- text */
/* %s %d %u %o %c only; always ends with NUL, cuts what does not fit; gives the length written. */
size_t text(char *out, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
size_t vtext(char *out, size_t size, const char *format, va_list args);
bool starts(const char *s, const char *prefix);
/* Decimal digits only; false on anything else or on overflow. */
bool parse_u64(const char *s, uint64_t *out);

/* -- whole transfers; EINTR is tried again */
int write_all(int fd, const void *data, size_t size);
int read_full(int fd, void *data, size_t size); /* the count, short only at the end of file */
/* What a small file holds, with a NUL behind it; gives the length. */
int read_file(const char *path, char *out, size_t size);
int write_file(const char *path, const void *data, size_t size, int flags);

/* -- processes */
/* Field 22 of /proc/PID/stat: together with the pid it names a process for good. */
int start_time(pid_t pid, uint64_t *out);
/* A pidfd of this very process; -ESRCH when the pid is free or another's by now. start 0: whoever has the pid. */
int pidfd_of(pid_t pid, uint64_t start);
/* Waits for a pidfd; -ETIMEDOUT. timeout_ms < 0: for ever. */
int wait_pidfd(int pidfd, int timeout_ms);
/* Memory that lives until the process ends or `give_back`; NULL when there is none. Fresh pages: a shim keeps none it does not use. */
void *take(size_t size);
void give_back(void *memory, size_t size);
uint64_t now_ms(void); /* monotonic */
int connect_unix(const char *path, int type);
int send_fd(int socket, int fd, const void *data, size_t size);
