/* estiba-oci without a start of Node: a resident planner (src/app/planner.ts) decides, this process carries out, with its own stdio, in
 * its own namespaces and cgroup, as the child of whoever called.
 *
 *   front                                   planner
 *     ── HELLO argv, env, cwd, ids ────────▶  the command runs there
 *     ◀──────────────── PLAN flags, plan ──   as often as the command wants
 *     ── RESULT … , PLAN_END ──────────────▶
 *     ◀──────────── STDOUT, STDERR bytes ──
 *     ◀──────────────────────── ASK_STDIN ──
 *     ── STDIN all of it ──────────────────▶
 *     ◀───────────────────────── EXIT code ──  or YOURSELF: it is of another build, or cannot serve this
 *
 * When there is no planner, or it may not be trusted to see what we see, the caller's script goes on, and comes back with a planner of
 * its own for this one call: a Node.js at the other end of a socket pair. It starts no processes and nobody waits until it has ended.
 */
#include "frame.h"
#include "front.h"
#include <poll.h>
#include <stdlib.h>
#include <sys/prctl.h>

enum { HELLO = 30, PLAN_END = 31, STDIN_ALL = 32, PLAN = 80, TO_STDOUT = 81, TO_STDERR = 82, WANT_STDIN = 83, EXIT = 84, YOURSELF = 85 };
enum { FRONT_VERSION = 1 };
enum { PLANNER_FD = 3 };
extern char **environ;

struct bytes { unsigned char *at; size_t used, room; };

static void add(struct bytes *b, const void *data, size_t size)
{
	if (b->used + size > b->room) {
		size_t larger = b->room ? b->room : 64u << 10;
		while (larger < b->used + size) larger *= 2;
		unsigned char *p = take(larger);
		if (!p) _exit(1);
		memcpy(p, b->at ? b->at : (const unsigned char *)"", b->used);
		give_back(b->at, b->room);
		b->at = p;
		b->room = larger;
	}
	memcpy(b->at + b->used, data, size);
	b->used += size;
}

static void add_u32(struct bytes *b, uint32_t n) { add(b, &n, 4); }

static void add_str(struct bytes *b, const char *s)
{
	add_u32(b, (uint32_t)strlen(s));
	add(b, s, strlen(s) + 1);
}

static void add_strs(struct bytes *b, char **list)
{
	uint32_t n = 0;
	while (list[n]) n++;
	add_u32(b, n);
	for (uint32_t i = 0; i < n; i++) add_str(b, list[i]);
}

static int send_frame(int fd, uint8_t kind, uint32_t id, const void *payload, size_t size)
{
	unsigned char head[FRAME_HEAD] = { 0 };
	uint32_t length = (uint32_t)size;
	memcpy(head, &length, 4);
	head[4] = kind;
	memcpy(head + 8, &id, 4);
	int rc = write_all(fd, head, sizeof head);
	return rc < 0 ? rc : write_all(fd, payload, size);
}

/* The planner reads files for us: it must be ours, and live where we live. */
static bool sees_what_we_see(int fd)
{
	static const char *const SAME[] = { "ns/mnt", "ns/user", "ns/pid", "ns/cgroup", "ns/net", "root" };
	struct ucred peer;
	socklen_t size = sizeof peer;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.uid != geteuid() || peer.gid != getegid()) return false;
	for (size_t i = 0; i < LENGTH(SAME); i++) {
		char ours[64], theirs[64];
		struct stat a, b;
		text(ours, sizeof ours, "/proc/self/%s", SAME[i]);
		text(theirs, sizeof theirs, "/proc/%d/%s", peer.pid, SAME[i]);
		if (stat(ours, &a) < 0 || stat(theirs, &b) < 0 || a.st_dev != b.st_dev || a.st_ino != b.st_ino) return false;
	}
	return true;
}

/* Paths that mean another file in another process. */
static bool names_our_fds(char **argv)
{
	for (; *argv; argv++)
		if (strstr(*argv, "/dev/fd") || strstr(*argv, "/dev/std") || strstr(*argv, "/proc/self")) return true;
	return false;
}

/* -- signals of the caller go to the foreground container */

static const int FORWARDED[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCONT, SIGTSTP };
static volatile pid_t foreground;
static volatile sig_atomic_t early; /* came before the program ran; a container half made must not lose its maker */

static void pass_on(int number)
{
	int saved = errno;
	if (foreground > 0) kill(foreground, number);
	else early = number;
	errno = saved;
}

static void hold_signals(void)
{
	struct sigaction action = { .sa_handler = pass_on };
	early = 0;
	foreground = 0;
	for (size_t i = 0; i < LENGTH(FORWARDED); i++) sigaction(FORWARDED[i], &action, NULL);
}

static void forward_signals(pid_t pid)
{
	foreground = pid;
	if (early) kill(pid, early);
	early = 0;
}

static void release_signals(void)
{
	struct sigaction action = { .sa_handler = SIG_DFL };
	for (size_t i = 0; i < LENGTH(FORWARDED); i++) sigaction(FORWARDED[i], &action, NULL);
	foreground = 0;
}

/* -- plans */

struct errand { int planner; uint32_t id; bool foreground; };

static void report(struct run *run, const struct record *record)
{
	struct errand *errand = run->owner;
	unsigned char head[RECORD_HEAD];
	struct bytes b = { 0 };
	if (errand->foreground && record->kind == RECORD_DONE) forward_signals(run->pid);
	record_head(record, head);
	add(&b, head, sizeof head);
	if (record->detail_size) add(&b, record->detail, record->detail_size);
	send_frame(errand->planner, TELL_RESULT, errand->id, b.at, b.used);
	give_back(b.at, b.room);
}

static void carry_out(int planner, const struct frame *frame)
{
	static struct run run;
	struct errand errand = { planner, frame->id, frame->size >= 4 && u32_at(frame->payload) & 1 };
	struct request request = { .bad_step = 0 };
	struct frame plan = { .size = frame->size - 4, .payload = frame->payload + 4 };
	const char *wrong = frame->size < 4 ? "the plan is cut off" : read_request(plan, false, &request);
	run_init(&run);
	run.report = report;
	run.owner = &errand;
	if (wrong) {
		report(&run, &(struct record){ .kind = RECORD_FAILED, .step = request.bad_step, .error = EBADMSG, .detail = wrong, .detail_size = (uint32_t)strlen(wrong) });
	} else {
		if (errand.foreground) hold_signals();
		run.plan = request.plan;
		run.alone = true;
		run.forwards = errand.foreground;
		run.takes_terminal = true;
		run_private(&run, planner);
		run_and_report(&run);
		run_close(&run);
		if (errand.foreground) release_signals();
	}
	request_done(&request);
	send_frame(planner, PLAN_END, frame->id, NULL, 0);
}

static void send_stdin(int planner, uint32_t id)
{
	struct bytes b = { 0 };
	char chunk[4096];
	for (int n; (n = read_full(0, chunk, sizeof chunk)) > 0 && b.used < (1u << 20);) add(&b, chunk, (size_t)n);
	send_frame(planner, STDIN_ALL, id, b.at, b.used);
	give_back(b.at, b.room);
}

/* -1: go on; else the exit code. */
static int obey(int planner, const struct frame *frame)
{
	switch (frame->kind) {
	case PLAN: carry_out(planner, frame); return -1;
	case TO_STDOUT: write_all(1, frame->payload, frame->size); return -1;
	case TO_STDERR: write_all(2, frame->payload, frame->size); return -1;
	case WANT_STDIN: send_stdin(planner, frame->id); return -1;
	case EXIT: return frame->size >= 4 ? (int)(u32_at(frame->payload) & 0xff) : 1;
	default: return NOT_SERVED;
	}
}

static int greet(int planner, const char *home, char **argv)
{
	struct bytes b = { 0 };
	char cwd[PATH_SIZE];
	if (!getcwd(cwd, sizeof cwd)) return -errno;
	add_u32(&b, FRONT_VERSION);
	add_u32(&b, geteuid());
	add_u32(&b, getegid());
	add_u32(&b, (uint32_t)getpid());
	add_str(&b, home);
	add_str(&b, cwd);
	add_strs(&b, argv);
	add_strs(&b, environ);
	int rc = send_frame(planner, HELLO, 0, b.at, b.used);
	give_back(b.at, b.room);
	return rc;
}

/* Above what --preserve-fds hands on, whatever the caller has open. */
static int out_of_the_way(int fd)
{
	int high = fcntl(fd, F_DUPFD_CLOEXEC, 200);
	if (high < 0) return fd;
	close(fd);
	return high;
}

static int converse(int planner)
{
	struct conn conn;
	bool begun = false;
	conn_open(&conn, planner);
	for (;;) {
		struct frame frame;
		while (conn_frame(&conn, &frame)) {
			int code = obey(planner, &frame);
			if (code >= 0) return code;
			begun = true;
			conn_next(&conn, &frame);
		}
		struct pollfd p = { .fd = planner, .events = POLLIN };
		if (poll(&p, 1, -1) < 0 && errno != EINTR) return 1;
		if (conn_read(&conn) < 0) {
			if (!begun) return NOT_SERVED;
			static const char LOST[] = "estiba-oci: the planner has gone away in the middle of a command\n";
			write_all(2, LOST, sizeof LOST - 1);
			return 1;
		}
	}
}

/* Gives what is free for another try only before the command has done anything. */
int front_main(const char *socket, const char *home, char **argv)
{
	if (names_our_fds(argv)) return NOT_SERVED;
	int planner = connect_unix(socket, SOCK_STREAM);
	if (planner < 0) return NOT_SERVED;
	planner = out_of_the_way(planner);
	if (!sees_what_we_see(planner) || greet(planner, home, argv) < 0) return NOT_SERVED;
	return converse(planner);
}

/* In the child: a Node.js at the other end. `words` takes what it has to say itself, or is -1. */
static void become_planner(const char *const *args, int socket, int words) __attribute__((noreturn));
static void become_planner(const char *const *args, int socket, int words)
{
	/* ^C goes to all of the terminal's group: the container gets it from us, and afterwards somebody has to take it away. */
	setsid();
	if (words >= 0 && dup2(words, 2) < 0) _exit(1);
	if (socket == PLANNER_FD) fcntl(socket, F_SETFD, 0);
	else if (dup2(socket, PLANNER_FD) < 0) _exit(1);
	syscall(NR_close_range, PLANNER_FD + 1, ~0u, 0);
	default_signals();
	/* Its heap comes in a few large pieces: with large pages a start has a thousand page faults less (glibc 2.35; others ignore it). */
	setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1", 0);
	execvp(args[0], (char *const *)args);
	_exit(127);
}

static int with_planner(const char *const *args, const char *home, char **argv, int words)
{
	int pair[2], status;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) return NOT_SERVED;
	pid_t caller = getpid(), pid = fork();
	if (pid == 0) {
		/* Without us it would wait for ever for a command that never comes. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != caller) _exit(1);
		become_planner(args, pair[1], words);
	}
	close(pair[1]);
	int planner = out_of_the_way(pair[0]);
	int code = pid < 0 || greet(planner, home, argv) < 0 ? NOT_SERVED : converse(planner);
	close(planner);
	if (pid > 0) { /* it has nothing left to do, and its end would take as long as all of ours */
		if (!getenv("ESTIBA_WRITE_CACHE")) kill(pid, SIGKILL); /* tools/build.mjs wants what it leaves behind */
		waitpid(pid, &status, 0);
	}
	return code;
}

/* What a snapshot of the planner is started with. STEM.flags, beside its script, names the build it is of and the flags it was taken
 * with, one a line (tools/build.mjs); the snapshot itself is STEM-BUILD-SIZE-MTIME.blob, by the Node.js that took it (tools/snapshot.mjs):
 * another one would refuse it, which takes as long as half a start, and other code would be that of an older installation. */
struct snapshot { char blob[PATH_SIZE], lines[512]; const char *args[24]; };

/* What execvp() would start. */
static bool find_program(const char *name, struct stat *out)
{
	const char *dirs = strchr(name, '/') ? "" : getenv("PATH");
	for (const char *at = dirs ? dirs : "/bin:/usr/bin";; at++) {
		char path[PATH_SIZE];
		size_t length = strcspn(at, ":");
		if (length + strlen(name) + 2 <= sizeof path) {
			memcpy(path, at, length);
			path[length] = '/';
			strcpy(path + length + (length > 0), name);
			if (stat(path, out) == 0 && S_ISREG(out->st_mode) && out->st_mode & 0111) return true;
		}
		at += length;
		if (!*at) return false;
	}
}

static char *line_at(char *at, char **next)
{
	char *end = strchr(at, '\n');
	if (!end) return NULL;
	*end = 0;
	*next = end + 1;
	return at;
}

static bool find_snapshot(const char *node, const char *script, struct snapshot *out)
{
	static const char SUFFIX[] = ".run.cjs";
	char path[PATH_SIZE], *at = out->lines, *build, *flag;
	size_t length = strlen(script), stem = length - (sizeof SUFFIX - 1), n = 0;
	struct stat program;
	if (length < sizeof SUFFIX || length + 64 >= sizeof path || strcmp(script + stem, SUFFIX)) return false;
	memcpy(path, script, stem);
	strcpy(path + stem, ".flags");
	if (read_file(path, out->lines, sizeof out->lines) <= 0 || !(build = line_at(at, &at)) || !find_program(node, &program)) return false;
	path[stem] = 0;
	text(out->blob, sizeof out->blob, "%s-%s-%lu-%lu.blob", path, build, (unsigned long)program.st_size, (unsigned long)program.st_mtim.tv_sec);
	if (access(out->blob, R_OK) < 0) return false;
	out->args[n++] = node;
	while ((flag = line_at(at, &at)) && n < LENGTH(out->args) - 6) out->args[n++] = flag;
	const char *const rest[] = { "--snapshot-blob", out->blob, script, "--fd", "3", NULL };
	memcpy(out->args + n, rest, sizeof rest);
	return true;
}

int front_alone(const char *node, const char *script, const char *home, char **argv)
{
	static struct snapshot snapshot;
	const char *const from_script[] = { node, script, "--fd", "3", NULL };
	char said[4096];
	if (names_our_fds(argv)) return NOT_SERVED;
	int words = getenv("ESTIBA_WRITE_CACHE") || !find_snapshot(node, script, &snapshot) ? -1 : (int)syscall(SYS_memfd_create, "estiba", 1u /* MFD_CLOEXEC */);
	if (words < 0) return with_planner(from_script, home, argv, -1);
	words = out_of_the_way(words);
	/* Another Node.js than the one that took it, or another processor, refuses it, and says so: that is for nobody to read. */
	int code = with_planner(snapshot.args, home, argv, words);
	if (code == NOT_SERVED) code = with_planner(from_script, home, argv, -1);
	else if (lseek(words, 0, SEEK_SET) == 0)
		for (int n; (n = read_full(words, said, sizeof said)) > 0;) write_all(2, said, (size_t)n);
	close(words);
	return code;
}
