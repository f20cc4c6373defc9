/* Files and cgroup directories, as the actor sees them. */
#include "path.h"
#include <dirent.h>
#include <stdio.h>
#include <time.h>

/* Plans carry open(2)'s numbers of asm-generic; arm64 swaps four of them. */
static int open_flags(uint64_t flags)
{
	static const struct { unsigned generic; int here; } MOVED[] = {
		{ 0200000, O_DIRECTORY }, { 0400000, O_NOFOLLOW }, { 040000, O_DIRECT }, { 010000000, O_PATH }, { 0100000, 0 /* O_LARGEFILE */ },
	};
	int out = (int)flags;
	for (size_t i = 0; i < LENGTH(MOVED); i++) out &= ~(int)MOVED[i].generic;
	for (size_t i = 0; i < LENGTH(MOVED); i++)
		if (flags & MOVED[i].generic) out |= MOVED[i].here;
	return out;
}

int op_mkdir(struct run *run, const union args *a)
{
	const char *path = str(a->mkdir.path);
	mode_t mode = (mode_t)a->mkdir.mode.n;
	uint64_t flags = a->mkdir.flags.n;
	char parent[PATH_SIZE];
	if (a->mkdir.path.n >= sizeof parent) return -ENAMETOOLONG;
	if (mkdir(path, mode) == 0) return 0;
	if (errno == EEXIST && (flags & MKDIR_MAY_EXIST)) return 0;
	if (errno != ENOENT || !(flags & MKDIR_PARENTS)) return -errno;
	strcpy(parent, path);
	for (char *slash = strchr(parent + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (mkdir(parent, mode) < 0 && errno != EEXIST) return fail(run, -errno, "%s", parent);
		*slash = '/';
	}
	return mkdir(path, mode) < 0 && !(errno == EEXIST && (flags & MKDIR_MAY_EXIST)) ? -errno : 0;
}

static int absent_is_fine(int rc) { return rc == -ENOENT || rc == -ENOTDIR ? 0 : rc; }

int op_rmdir(struct run *run, const union args *a)
{
	(void)run;
	return absent_is_fine(negative(rmdir(str(a->rmdir.path))));
}

int op_unlink(struct run *run, const union args *a)
{
	(void)run;
	return absent_is_fine(negative(unlink(str(a->unlink.path))));
}

int op_symlink(struct run *run, const union args *a)
{
	(void)run;
	return negative(symlink(str(a->symlink.target), str(a->symlink.path)));
}

int op_mknod(struct run *run, const union args *a)
{
	(void)run;
	mode_t old = umask(0);
	int rc = negative(mknod(str(a->mknod.path), (mode_t)a->mknod.mode.n, (dev_t)a->mknod.device.n));
	umask(old);
	return rc;
}

int op_chown(struct run *run, const union args *a)
{
	(void)run;
	return negative(lchown(str(a->chown.path), (uid_t)a->chown.uid.n, (gid_t)a->chown.gid.n));
}

int op_setTime(struct run *run, const union args *a)
{
	(void)run;
	struct timespec at = { .tv_sec = (time_t)(int64_t)a->setTime.seconds.n, .tv_nsec = (long)a->setTime.nanoseconds.n };
	struct timespec both[2] = { at, at };
	return negative(utimensat(AT_FDCWD, str(a->setTime.path), both, AT_SYMLINK_NOFOLLOW));
}

int op_chmod(struct run *run, const union args *a)
{
	(void)run;
	return negative(chmod(str(a->chmod.path), (mode_t)a->chmod.mode.n));
}

int op_renameFile(struct run *run, const union args *a)
{
	(void)run;
	return negative(rename(str(a->renameFile.from), str(a->renameFile.to)));
}

int open_proc(const char *path, int flags)
{
	enum { NO_XDEV = 1 };
	int proc = open("/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (proc < 0) return -errno;
	/* /proc/self and /proc/thread-self are links, so links stay allowed; they cannot lead off the mount. */
	int fd = on_filesystem(proc, PROC_MAGIC) ? open2(proc, path + strlen("/proc/"), (uint64_t)flags, NO_XDEV | RESOLVE_NO_MAGICLINKS_) : -EXDEV;
	close(proc);
	return fd;
}

int op_write(struct run *run, const union args *a)
{
	const char *path = str(a->write.path);
	int flags = open_flags(a->write.flags.n) | O_CLOEXEC | O_NOCTTY;
	if ((flags & O_ACCMODE) == O_RDONLY) flags |= O_WRONLY;
	int fd = starts(path, "/proc/") ? open_proc(path, flags & ~(O_CREAT | O_TRUNC | O_EXCL)) : value_of(open(path, flags, (mode_t)a->write.mode.n));
	if (fd == -EXDEV) return fail(run, fd, "%s does not lie on proc", path);
	if (fd < 0) return fail(run, fd, "open");
	/* One write: cgroup and sysctl files take a value whole or not at all. */
	ssize_t n = write(fd, a->write.data.p, a->write.data.n);
	int rc = n < 0 ? -errno : (uint64_t)n == a->write.data.n ? 0 : write_all(fd, a->write.data.p + n, a->write.data.n - (uint64_t)n);
	if (close(fd) < 0 && rc == 0) rc = -errno;
	return rc;
}

int op_open(struct run *run, const union args *a)
{
	int fd = open(str(a->open.path), open_flags(a->open.flags.n) | O_CLOEXEC | O_NOCTTY, (mode_t)a->open.mode.n);
	return fd < 0 ? -errno : set_slot(run, a->open.into.n, fd);
}

int op_close(struct run *run, const union args *a)
{
	int fd = slot_fd(run, a->close.slot.n);
	if (fd < 0) return fd;
	run->slots[a->close.slot.n] = -1;
	return negative(close(fd));
}

/* -- trees */

static bool is_dots(const char *name) { return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2])); }

struct entry { uint64_t inode; int64_t offset; uint16_t size; uint8_t type; char name[]; }; /* getdents64(2) */

static int remove_below(struct run *run, int dir, dev_t device, int depth, int *names);

/* A name that is a directory: at once when it is empty, as overlay's work directory mostly is. */
static int remove_directory(struct run *run, int dir, const char *name, dev_t device, int depth, int *names)
{
	struct stat st;
	if (unlinkat(dir, name, AT_REMOVEDIR) == 0 || errno == ENOENT) return 0;
	int below = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int rc = below < 0 || fstat(below, &st) < 0 ? fail(run, -errno, "%s", name) : 0;
	if (rc == 0 && st.st_dev != device) rc = fail(run, -EXDEV, "%s is a mount", name);
	if (rc == 0) rc = remove_below(run, below, device, depth + 1, names);
	if (below >= 0) close(below);
	if (rc == 0 && unlinkat(dir, name, AT_REMOVEDIR) < 0 && errno != ENOENT) rc = fail(run, -errno, "%s", name);
	return rc;
}

static int remove_name(struct run *run, int dir, const struct entry *e, dev_t device, int depth, int *names)
{
	if (e->type == DT_DIR) return remove_directory(run, dir, e->name, device, depth, names);
	if (unlinkat(dir, e->name, 0) == 0 || errno == ENOENT) return 0;
	/* Of a type the file system did not tell. */
	return errno == EISDIR || errno == EPERM ? remove_directory(run, dir, e->name, device, depth, names) : fail(run, -errno, "%s", e->name);
}

/* Giving up the blocks of a large file takes its time. */
static bool is_large(int dir, const struct entry *e)
{
	enum { QUICK_BLOCKS = 2048 }; /* of 512 bytes */
	struct stat st;
	if (e->type != DT_REG && e->type != DT_UNKNOWN) return false;
	return fstatat(dir, e->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && st.st_blocks > QUICK_BLOCKS;
}

/* Everything below `dir`. Goes by fds, so nobody can slip a link under us; `device` keeps it on one mount. In a hurry it is left at
 * -EAGAIN after some names, or at the first large file. */
static int remove_below(struct run *run, int dir, dev_t device, int depth, int *names)
{
	enum { DEEPEST = 512, QUICK = 16, ROOM = 2048 }; /* an fd a level */
	char list[ROOM] __attribute__((aligned(8)));
	if (depth > DEEPEST) return -ELOOP;
	for (;;) {
		long n = syscall(SYS_getdents64, dir, list, sizeof list);
		if (n <= 0) return negative(n);
		for (const struct entry *e = (void *)list; (char *)e < list + n; e = (void *)((char *)e + e->size)) {
			if (is_dots(e->name)) continue;
			if (run->hurry && ((*names)++ >= QUICK || is_large(dir, e))) return -EAGAIN;
			int rc = remove_name(run, dir, e, device, depth, names);
			if (rc < 0) return rc;
		}
	}
}

int op_removeTree(struct run *run, const union args *a)
{
	enum { ATTEMPTS = 5 };
	const char *path = str(a->removeTree.path);
	struct stat st;
	int names = 0;
	if (rmdir(path) == 0) return 0;
	if (errno == ENOTDIR) return absent_is_fine(negative(unlink(path)));
	if (errno == ENOENT) return 0;
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0) return -errno;
	int rc = negative(fstat(dir, &st));
	/* Who is being ended may write into it while it goes (a shim its last words): then once more. */
	for (int attempt = 0; rc == 0 && attempt < ATTEMPTS; attempt++) {
		rc = remove_below(run, dir, st.st_dev, 0, &names);
		if (rc < 0 || rmdir(path) == 0 || errno == ENOENT) break;
		rc = attempt < ATTEMPTS - 1 && errno == ENOTEMPTY ? negative(lseek(dir, 0, SEEK_SET)) : -errno;
	}
	close(dir);
	return rc;
}

/* -- cgroups */

static void nap_us(unsigned us)
{
	struct timespec t = { .tv_nsec = (long)us * 1000 };
	nanosleep(&t, NULL);
}

/* Calls `visit` for every cgroup below `path`, deepest first, then for `path`. */
static int each_cgroup(char path[PATH_SIZE], int depth, int (*visit)(const char *path, int arg), int arg)
{
	enum { DEEPEST = 64 };
	DIR *list = depth > DEEPEST ? NULL : opendir(path);
	if (!list) return absent_is_fine(depth > DEEPEST ? -ELOOP : -errno);
	size_t length = strlen(path);
	int rc = 0;
	for (struct dirent *e; rc == 0 && (e = readdir(list));) {
		if (e->d_type != DT_DIR || is_dots(e->d_name) || length + strlen(e->d_name) + 2 > PATH_SIZE) continue;
		path[length] = '/';
		strcpy(path + length + 1, e->d_name);
		rc = each_cgroup(path, depth + 1, visit, arg);
		path[length] = 0;
	}
	closedir(list);
	return rc < 0 ? rc : visit(path, arg);
}

/* A cgroup is busy until the last of its dead has been reaped, which the kernel does behind our back. */
static int remove_one_cgroup(const char *path, int unused)
{
	(void)unused;
	uint64_t end = now_ms() + 1000;
	for (unsigned us = 50;; us = us < 30000 ? us * 2 : us) {
		if (rmdir(path) == 0 || errno == ENOENT) return 0;
		if (errno != EBUSY || now_ms() > end) return -errno;
		nap_us(us);
	}
}

int op_removeCgroup(struct run *run, const union args *a)
{
	char path[PATH_SIZE];
	if (a->removeCgroup.path.n >= sizeof path) return -ENAMETOOLONG;
	strcpy(path, str(a->removeCgroup.path));
	if (rmdir(path) == 0 || errno == ENOENT) return 0;
	if (run->hurry) return -EAGAIN;
	return each_cgroup(path, 0, remove_one_cgroup, 0);
}

static int signal_one_cgroup(const char *path, int signal)
{
	char file[PATH_SIZE + 16], list[4096];
	text(file, sizeof file, "%s/cgroup.procs", path);
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	if (fd < 0) return absent_is_fine(-errno);
	int killed = 0;
	pid_t pid = 0;
	for (ssize_t n; (n = read(fd, list, sizeof list)) > 0;)
		for (ssize_t i = 0; i < n; i++) {
			if (list[i] >= '0' && list[i] <= '9') {
				pid = pid * 10 + (list[i] - '0');
				continue;
			}
			if (pid > 0 && kill(pid, signal) == 0) killed++;
			pid = 0;
		}
	close(fd);
	(void)killed;
	return 0;
}

int op_killCgroup(struct run *run, const union args *a)
{
	char path[PATH_SIZE], file[PATH_SIZE + 16];
	int signal = (int)a->killCgroup.signal.n;
	(void)run;
	if (a->killCgroup.path.n >= sizeof path) return -ENAMETOOLONG;
	strcpy(path, str(a->killCgroup.path));
	if (signal == SIGKILL) { /* Linux 5.14, v2: the kernel kills the tree, and misses no fork */
		text(file, sizeof file, "%s/cgroup.kill", path);
		if (write_file(file, "1", 1, 0) == 0) return 0;
	}
	/* A process that forks while we read is caught by the next round; a frozen or forking tree is not worth more than ten. */
	int rounds = signal == SIGKILL ? 10 : 1, rc = 0;
	for (int i = 0; i < rounds && rc == 0; i++) {
		rc = each_cgroup(path, 0, signal_one_cgroup, signal);
		if (i + 1 < rounds) nap_us(1000);
	}
	return rc;
}

int op_joinCgroup(struct run *run, const union args *a)
{
	char file[PATH_SIZE + 16], pid[16];
	size_t length = 1;
	strcpy(pid, "0");
	if (run->me == HOST) length = text(pid, sizeof pid, "%d", run->pid);
	if (a->joinCgroup.slot.n != NO_SLOT) {
		int fd = slot_fd(run, a->joinCgroup.slot.n);
		return fd < 0 ? fd : negative(write(fd, pid, length));
	}
	/* v1's `tasks` moves the one thread that writes 0 without the kernel's global lock, whose grace period costs 10 ms on an
	 * idle machine; v2 has no such file. */
	text(file, sizeof file, "%s/tasks", str(a->joinCgroup.path));
	int rc = run->me == HOST ? -ENOENT : write_file(file, pid, length, 0);
	if (rc != -ENOENT) return rc;
	text(file, sizeof file, "%s/cgroup.procs", str(a->joinCgroup.path));
	return write_file(file, pid, length, 0);
}
