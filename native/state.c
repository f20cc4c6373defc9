/* What a shim keeps on disk, and the watch on memory. The directory is the client's to make and to remove:
 *
 *   DIR/pid          PID START            of the shim: together they name it for good
 *   DIR/init         PID START            of the container, once it is created
 *   DIR/exit         STATUS OOM NS        wait(2)'s status, whether the kernel killed for memory, when (Unix time)
 *   DIR/exec.NAME    STATUS OOM NS        of an exec that has ended
 *   DIR/shim.sock                         gone when the shim is
 *
 * Each file is written beside and renamed into place: there whole, or not at all. The container's exit is on the disk before anybody
 * is told of it; where the directory lies in memory, as /run mostly does, that costs nothing.
 */
#include "process.h"
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <time.h>

uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int write_state(int dir, const char *name, const char *content, size_t size, bool durable)
{
	char temporary[NAME_SIZE + 16];
	text(temporary, sizeof temporary, ".%s.tmp", name);
	int fd = openat(dir, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0) return -errno;
	int rc = write_all(fd, content, size);
	if (rc == 0 && durable) rc = negative(fsync(fd));
	close(fd);
	if (rc == 0) rc = negative(renameat(dir, temporary, dir, name));
	return rc < 0 || !durable ? rc : negative(fsync(dir));
}

int write_process_file(int dir, const char *name, pid_t pid)
{
	char line[64];
	uint64_t start = 0;
	int rc = start_time(pid, &start);
	return rc < 0 ? rc : write_state(dir, name, line, text(line, sizeof line, "%d %lu\n", pid, (unsigned long)start), false);
}

void write_exit(struct shim *shim, const struct process *process)
{
	char name[NAME_SIZE + 8], line[64];
	if (process->number == 0) text(name, sizeof name, "exit");
	else text(name, sizeof name, "exec.%s", process->name);
	size_t n = text(line, sizeof line, "%d %d %lu\n", process->status, shim->ooms > 0, (unsigned long)process->exited_ns);
	/* Tried for a while: a full disk must not lose what only we know. With its directory gone (ENOENT) nobody wants to know it. */
	for (int attempt = 0; attempt < 50; attempt++) {
		int rc = write_state(shim->dir, name, line, n, process->number == 0);
		if (rc >= 0 || rc == -ENOENT) return;
		usleep(100000);
	}
}

/* -- memory: "oom_kill N" in v2's memory.events and in v1's memory.oom_control (Linux 4.13) */

static bool is_v2(const struct shim *shim)
{
	char file[PATH_SIZE + 32];
	text(file, sizeof file, "%s/memory.events", shim->paths[2]);
	return access(file, F_OK) == 0;
}

static uint64_t read_ooms(const struct shim *shim)
{
	char file[PATH_SIZE + 32], content[512];
	uint64_t n = 0;
	if (!*shim->paths[2]) return 0;
	text(file, sizeof file, is_v2(shim) ? "%s/memory.events" : "%s/memory.oom_control", shim->paths[2]);
	if (read_file(file, content, sizeof content) < 0) return 0; /* the cgroup has gone */
	char *line = strstr(content, "oom_kill ");
	/* "oom_kill_disable 0" comes first in v1 and has no space there. */
	if (!line) return 0;
	line += 9;
	line[strcspn(line, "\n")] = 0;
	return parse_u64(line, &n) ? n : 0;
}

int watch_oom(struct shim *shim)
{
	char file[PATH_SIZE + 32], line[64];
	if (!*shim->paths[2]) return 0;
	if (is_v2(shim)) {
		text(file, sizeof file, "%s/memory.events", shim->paths[2]);
		shim->oom_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
		return shim->oom_fd < 0 ? -errno : inotify_add_watch(shim->oom_fd, file, IN_MODIFY) < 0 ? -errno : 0;
	}
	text(file, sizeof file, "%s/memory.oom_control", shim->paths[2]);
	int control = open(file, O_RDONLY | O_CLOEXEC);
	if (control < 0) return -errno;
	shim->oom_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	text(file, sizeof file, "%s/cgroup.event_control", shim->paths[2]);
	int rc = write_file(file, line, text(line, sizeof line, "%d %d", shim->oom_fd, control), 0);
	close(control);
	return rc;
}

bool hear_oom(struct shim *shim)
{
	char events[512];
	if (shim->oom_fd >= 0) (void)!read(shim->oom_fd, events, sizeof events);
	uint64_t n = read_ooms(shim);
	if (n <= shim->ooms) return false;
	shim->ooms = n;
	return true;
}
