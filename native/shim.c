/* One a container. It outlives the daemon and the spawner: everything it needs is here or in its directory.
 *
 *   client                              shim
 *     ── ASK_WATCH ───────────────────▶
 *     ── ASK_ATTACH process, streams ─▶   (before ASK_START: no byte is missed)
 *     ── ASK_START ───────────────────▶   lets init go on to exec
 *     ◀─────────────────── TELL_STDOUT    read only while every attached client keeps up
 *     ── ASK_STDIN ───────────────────▶   waits in the socket while the program does not read
 *     ── ASK_EXEC options, plan ──────▶   a further process, attached to this socket when asked for
 *     ◀───────────────────── TELL_EXIT    after the last byte of output, and after the file is in place
 *
 * States: created ── ASK_START ──▶ running ── the container's process ends ──▶ draining ── told and written ──▶ gone
 */
#include "process.h"
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>

static struct shim shim;

static void write_answer(struct run *run, const struct record *record) { record_write(*(int *)run->owner, record); }

/* There is no container: nothing is to be found of it either. */
static void leave_unmade(void) __attribute__((noreturn));
static void leave_unmade(void)
{
	static const char *const FILES[] = { "shim.sock", "pid", "init" };
	for (size_t i = 0; i < LENGTH(FILES); i++) unlinkat(shim.dir, FILES[i], 0);
	_exit(1);
}

static void refuse(int answer, int error, const char *why) __attribute__((noreturn));
static void refuse(int answer, int error, const char *why)
{
	record_write(answer, &(struct record){ .kind = RECORD_FAILED, .error = (uint32_t)-error, .detail = why, .detail_size = (uint32_t)strlen(why) });
	leave_unmade();
}

static const char *keep(int place, const char *value)
{
	if (!value || strlen(value) >= PATH_SIZE) return NULL;
	return strcpy(shim.paths[place], value);
}

/* NULL, or what is wrong with the options. */
static const char *read_options(struct arg options)
{
	static const char *const KNOWN[] = { "dir", "terminal", "stdin", "log", "log-driver", "log-attrs", "log-size", "log-files", "oom", NULL };
	uint64_t n = 0;
	const char *driver = option(options, "log-driver"), *size = option(options, "log-size"), *files = option(options, "log-files");
	if (unknown_option(options, KNOWN)) return "an option is unknown";
	shim.log = (struct log){ .fd = -1, .max_files = 1 };
	keep(2, option(options, "oom"));
	if (!driver || !strcmp(driver, "none")) return NULL;
	if (!strcmp(driver, "cri")) shim.log.format = LOG_CRI;
	else if (!strcmp(driver, "json-file")) shim.log.format = LOG_JSON;
	else return "log-driver is none, cri or json-file";
	shim.log.path = keep(0, option(options, "log"));
	shim.log.attrs = keep(1, option(options, "log-attrs"));
	if (!shim.log.path) return "a log needs a path";
	if (size && !parse_u64(size, &shim.log.max_bytes)) return "log-size is not a number";
	if (files && (!parse_u64(files, &n) || !n || n > 9999)) return "log-files is not a number from 1 to 9999";
	if (files) shim.log.max_files = (uint32_t)n;
	return NULL;
}

const char *shim_open_door(struct arg options, struct shim_door *door, int *error)
{
	const char *dir = option(options, "dir");
	door->listener = -1;
	door->dir = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	*error = dir ? errno : EINVAL;
	if (door->dir < 0) return "the shim's directory";
	door->listener = listen_unix(door->dir, "shim.sock");
	*error = -door->listener;
	if (door->listener >= 0) return NULL;
	close(door->dir);
	return "shim.sock";
}

void shim_close_door(struct shim_door *door, bool remove)
{
	if (remove) unlinkat(door->dir, "shim.sock", 0);
	close(door->listener);
	close(door->dir);
}

/* The log and what tells of us: all that may fail before a process is made. */
static void settle(struct arg options, int answer)
{
	const char *wrong;
	sigset_t watched;
	if ((wrong = read_options(options))) refuse(answer, -EINVAL, wrong);
	int rc = log_open(&shim.log);
	if (rc < 0) refuse(answer, rc, "the log file");
	if ((rc = write_process_file(shim.dir, "pid", getpid())) < 0) refuse(answer, rc, "the pid file");
	sigemptyset(&watched);
	sigaddset(&watched, SIGCHLD);
	sigprocmask(SIG_SETMASK, &watched, NULL);
	shim.signals = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
	if (shim.signals < 0) refuse(answer, -errno, "signalfd");
}

/* A mount namespace goes with its last process, and that waits for the kernel's grace periods before anybody hears of its end. Held
 * here it goes behind the news. A kernel that cannot tell the namespace by a pidfd (Linux 6.11) takes it apart as ever. */
static void hold_mounts(const struct run *run)
{
	enum { GET_MOUNT_NAMESPACE = 0xff03 /* PIDFD_GET_MNT_NAMESPACE */ };
	shim.mounts = ioctl(run->pidfd, GET_MOUNT_NAMESPACE, 0);
}

/* Nothing of the container is left here but what clients have not read yet. To those who watched, the end of their connection says so:
 * what it had mounted may be mounted again. */
static void let_go(void)
{
	if (shim.mounts >= 0) close(shim.mounts);
	shim.mounts = -1;
	for (size_t i = 0; i < MOST_CLIENTS; i++) {
		struct conn *conn = &shim.clients[i];
		if (conn->fd >= 0 && conn->watches && !conn->attached && !conn_pending(conn)) conn_close(conn);
	}
}

/* Who the container is, and what tells of its memory: beside init's own work, which takes longer. */
static int note_init(struct run *run)
{
	hold_mounts(run);
	/* An OOM watch that cannot be had (no memory controller here) is no reason not to run: the exit status still counts kills. */
	if (watch_oom(&shim) < 0 && shim.oom_fd >= 0) close(shim.oom_fd), shim.oom_fd = -1;
	int rc = write_process_file(shim.dir, "init", run->pid);
	return rc < 0 && rc != -ESRCH ? fail(run, rc, "the init file") : 0;
}

static void create(struct request *request, int answer)
{
	struct process *container = &shim.processes[0];
	int theirs[3];
	*container = (struct process){ .used = true, .terminal = yes(option(request->options, "terminal")), .in = -1, .out = -1, .err = -1 };
	int rc = make_stdio(container, yes(option(request->options, "stdin")), theirs);
	if (rc < 0) refuse(answer, rc, "making pipes");
	run_init(&shim.run);
	shim.run.plan = request->plan;
	shim.run.report = write_answer;
	shim.run.owner = &answer;
	shim.run.takes_terminal = container->terminal;
	shim.run.pause = true;
	shim.run.meanwhile = note_init;
	memcpy(shim.run.stdio, theirs, sizeof theirs);
	int private[] = { answer, shim.listener, shim.signals, shim.dir, container->in, container->out, container->err };
	for (size_t i = 0; i < LENGTH(private); i++) run_private(&shim.run, private[i]);

	enum outcome outcome = run_plan(&shim.run);
	if (outcome == FAILED) {
		struct op op = plan_step(&shim.run.plan, shim.run.at);
		bool died = shim.run.error == -ECHILD && shim.run.detail[0];
		write_answer(&shim.run, &(struct record){ RECORD_FAILED, 0, shim.run.at, op.code, died ? 0 : (uint32_t)-shim.run.error, 0, shim.run.detail, (uint32_t)strlen(shim.run.detail) });
		leave_unmade();
	}
	for (int i = 0; i < 3; i++)
		if (theirs[i] >= 0) close(theirs[i]);
	shim.started = outcome == RAN;
	container->pid = shim.run.pid;
	if (shim.run.reaped) container->exited = true, container->status = shim.run.status, container->exited_ns = now_ns();
	take_terminal(container, shim.run.terminal);
	if (!container->pid) refuse(answer, -EINVAL, "the plan makes no process");
	if (shim.run.meanwhile && (rc = note_init(&shim.run)) < 0) { /* init had nothing to do before `ready` */
		kill(container->pid, SIGKILL);
		refuse(answer, rc, shim.run.detail);
	}
}

/* Children die in any order, ours and those whose parents died before them (we are their subreaper). */
static void reap(void)
{
	struct signalfd_siginfo ignored;
	int status;
	pid_t pid;
	while (read(shim.signals, &ignored, sizeof ignored) > 0) continue;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (size_t i = 0; i < MOST_PROCESSES; i++) {
			struct process *process = &shim.processes[i];
			if (!process->used || process->exited || process->pid != pid) continue;
			process->exited = true;
			process->status = status;
			process->exited_ns = now_ns();
			if (i == 0 && !shim.started) shim.run.reaped = true, shim.run.status = status;
		}
}

static void tell_oom(void)
{
	for (size_t i = 0; i < MOST_CLIENTS; i++)
		if (shim.clients[i].fd >= 0 && shim.clients[i].watches && conn_send(&shim.clients[i], TELL_OOM, 0, NULL, 0) < 0) conn_close(&shim.clients[i]);
}

/* Output first, then the file, then the news: who hears of the exit finds all of it. */
static void finish_processes(void)
{
	for (size_t i = MOST_PROCESSES; i-- > 0;) {
		struct process *process = &shim.processes[i];
		if (!process->used || !process->exited || (i == 0 && shim.over) || !drain(&shim, process)) continue;
		if (i == 0 && hear_oom(&shim)) tell_oom();
		write_exit(&shim, process);
		tell_exit(&shim, process);
		close_stdio(process);
		if (i > 0) process->used = false;
		else shim.over = true;
	}
	if (!shim.over) return;
	for (size_t i = 1; i < MOST_PROCESSES; i++) /* in a shared PID namespace execs outlive the container's first process */
		if (shim.processes[i].used && !shim.processes[i].exited) kill(shim.processes[i].pid, SIGKILL);
}

static void leave(void) __attribute__((noreturn));
static void leave(void)
{
	uint64_t end = now_ms() + 5000; /* for clients that still read what they were sent */
	unlinkat(shim.dir, "shim.sock", 0);
	let_go();
	for (size_t i = 0; i < MOST_CLIENTS; i++)
		while (shim.clients[i].fd >= 0 && conn_pending(&shim.clients[i]) && now_ms() < end) {
			struct pollfd p = { .fd = shim.clients[i].fd, .events = POLLOUT };
			poll(&p, 1, 100);
			if (conn_flush(&shim.clients[i]) < 0) break;
		}
	log_close(&shim.log);
	_exit(0);
}

static void welcome(void)
{
	int fd = accept_own(shim.listener);
	for (size_t i = 0; fd >= 0 && i < MOST_CLIENTS; i++)
		if (shim.clients[i].fd < 0) {
			conn_open(&shim.clients[i], fd);
			return;
		}
	if (fd >= 0) close(fd);
}

static void serve_events(struct conn *conn, short events)
{
	if (conn->fd < 0 || !events) return;
	int rc = events & POLLOUT ? conn_flush(conn) : 0;
	if (rc == 0 && events & (POLLIN | POLLHUP | POLLERR) && !stdin_waits(&shim, conn)) rc = conn_read(conn);
	if (rc < 0) conn_close(conn);
	else serve_client(&shim, conn);
	shim.touched = true;
}

/* To the spawner, which tells its client. One that has connected meanwhile and watches is told by us, first: that spares it the way
 * round, and both a process to wake. */
static void tell_created(int answer)
{
	welcome();
	if (shim.clients[0].fd >= 0) serve_events(&shim.clients[0], POLLIN);
	record_write(answer, &(struct record){ .kind = RECORD_DONE, .pid = (uint32_t)shim.processes[0].pid });
	close(answer);
}

/* What is polled in one turn: only what there is, since the kernel visits every entry, and there could be hundreds. */
enum source { SIGNALS, LISTENER, OOM, CLIENT, STDOUT, STDERR, STDIN };
struct watched {
	struct pollfd polls[3 + MOST_CLIENTS + 3 * MOST_PROCESSES];
	struct { uint8_t source, place; } from[3 + MOST_CLIENTS + 3 * MOST_PROCESSES];
	nfds_t count;
};

static void watch(struct watched *w, int fd, short events, enum source source, size_t place)
{
	if (fd < 0) return;
	w->polls[w->count] = (struct pollfd){ .fd = fd, .events = events };
	w->from[w->count].source = (uint8_t)source;
	w->from[w->count++].place = (uint8_t)place;
}

static bool hung_up[MOST_PROCESSES]; /* a terminal that nobody has open: polled again after a pause, not in a circle */

/* Its streams, unless a client lags; its stdin, when somebody's input waits for room. How long it rests, in milliseconds. */
static int watch_process(struct watched *w, size_t place)
{
	enum { HUNG_MS = 50, FLOW_MS = 1 };
	struct process *process = &shim.processes[place];
	bool hung = hung_up[place], rests = process->rests, held = !process->used || process->exited || is_held_back(&shim, process), waits = false;
	hung_up[place] = false;
	if (rests) process->rests = false; /* written only then: the pages of unused places stay the kernel's zeros */
	for (size_t i = 0; process->used && i < MOST_CLIENTS; i++) {
		const struct conn *c = &shim.clients[i];
		waits |= c->fd >= 0 && c->attached && c->process == process->number && stdin_waits(&shim, c);
	}
	if (!held && !hung && !rests) watch(w, process->out, POLLIN, STDOUT, place);
	if (!held && !rests) watch(w, process->err, POLLIN, STDERR, place);
	if (waits) watch(w, process->in, POLLOUT, STDIN, place);
	return rests ? FLOW_MS : hung ? HUNG_MS : 0;
}

static void hear(enum source source, size_t place, short events)
{
	switch (source) {
	case STDOUT: hung_up[place] = pump(&shim, &shim.processes[place], STREAM_OUT) == -EIO; break;
	case STDERR: pump(&shim, &shim.processes[place], STREAM_ERR); break;
	case STDIN:
		for (size_t k = 0; k < MOST_CLIENTS; k++)
			if (shim.clients[k].fd >= 0 && stdin_waits(&shim, &shim.clients[k])) serve_client(&shim, &shim.clients[k]);
		break;
	case CLIENT: serve_events(&shim.clients[place], events); break;
	case OOM:
		if (hear_oom(&shim)) tell_oom();
		break;
	case SIGNALS: reap(); break;
	case LISTENER: welcome(); break;
	}
}

static void turn(void)
{
	enum { IDLE_MS = 1000 };
	struct watched w;
	int rest_ms = 0;
	w.count = 0;
	for (size_t i = 0; i < MOST_PROCESSES; i++) {
		int ms = watch_process(&w, i);
		if (ms && (!rest_ms || ms < rest_ms)) rest_ms = ms;
	}
	for (size_t i = 0; i < MOST_CLIENTS; i++) {
		struct conn *c = &shim.clients[i];
		short events = (short)((stdin_waits(&shim, c) ? 0 : POLLIN) | (conn_pending(c) ? POLLOUT : 0));
		if (events) watch(&w, c->fd, events, CLIENT, i);
	}
	watch(&w, shim.oom_fd, POLLIN, OOM, 0);
	watch(&w, shim.signals, POLLIN, SIGNALS, 0);
	watch(&w, shim.listener, POLLIN, LISTENER, 0);
	int ready = poll(w.polls, w.count, rest_ms ? rest_ms : shim.touched ? IDLE_MS : -1);
	if (ready == 0 && shim.touched && !rest_ms) shed_memory(&shim);
	/* In the order above: output, then what clients ask, then who has ended. */
	for (nfds_t i = 0; ready > 0 && i < w.count; i++)
		if (w.polls[i].revents) hear((enum source)w.from[i].source, w.from[i].place, w.polls[i].revents);
}

static bool all_ended(void)
{
	for (size_t i = 1; i < MOST_PROCESSES; i++)
		if (shim.processes[i].used) return false;
	return shim.over;
}

void shim_main(struct request *request, struct shim_door door, struct request_memory memory, int answer)
{
	shim.dir = door.dir;
	shim.listener = door.listener;
	shim.signals = shim.mounts = shim.oom_fd = -1;
	for (size_t i = 0; i < MOST_CLIENTS; i++) conn_open(&shim.clients[i], -1);
	shim.plan_memory = memory;
	shim.request = request;
	setsid();
	(void)!chdir("/");
	prctl(PR_SET_NAME, "estiba-shim");
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	settle(request->options, answer);
	create(request, answer);
	tell_created(answer);
	if (shim.started) forget_plan(&shim);
	shim.touched = true;
	for (;;) {
		finish_processes();
		if (all_ended()) leave();
		if (shim.over) let_go();
		turn();
	}
}
