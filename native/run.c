#include "path.h"
#include <linux/sched.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/prctl.h>

/* The actors talk over one SOCK_SEQPACKET pair each, always with the host. The end of file is news too: the other is gone.
 *
 *   host                                middle, init
 *     ── GO at ────────────────────────▶   runs its steps from `at` up to the first that is not its own (init that middle has
 *                                          cloned: before it comes, up to a step that says something or cannot be told of later)
 *     ◀─────────────────── DONE at ──      `at`: that step
 *     ◀────────── FAIL errno, detail ──    and it ends; `at`: the step
 *     ◀─────────────────── PID value ──    middle has cloned init (CLONE_PARENT: init is the host's child)
 *     ◀───── CONSOLE with an fd, at ──     for the socket the step names, or for the shim
 *     ◀──────── LISTENER fd number ──      the seccomp fd, to be fetched by pidfd_getfd: the filter may forbid sendmsg
 *     ── GO ───────────────────────────▶   the answer to both
 *     ◀──────────────────────── EXEC ──    execve follows; then FAIL, or the end of file: the program runs
 */
struct message { uint32_t kind, at; int32_t error; uint32_t value; char detail[DETAIL_SIZE]; };
#define MESSAGE_HEAD offsetof(struct message, detail)

#define OP_ENTRY(name, code, signature) [code] = op_##name,
static int (*const OPS[MAX_OP_CODE + 1])(struct run *, const union args *) = { FOR_EACH_OP(OP_ENTRY) };
#undef OP_ENTRY

void run_init(struct run *run)
{
	memset(run, 0, sizeof *run);
	for (size_t i = 0; i < SLOTS; i++) run->slots[i] = -1;
	for (size_t i = 0; i < 3; i++) run->channel[i] = run->stdio[i] = -1;
	run->pidfd = run->middle_pidfd = run->init_end = run->terminal = run->parent = -1;
}

void run_private(struct run *run, int fd)
{
	if (fd >= 0 && run->private_count < LENGTH(run->private_fds)) run->private_fds[run->private_count++] = fd;
}

int fail(struct run *run, int error, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vtext(run->detail, sizeof run->detail, format, args);
	va_end(args);
	return error;
}

int slot_fd(struct run *run, uint64_t slot)
{
	if (slot >= SLOTS || run->slots[slot] < 0) return fail(run, -EBADF, "slot %u is empty", (unsigned)slot);
	return run->slots[slot];
}

int set_slot(struct run *run, uint64_t slot, int fd)
{
	if (fd < 0) return fd;
	if (slot >= SLOTS) {
		close(fd);
		return -EBADF;
	}
	if (run->slots[slot] >= 0) close(run->slots[slot]);
	run->slots[slot] = fd;
	return 0;
}

int do_op(struct run *run, struct op op)
{
	union args args;
	/* Anything else may mount over it, or change the root. */
	if (op.code != OP_deviceAt && op.code != OP_symlinkAt) forget_parent(run);
	op_args(op, &args);
	run->detail[0] = 0;
	return OPS[op.code](run, &args);
}

/* -- messages */

static int tell(struct run *run, int channel, uint32_t kind, uint32_t value, int fd)
{
	struct message m = { .kind = kind, .at = run->at, .error = run->error, .value = value };
	size_t size = MESSAGE_HEAD;
	if (kind == MESSAGE_FAIL) size += text(m.detail, sizeof m.detail, "%s", run->detail) + 1;
	/* LISTENER must not use sendmsg: the filter is on already, and what it holds back only the listener could release. */
	if (fd < 0) return negative(write(channel, &m, size));
	return send_fd(channel, fd, &m, size);
}

/* 1, or 0 when the other side is gone. *fd is what came with the message, or -1. */
static int hear(int channel, struct message *m, int *fd)
{
	union { struct cmsghdr head; char room[CMSG_SPACE(sizeof(int))]; } control;
	struct iovec part = { m, sizeof *m };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
	ssize_t n;
	do n = recvmsg(channel, &message, MSG_CMSG_CLOEXEC); while (n < 0 && errno == EINTR);
	*fd = -1;
	if (n < (ssize_t)MESSAGE_HEAD) return 0;
	if (n < (ssize_t)sizeof *m) memset((char *)m + n, 0, sizeof *m - (size_t)n);
	m->detail[sizeof m->detail - 1] = 0;
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len >= CMSG_LEN(sizeof(int))) memcpy(fd, CMSG_DATA(c), sizeof *fd);
	return 1;
}

/* Init has begun before the host's word: here it waits for it. Without the word it ends, whoever made it wants nothing of it any more. */
static void catch_up(struct run *run)
{
	struct message go;
	int none;
	if (run->ahead && (!hear(run->channel[HOST], &go, &none) || go.kind != MESSAGE_GO)) _exit(1);
	run->ahead = false;
}

/* What says something to the host, ends as the program, or takes away the calls to hear and say: not without the word. */
static bool needs_word(struct op op) { return op.code == OP_console || op.code == OP_seccomp || op.code == OP_exec || op.code == OP_awaitStart; }

int ask_host(struct run *run, uint32_t kind, uint32_t value, int fd)
{
	struct message m;
	int none;
	int rc = tell(run, run->channel[HOST], kind, value, fd);
	if (rc < 0 || kind == MESSAGE_PID || kind == MESSAGE_EXEC) return rc;
	if (!hear(run->channel[HOST], &m, &none)) return -EPIPE;
	if (m.error) fail(run, m.error, "%s", m.detail);
	return m.error;
}

/* -- children */

/* Where init begins before the host's word, or 0. Between a clone into what exists and a step of init the host has nothing to do but to
 * pass the word on, and to write to init's files in /proc: half of what init does fits there. */
static uint32_t ahead_from(const struct run *run)
{
	bool into = plan_step(&run->plan, run->at).code == OP_cloneInto;
	uint32_t i = run->at + 1;
	while (into && i < run->plan.steps && plan_step(&run->plan, i).where == HOST && plan_step(&run->plan, i).code == OP_writeProc) i++;
	return (into || run->me == MIDDLE) && i < run->plan.steps && plan_step(&run->plan, i).where == INIT ? i : 0;
}

/* What the child keeps: its own channel, stdio, slots. What it must not keep: the host's other ends, and the caller's. */
int become(struct run *run, enum where actor)
{
	int own = actor == INIT ? run->init_end : run->channel[MIDDLE];
	for (uint32_t i = 0; i < run->private_count; i++) close(run->private_fds[i]);
	run->private_count = 0;
	if (actor == INIT) {
		for (int i = 0; i < 3; i++)
			if (run->channel[i] >= 0 && run->channel[i] != own) close(run->channel[i]);
		for (int i = 0; i < 3; i++) {
			if (run->stdio[i] == i) fcntl(i, F_SETFD, 0);
			else if (run->stdio[i] >= 0 && dup2(run->stdio[i], i) < 0) _exit(1);
		}
	}
	uint32_t first = actor == INIT ? ahead_from(run) : 0;
	run->ahead = first > 0;
	run->me = actor;
	run->channel[HOST] = own;
	run->channel[MIDDLE] = run->channel[INIT] = -1;
	if (actor == INIT) run->init_end = -1;

	for (;;) {
		struct message go = { .kind = MESSAGE_GO, .at = first };
		int none;
		/* The host is gone before it gave the word: whoever made us wants nothing of us any more. */
		if (!run->ahead && (!hear(own, &go, &none) || go.kind != MESSAGE_GO)) _exit(1);
		for (run->at = go.at; run->at < run->plan.steps; run->at++) {
			struct op op = plan_step(&run->plan, run->at);
			if (op.where != run->me) break;
			if (needs_word(op)) catch_up(run);
			run->error = do_op(run, op);
			if (run->error < 0) {
				catch_up(run);
				if (tell(run, own, MESSAGE_FAIL, 0, -1) < 0) {
					/* After `ready` nobody listens: the last words go where the program's would have gone. */
					write_all(2, run->detail, strlen(run->detail));
					write_all(2, "\n", 1);
				}
				_exit(op.code == OP_exec ? (run->error == -ENOENT ? 127 : 126) : 1);
			}
		}
		catch_up(run);
		if (tell(run, own, MESSAGE_DONE, 0, -1) < 0 || run->at >= run->plan.steps) _exit(0);
	}
}

static int make_channel(int *host_end, int *other_end)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) return -errno;
	*host_end = pair[0];
	*other_end = pair[1];
	return 0;
}

int op_fork(struct run *run, const union args *a)
{
	(void)a;
	int other, rc = make_channel(&run->channel[MIDDLE], &other);
	if (rc < 0) return rc;
	if ((rc = make_channel(&run->channel[INIT], &run->init_end)) < 0) return rc;
	struct clone_args_ args = { .flags = CLONE_PIDFD, .exit_signal = SIGCHLD, .pidfd = (uintptr_t)&run->middle_pidfd };
	pid_t pid = (pid_t)syscall(NR_clone3, &args, sizeof args);
	if (pid < 0) return -errno;
	if (pid == 0) {
		close(run->channel[MIDDLE]);
		close(run->channel[INIT]);
		run->channel[INIT] = -1;
		run->channel[MIDDLE] = other;
		become(run, MIDDLE);
	}
	run->middle_pid = pid;
	close(other);
	close(run->init_end);
	run->init_end = -1;
	return 0;
}

static int clone_init(struct run *run, uint64_t flags, uint64_t cgroup_slot, bool sibling)
{
	int pidfd = -1, rc;
	if (run->me == HOST && (rc = make_channel(&run->channel[INIT], &run->init_end)) < 0) return rc;
	struct clone_args_ args = { .flags = flags | CLONE_PIDFD, .exit_signal = SIGCHLD, .pidfd = (uintptr_t)&pidfd };
	if (cgroup_slot != NO_SLOT) {
		int cgroup = slot_fd(run, cgroup_slot);
		if (cgroup < 0) return cgroup;
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)cgroup;
	}
	/* From middle, so that init is the host's child; from the host only when its own caller wants to be the parent.
	 * clone3 takes the exit signal from the parent then, and refuses to be given one. */
	if (run->me == MIDDLE || sibling) {
		args.flags |= CLONE_PARENT;
		args.exit_signal = 0;
	}
	pid_t pid = (pid_t)syscall(NR_clone3, &args, sizeof args);
	if (pid < 0) return -errno;
	if (pid == 0) become(run, INIT);
	close(run->init_end);
	run->init_end = -1;
	if (run->me == MIDDLE) {
		close(pidfd);
		return ask_host(run, MESSAGE_PID, (uint32_t)pid, -1);
	}
	run->sibling = sibling;
	run->pid = pid;
	run->pidfd = pidfd;
	return 0;
}

int op_clone(struct run *run, const union args *a) { return clone_init(run, a->clone.flags.n, a->clone.cgroup.n, a->clone.sibling.n != 0); }

/* Where the executor lives: setns(2) into a mount namespace changes its root and its working directory too. */
struct home { int self, root, here, dumpable; };

static void close_home(const struct home *home)
{
	close(home->self);
	close(home->root);
	close(home->here);
}

static int note_home(struct home *home)
{
	*home = (struct home){ .self = pidfd_open_(getpid()), .root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC),
			       .here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC), .dumpable = prctl(PR_GET_DUMPABLE) };
	if (home->self >= 0 && home->root >= 0 && home->here >= 0) return 0;
	int rc = -errno;
	close_home(home);
	return rc;
}

static void go_home(const struct home *home, uint32_t types)
{
	/* Only memory can lack, and comes back: to stay would be to act on another file system than the plan means. */
	while (setns(home->self, (int)types) < 0)
		if (errno != ENOMEM) abort();
	if (types & CLONE_NEWNS && (fchdir(home->root) < 0 || chroot(".") < 0 || fchdir(home->here) < 0)) abort();
	prctl(PR_SET_DUMPABLE, home->dumpable);
}

/* A process of its own that enters, clones and goes costs a fork, two channels and four context switches more. */
int op_cloneInto(struct run *run, const union args *a)
{
	uint32_t types = (uint32_t)a->cloneInto.types.n, kept = run->private_count;
	int target = slot_fd(run, a->cloneInto.slot.n);
	struct home home;
	int rc = target < 0 ? target : note_home(&home);
	if (rc < 0) return rc;
	prctl(PR_SET_DUMPABLE, 0); /* as in op_setns; init inherits it with our memory */
	rc = negative(setns(target, (int)types)); /* all of them or none */
	if (rc == 0) {
		run_private(run, home.self);
		run_private(run, home.root);
		run_private(run, home.here);
		rc = clone_init(run, a->cloneInto.flags.n, a->cloneInto.cgroup.n, false);
		run->private_count = kept;
		go_home(&home, types);
	} else {
		prctl(PR_SET_DUMPABLE, home.dumpable);
	}
	close_home(&home);
	return rc;
}

int wait_init(struct run *run, int timeout_ms, int *status)
{
	if (!run->reaped) {
		int rc = wait_pidfd(run->pidfd, timeout_ms);
		if (rc < 0) return rc;
		/* A sibling is its parent's to reap; its status is not for us. */
		if (run->sibling || waitpid(run->pid, &run->status, 0) != run->pid) run->status = 0;
		run->reaped = true;
	}
	*status = run->status;
	return 0;
}

void end_children(struct run *run)
{
	int status;
	if (run->middle_pid) {
		pidfd_kill(run->middle_pidfd, SIGKILL);
		waitpid(run->middle_pid, &status, 0);
		run->middle_pid = 0;
	}
	if (run->pid && !run->reaped) {
		pidfd_kill(run->pidfd, SIGKILL);
		wait_init(run, -1, &status);
	}
}

/* -- the host */

static void describe_death(struct run *run, enum where actor)
{
	int status = 0;
	if (actor == MIDDLE) {
		waitpid(run->middle_pid, &status, 0);
		run->middle_pid = 0;
	} else {
		wait_init(run, -1, &status);
	}
	if (WIFSIGNALED(status)) fail(run, 0, "the process was ended by signal %d", WTERMSIG(status));
	else fail(run, 0, "the process ended with status %d", WEXITSTATUS(status));
}

static int give_console(struct run *run, const struct message *m, int fd)
{
	union args args;
	struct op op = plan_step(&run->plan, m->at < run->plan.steps ? m->at : 0);
	if (op.code != OP_console || fd < 0) return -EPROTO;
	op_args(op, &args);
	if (args.console.socket.n == 0) {
		if (!run->takes_terminal) return fail(run, -EINVAL, "there is no shim to take the terminal, and no console socket");
		if (run->alone) relay_prepare(fd);
		run->terminal = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		return run->terminal < 0 ? -errno : 0;
	}
	int socket = connect_unix(str(args.console.socket), SOCK_STREAM);
	if (socket < 0) return fail(run, socket, "console socket %s", str(args.console.socket));
	/* runc sends the pty's name beside the fd; receivers print it and nothing more. */
	int rc = send_fd(socket, fd, "/dev/ptmx", 9);
	close(socket);
	return rc;
}

static int give_listener(struct run *run, const struct message *m)
{
	union args args;
	struct op op = plan_step(&run->plan, m->at < run->plan.steps ? m->at : 0);
	if (op.code != OP_seccomp) return -EPROTO;
	op_args(op, &args);
	int listener = value_of(syscall(NR_pidfd_getfd, run->pidfd, (int)m->value, 0));
	if (listener < 0) return fail(run, listener, "taking the seccomp listener out of the container");
	int socket = connect_unix(str(args.seccomp.listener), SOCK_STREAM);
	int rc = socket;
	if (socket >= 0) {
		size_t size = 0;
		char *state = fill_pid(args.seccomp.state, args.seccomp.pidAt, run->pid, &size);
		rc = state ? send_fd(socket, listener, state, size) : -ENOMEM;
		give_back(state, size + 1);
		close(socket);
	}
	close(listener);
	return rc < 0 ? fail(run, rc, "seccomp listener %s", str(args.seccomp.listener)) : 0;
}

static void answer(struct run *run, enum where actor, int rc)
{
	struct message m = { .kind = MESSAGE_GO, .at = run->at, .error = rc };
	text(m.detail, sizeof m.detail, "%s", rc < 0 ? run->detail : "");
	(void)!write(run->channel[actor], &m, sizeof m);
}

/* Init goes on to its program and asks for nothing on the way: of all it may say only the end of file, or what came before it, is news. */
static bool goes_to_exec(const struct run *run)
{
	for (uint32_t i = run->at; i < run->plan.steps; i++) {
		struct op op = plan_step(&run->plan, i);
		union args args;
		if (op.where != INIT || op.code == OP_console) return false;
		if (op.code == OP_exec) return true;
		if (op.code == OP_seccomp) {
			op_args(op, &args);
			if (args.seccomp.listener.n) return false;
		}
	}
	return false;
}

/* poll(2) with no events wakes for the hangup alone: EXEC, which comes a moment before it, would wake us once more. */
static void await_hangup(int channel)
{
	struct pollfd p = { .fd = channel };
	while (poll(&p, 1, -1) < 0 && errno == EINTR) continue;
}

/* It reads the end of file and goes. */
static void dismiss_middle(struct run *run)
{
	if (run->channel[MIDDLE] >= 0) close(run->channel[MIDDLE]);
	run->channel[MIDDLE] = -1;
}

static void reap_middle(struct run *run)
{
	int status;
	if (!run->middle_pid || run->channel[MIDDLE] >= 0) return;
	waitpid(run->middle_pid, &status, 0);
	run->middle_pid = 0;
}

/* Lets an actor run its steps and hears it out. 0: run->at is the next step of another; else the failure is in run. */
static int hand_over(struct run *run, enum where actor)
{
	int channel = run->channel[actor];
	bool leaving = run->alone && run->answered && actor == INIT;
	for (uint32_t i = run->at; leaving && i < run->plan.steps; i++) leaving = plan_step(&run->plan, i).where == INIT;
	int rc = tell(run, channel, MESSAGE_GO, 0, -1);
	if (rc < 0) {
		describe_death(run, actor);
		return -ECHILD;
	}
	/* Beside init's own work: a process takes a while to go, and in the container's cgroup it counts against pids.max until it is reaped. */
	if (actor == INIT) reap_middle(run);
	if (leaving) {
		run->at = run->plan.steps;
		return 0;
	}
	if (run->meanwhile && actor == INIT) {
		rc = run->meanwhile(run);
		run->meanwhile = NULL;
		if (rc < 0) return rc;
	}
	if (actor == INIT && goes_to_exec(run)) await_hangup(channel);
	for (;;) {
		struct message m;
		int fd;
		if (!hear(channel, &m, &fd)) {
			if (actor == INIT && run->execed) return 0;
			describe_death(run, actor);
			return -ECHILD;
		}
		if (m.at < run->plan.steps || m.kind == MESSAGE_DONE) run->at = m.at;
		switch (m.kind) {
		case MESSAGE_DONE:
			return 0;
		case MESSAGE_FAIL:
			fail(run, 0, "%s", m.detail);
			return m.error < 0 ? m.error : -EPROTO;
		case MESSAGE_PID:
			run->pid = (pid_t)m.value;
			run->pidfd = pidfd_open_(run->pid);
			if (run->pidfd < 0) return run->pidfd;
			break;
		case MESSAGE_EXEC:
			run->execed = true;
			run->at++;
			break;
		case MESSAGE_CONSOLE:
			answer(run, actor, give_console(run, &m, fd));
			break;
		case MESSAGE_LISTENER:
			/* Without its listener the filter may hold back the very calls by which init would say so: it is ended from here. */
			rc = give_listener(run, &m);
			if (rc < 0) return rc;
			answer(run, actor, 0);
			break;
		}
		if (fd >= 0) close(fd);
	}
}

void run_undo(struct run *run)
{
	uint32_t failed = run->at;
	char detail[DETAIL_SIZE];
	memcpy(detail, run->detail, sizeof detail);
	for (uint32_t i = run->plan.undos; i-- > 0;) {
		struct op op = plan_undo(&run->plan, i);
		if (op.step >= failed) continue;
		int rc = do_op(run, op);
		if (rc < 0 && run->report)
			run->report(run, &(struct record){ RECORD_UNDO_FAILED, (uint32_t)run->pid, op.step, op.code, (uint32_t)-rc, 0,
							   run->detail, (uint32_t)strlen(run->detail) });
	}
	memcpy(run->detail, detail, sizeof detail);
}

enum outcome run_plan(struct run *run)
{
	while (run->at < run->plan.steps) {
		struct op op = plan_step(&run->plan, run->at);
		if (op.where == HOST) {
			run->error = do_op(run, op);
			if (run->error == 0) run->at++;
			if (run->error == 0 && op.code == OP_ready) reap_middle(run); /* of an init that had nothing to do before */
			if (run->error == 0 && op.code == OP_ready && run->pause) return PAUSED;
			if (run->error == -EAGAIN && run->hurry) return WAITS;
		} else {
			uint32_t before = run->at;
			run->error = hand_over(run, (enum where)op.where);
			if (run->error == 0 && run->at == before) run->error = -EPROTO; /* never loop on a silent actor */
			if (run->error == 0 && op.where == MIDDLE && run->pid) dismiss_middle(run);
		}
		if (run->error < 0) {
			end_children(run);
			run_undo(run);
			return FAILED;
		}
	}
	reap_middle(run);
	return RAN;
}

enum outcome run_and_report(struct run *run)
{
	enum outcome outcome = run_plan(run);
	if (outcome == FAILED) {
		struct op op = plan_step(&run->plan, run->at);
		uint32_t error = run->error == -ECHILD && run->detail[0] ? 0 : (uint32_t)-run->error;
		run->report(run, &(struct record){ RECORD_FAILED, (uint32_t)run->pid, run->at, op.code, error, 0, run->detail,
						   (uint32_t)strlen(run->detail) });
	} else if (outcome == RAN && !run->answered) {
		run->report(run, &(struct record){ .kind = RECORD_DONE, .pid = (uint32_t)run->pid, .step = run->at, .detail = run->data,
						   .detail_size = run->data_size });
	}
	return outcome;
}

int op_ready(struct run *run, const union args *a)
{
	(void)a;
	run->answered = true;
	if (!run->pause)
		run->report(run, &(struct record){ .kind = RECORD_DONE, .pid = (uint32_t)run->pid, .step = run->at, .detail = run->data,
						   .detail_size = run->data_size });
	return 0;
}

void run_close(struct run *run)
{
	forget_parent(run);
	for (size_t i = 0; i < SLOTS; i++)
		if (run->slots[i] >= 0) close(run->slots[i]);
	for (size_t i = 0; i < 3; i++)
		if (run->channel[i] >= 0) close(run->channel[i]);
	if (run->pidfd >= 0) close(run->pidfd);
	if (run->middle_pidfd >= 0) close(run->middle_pidfd);
	if (run->init_end >= 0) close(run->init_end);
	give_back(run->data, DATA_SIZE);
	int terminal = run->terminal;
	run_init(run);
	run->terminal = terminal;
}

void record_head(const struct record *r, unsigned char out[RECORD_HEAD])
{
	const uint32_t words[RECORD_HEAD / 4] = { 0x52545345u, r->kind, r->pid, r->step, r->op, r->error, r->status, r->detail_size };
	memcpy(out, words, RECORD_HEAD); /* x86-64 and arm64 are both little endian */
}

int record_write(int fd, const struct record *record)
{
	unsigned char head[RECORD_HEAD];
	record_head(record, head);
	int rc = write_all(fd, head, sizeof head);
	return rc < 0 ? rc : write_all(fd, record->detail, record->detail_size);
}
