/* estiba-init: what runs plans. Seven lives in one binary; README.md has them on one page. */
#include "front.h"
#include "run.h"
#include "shim.h"
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
extern char **environ;

/* CVE-2019-5736: a process in the container can open /proc/PID/exe of whoever enters it, and write to that file when it is no
 * longer running. So we run from a sealed copy in memory: what they can reach is not the host's file and cannot be written. */
static int run_from_memory(char **argv)
{
	enum { EXECUTABLE = 0x10 /* MFD_EXEC, Linux 6.3 */, CLOSE = 1, SEALABLE = 2 };
	int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	if (self < 0) return -errno;
	int seals = fcntl(self, F_GET_SEALS);
	struct stat st;
	if (seals >= 0 && (seals & SEALS) == SEALS) return close(self);
	int copy = (int)syscall(SYS_memfd_create, "estiba-init", EXECUTABLE | CLOSE | SEALABLE);
	if (copy < 0) copy = (int)syscall(SYS_memfd_create, "estiba-init", CLOSE | SEALABLE);
	if (copy < 0 || fstat(self, &st) < 0) return -errno;
	void *image = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, self, 0);
	if (image == MAP_FAILED) return -errno;
	int rc = write_all(copy, image, (size_t)st.st_size);
	if (rc == 0) rc = negative(fcntl(copy, F_ADD_SEALS, SEALS));
	if (rc == 0) rc = negative(syscall(SYS_execveat, copy, "", argv, environ, AT_EMPTY_PATH));
	return rc;
}

static void report(struct run *run, const struct record *record) { record_write(*(int *)run->owner, record); }

static int refuse(int fd, uint32_t step, int error, const char *why)
{
	record_write(fd, &(struct record){ .kind = RECORD_FAILED, .step = step, .error = (uint32_t)error, .detail = why, .detail_size = (uint32_t)strlen(why) });
	return 1;
}

/* Reads to the end of file. The memory is never given back: the process ends with its plan. */
static int read_plan(int fd, unsigned char **bytes)
{
	size_t room = 64u << 10, got = 0;
	unsigned char *p = take(room);
	while (p) {
		int n = read_full(fd, p + got, room - got);
		if (n < 0) return n;
		got += (size_t)n;
		if (got < room) {
			*bytes = p;
			return (int)got;
		}
		if (room > MAX_PLAN_BYTES) return -EFBIG;
		unsigned char *larger = take(room * 2);
		if (!larger) break;
		memcpy(larger, p, got);
		give_back(p, room);
		p = larger;
		room *= 2;
	}
	return -ENOMEM;
}

/* Stand-alone: one plan, with the caller's stdio. */
static int run_main(int plan_fd, int result_fd)
{
	static struct run run;
	unsigned char *bytes = NULL;
	uint32_t step = 0;
	fcntl(plan_fd, F_SETFD, FD_CLOEXEC);
	fcntl(result_fd, F_SETFD, FD_CLOEXEC);
	int size = read_plan(plan_fd, &bytes);
	if (size < 0) return refuse(result_fd, 0, -size, "reading the plan");
	close(plan_fd);
	uint32_t room = plan_offsets(bytes, (size_t)size), *offsets = take((room + 1) * sizeof *offsets);
	if (!offsets) return refuse(result_fd, 0, ENOMEM, "");
	run_init(&run);
	const char *wrong = room ? plan_check(&run.plan, bytes, (size_t)size, offsets, &step) : "these bytes are no plan";
	if (wrong) return refuse(result_fd, step, EBADMSG, wrong);
	run.report = report;
	run.owner = &result_fd;
	run.alone = true;
	run.takes_terminal = true; /* relay.c, once the plan waits for init */
	run_private(&run, result_fd);
	return run_and_report(&run) == FAILED;
}

/* PID 1 of a pod with a shared PID namespace: reaps, and goes when told. */
static int pause_main(void)
{
	sigset_t all;
	int signal;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	for (;;) {
		while (waitpid(-1, NULL, WNOHANG) > 0) continue;
		if (sigwait(&all, &signal) == 0 && (signal == SIGTERM || signal == SIGINT)) return 0;
	}
}

/* estiba-oci's own script is the way back when there is no planner to serve it: it goes on with Node. */
static int front_or_script(char **argv)
{
	int code = front_main(argv[2], argv[3], argv + 5);
	if (code != NOT_SERVED) return code;
	argv[3] = "sh"; /* sh SCRIPT ARGUMENT… */
	setenv("ESTIBA_OCI_PLANNER", "off", 1);
	signal(SIGPIPE, SIG_DFL);
	execv("/bin/sh", argv + 3);
	return 127;
}

/* As above, when no planner is resident. The script is told, so that it goes on with Node itself the next time. */
static int alone_or_script(char **argv)
{
	int code = front_alone(argv[2], argv[3], argv[4], argv + 6);
	if (code != NOT_SERVED) return code;
	argv[4] = "sh";
	setenv("ESTIBA_OCI_PLANNER", "none", 1);
	signal(SIGPIPE, SIG_DFL);
	execv("/bin/sh", argv + 4);
	return 127;
}

/* Becomes a program that outlives its caller, who cannot say which descriptors the caller's own parents left open: Node.js closes
 * what it opens itself at an exec, and of what it inherits the first sixteen alone. */
static int closed_main(char **argv)
{
	syscall(NR_close_range, 3, ~0u, 0);
	execvp(argv[0], argv);
	char line[128];
	write_all(2, line, text(line, sizeof line, "estiba-init: cannot run %s: errno %d\n", argv[0], errno));
	return 127;
}

static int usage(void)
{
	static const char TEXT[] = "usage: estiba-init run PLAN_FD RESULT_FD\n"
				   "       estiba-init spawner SOCKET\n"
				   "       estiba-init oci PLANNER_SOCKET HOME SCRIPT [ARGUMENT…]\n"
				   "       estiba-init oci-alone NODE PLANNER HOME SCRIPT [ARGUMENT…]\n"
				   "       estiba-init closed PROGRAM [ARGUMENT…]\n"
				   "       estiba-init pause\n"
				   "       estiba-init init -- PROGRAM [ARGUMENT…]\n"
				   "It is started by Estiba; its protocols are in native/README.md.\n";
	write_all(2, TEXT, sizeof TEXT - 1);
	return 2;
}

int main(int argc, char **argv)
{
	uint64_t plan_fd, result_fd;
	if (argc == 2 && !strcmp(argv[1], "pause")) return pause_main();
	if (argc > 3 && !strcmp(argv[1], "init") && !strcmp(argv[2], "--")) return reaper_main(argv + 3);
	if (argc > 2 && !strcmp(argv[1], "closed")) return closed_main(argv + 2);
	bool run = argc == 4 && !strcmp(argv[1], "run") && parse_u64(argv[2], &plan_fd) && parse_u64(argv[3], &result_fd);
	bool spawner = argc == 3 && !strcmp(argv[1], "spawner");
	bool front = argc >= 5 && !strcmp(argv[1], "oci");
	bool alone = argc >= 6 && !strcmp(argv[1], "oci-alone");
	if (!run && !spawner && !front && !alone) return usage();
	int rc = run_from_memory(argv);
	if (rc < 0) {
		char line[128];
		write_all(2, line, text(line, sizeof line, "estiba-init: cannot run from memory: errno %d\n", -rc));
		return 1;
	}
	prctl(PR_SET_NAME, "estiba-init");
	note_ignored_signals();
	signal(SIGPIPE, SIG_IGN);
	if (front) return front_or_script(argv);
	if (alone) return alone_or_script(argv);
	return run ? run_main((int)plan_fd, (int)result_fd) : spawner_main(argv[2]);
}
