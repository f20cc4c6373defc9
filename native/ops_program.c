/* Programs of others that make processes for us: OCI runtimes. What they make becomes our child when they end, since a shim is a
 * subreaper; from then on it is as one that a plan has cloned.
 *
 *   shim                                runtime                         its process
 *     ── create, exec; stdio ─────────▶   ── makes ─────────────────────▶  (the shim's pipes, or a terminal)
 *     ◀───────── the terminal's master ── to our socket, when it has one
 *     ◀────────────── its pid, in a file
 *     ◀──────────────────────── its end                                    ours to wait for
 */
#include "frame.h"

static const char CONSOLE[] = "{console}";

/* Where a runtime sends a terminal to. Named by our descriptor of its directory: a socket's path holds 107 bytes, this one few. */
struct console { int dir, listener; char name[32], path[96]; };

static int open_console(struct console *console, const char *pid_file)
{
	char parent[PATH_SIZE];
	const char *slash = strrchr(pid_file, '/');
	console->listener = console->dir = -1;
	if (!slash || (size_t)(slash - pid_file) >= sizeof parent) return -EINVAL;
	text(parent, sizeof parent, "%s", pid_file);
	parent[slash - pid_file] = 0;
	console->dir = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (console->dir < 0) return -errno;
	text(console->name, sizeof console->name, "console.%d", getpid());
	text(console->path, sizeof console->path, "/proc/%d/fd/%d/%s", getpid(), console->dir, console->name);
	console->listener = listen_unix(console->dir, console->name);
	return console->listener < 0 ? console->listener : 0;
}

static void close_console(struct console *console)
{
	if (console->listener >= 0) close(console->listener), unlinkat(console->dir, console->name, 0);
	if (console->dir >= 0) close(console->dir);
}

/* The descriptor beside the first message; its sender has ended by now, so it is there or never comes. */
static int take_master(struct run *run, const struct console *console)
{
	union { struct cmsghdr head; char room[CMSG_SPACE(sizeof(int))]; } control;
	char name[256];
	struct iovec part = { name, sizeof name };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	int fd = accept_own(console->listener), master = -1;
	if (fd < 0) return fail(run, -EPROTO, "the runtime has sent no terminal");
	if (recvmsg(fd, &message, MSG_CMSG_CLOEXEC) >= 0) {
		struct cmsghdr *c = CMSG_FIRSTHDR(&message);
		if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len >= CMSG_LEN(sizeof(int))) memcpy(&master, CMSG_DATA(c), sizeof master);
	}
	close(fd);
	return master < 0 ? fail(run, -EPROTO, "the runtime has sent no terminal") : master;
}

/* The process that it has made, which is our child by now. */
static int adopt(struct run *run, const char *pid_file)
{
	char digits[32];
	uint64_t pid = 0;
	siginfo_t info;
	int rc = read_file(pid_file, digits, sizeof digits);
	if (rc < 0) return fail(run, rc, "the runtime has left no %s", pid_file);
	digits[strcspn(digits, "\n")] = 0;
	if (!parse_u64(digits, &pid) || pid < 2 || pid > INT32_MAX) return fail(run, -EPROTO, "%s holds no pid", pid_file);
	if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
		return fail(run, -errno, "process %d, which the runtime has made, is none of ours: its end could not be seen", (int)pid);
	run->pidfd = pidfd_open_((pid_t)pid);
	if (run->pidfd < 0) return run->pidfd;
	run->pid = (pid_t)pid;
	return 0;
}

static bool has_console(struct arg argv)
{
	const unsigned char *at = argv.p;
	for (uint32_t i = 0; i < argv.n; i++)
		if (!strcmp(next_str(&at), CONSOLE)) return true;
	return false;
}

int op_program(struct run *run, const union args *a)
{
	const char *pid_file = str(a->program.pidFile);
	const char **argv = str_vector(a->program.argv, 0), **env = str_vector(a->program.env, 0);
	struct console console = { .dir = -1, .listener = -1 };
	struct program program = { str(a->program.path), argv, env, { -1, -1, -1 }, a->program.timeoutMs.n ? (int)a->program.timeoutMs.n : -1, true };
	int rc = argv && env ? 0 : -ENOMEM;
	if (rc == 0 && *pid_file) {
		unlink(pid_file); /* of a run before this one */
		memcpy(program.stdio, run->stdio, sizeof program.stdio);
		if (has_console(a->program.argv) && (rc = open_console(&console, pid_file)) < 0) fail(run, rc, "the console socket beside %s", pid_file);
	}
	for (uint32_t i = 0; rc == 0 && i < a->program.argv.n; i++)
		if (!strcmp(argv[i], CONSOLE)) argv[i] = console.path;
	if (rc == 0) rc = run_to_end(run, &program);
	if (rc == 0 && *pid_file) rc = adopt(run, pid_file);
	if (rc == 0 && console.listener >= 0) {
		int master = take_master(run, &console);
		if (master < 0) rc = master;
		else run->terminal = master;
	}
	close_console(&console);
	give_back(argv, (a->program.argv.n + 1) * sizeof *argv);
	give_back(env, (a->program.env.n + 1) * sizeof *env);
	return rc;
}
