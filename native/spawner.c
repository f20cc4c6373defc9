/* One a daemon. It is small, so forking it is cheap (a Node process with an 80 MB heap blocks 2 ms in each spawn).
 *
 *   daemon                          spawner                        child
 *     ── ASK_RUN plan ────────────▶   runs it, or forks ─────────▶   runs it
 *     ◀───────────── TELL_RESULT ──   ◀──────── records, EOF ────
 *     ── ASK_RUN, while others run ▶   ── at, plan ──────────────▶   a worker, which stays for the next plan
 *     ◀───────────── TELL_RESULT ──   ◀──────────────── records ──
 *     ── ASK_SHIM options, plan ──▶   forks ─────────────────────▶   becomes a shim; creates the container
 *     ◀──────────── TELL_LISTENS ──
 *     ◀───────────── TELL_RESULT ──   ◀──────── records, EOF ────   … and lives on, whatever happens to us
 */
#include "shim.h"
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { MOST_CONNS = 64, MOST_JOBS = 256, JOB_ROOM = 68 << 10, MOST_WORKERS = 4, WORKER_ROOM = 16 << 10 };

/* A child that is kept: with containers being made and removed at once a fork for each removal costs more than the removal. */
struct worker { int fd; bool busy; };
/* `answer` stays with the place for the next job in it. The fd of a worker's job is the worker's. */
struct job { int fd; uint32_t id; uint32_t conn, serial; unsigned char *answer; uint32_t got; bool shim; struct worker *worker; };
struct spawner {
	int listener;
	struct conn conns[MOST_CONNS];
	uint32_t serials[MOST_CONNS]; /* so that an answer does not reach the next client in the same place */
	struct job jobs[MOST_JOBS];
	struct worker workers[MOST_WORKERS];
};

static void collect(struct run *run, const struct record *record)
{
	struct job *job = run->owner;
	unsigned char head[RECORD_HEAD];
	if (job->got + RECORD_HEAD + record->detail_size > JOB_ROOM) return;
	record_head(record, head);
	memcpy(job->answer + job->got, head, sizeof head);
	memcpy(job->answer + job->got + sizeof head, record->detail ? record->detail : head, record->detail_size);
	job->got += RECORD_HEAD + record->detail_size;
}

static void write_record(struct run *run, const struct record *record) { record_write(*(int *)run->owner, record); }

/* Steps that change nothing of this process and end at once, or say -EAGAIN when they cannot. What waits, or starts others, gets a
 * child. */
static bool runs_here(const struct plan *plan)
{
	static const uint16_t QUICK[] = { OP_mkdir, OP_rmdir, OP_unlink, OP_symlink, OP_mknod, OP_chown, OP_chmod, OP_setTime, OP_write, OP_renameFile,
		OP_mount, OP_umount, OP_fsMount, OP_mountAttr, OP_netlink, OP_deviceFilter, OP_kill, OP_removeTree, OP_removeCgroup };
	for (uint32_t i = 0; i < plan->steps + plan->undos; i++) {
		struct op op = i < plan->steps ? plan_step(plan, i) : plan_undo(plan, i - plan->steps);
		bool quick = false;
		for (size_t k = 0; k < LENGTH(QUICK) && !quick; k++) quick = op.code == QUICK[k];
		if (!quick) return false;
	}
	return true;
}

static void prepare(struct run *run, struct request *request, void (*report)(struct run *, const struct record *), void *owner)
{
	run_init(run);
	run->plan = request->plan;
	run->report = report;
	run->owner = owner;
}

static void refuse(struct conn *conn, uint32_t id, uint32_t step, int error, const char *why)
{
	conn_record(conn, id, &(struct record){ .kind = RECORD_FAILED, .step = step, .error = (uint32_t)error, .detail = why, .detail_size = (uint32_t)strlen(why) });
}

static struct job *free_job(struct spawner *s)
{
	for (size_t i = 0; i < MOST_JOBS; i++)
		if (s->jobs[i].fd < 0) return &s->jobs[i];
	return NULL;
}

/* The child keeps nothing of ours but the request. */
static void leave_spawner(struct spawner *s, struct conn *keep)
{
	close(s->listener);
	for (size_t i = 0; i < MOST_CONNS; i++) {
		if (&s->conns[i] == keep) close(keep->fd);
		else if (s->conns[i].fd >= 0) conn_close(&s->conns[i]);
	}
	for (size_t i = 0; i < MOST_JOBS; i++)
		if (s->jobs[i].fd >= 0 && !s->jobs[i].worker) close(s->jobs[i].fd);
	/* Held open here, they would keep a worker whose spawner was killed. */
	for (size_t i = 0; i < MOST_WORKERS; i++)
		if (s->workers[i].fd >= 0) close(s->workers[i].fd);
	signal(SIGCHLD, SIG_DFL);
}

/* Bare: we have no threads, and fork(3) makes seven calls more on their behalf. */
static pid_t bare_fork(void) { return (pid_t)syscall(NR_clone3, &(struct clone_args_){ .exit_signal = SIGCHLD }, sizeof(struct clone_args_)); }

static struct job new_job(struct spawner *s, const struct job *place, const struct conn *conn, struct frame frame, int fd)
{
	uint32_t client = (uint32_t)(conn - s->conns);
	return (struct job){ .fd = fd, .id = frame.id, .conn = client, .serial = s->serials[client], .answer = place->answer, .shim = frame.kind == ASK_SHIM };
}

/* -- workers */

/* One plan after the other, each a packet: its first step u32, then the plan. The end of file: the spawner wants no more, or is gone. */
static void work(int fd) __attribute__((noreturn));
static void work(int fd)
{
	static struct run run;
	unsigned char *packet = take(WORKER_ROOM);
	if (!packet) _exit(1);
	prctl(PR_SET_NAME, "estiba-worker");
	for (;;) {
		struct request request;
		ssize_t n = recv(fd, packet, WORKER_ROOM, 0);
		if (n < 0 && errno == EINTR) continue;
		if (n <= 4) _exit(0);
		struct frame frame = { .size = (uint32_t)n - 4, .kind = ASK_RUN, .payload = packet + 4 };
		if (read_request(frame, false, &request)) _exit(1); /* the spawner has read it already */
		prepare(&run, &request, write_record, &fd);
		run_private(&run, fd);
		run.at = u32_at(packet);
		run_and_report(&run);
		run_close(&run);
		request_done(&request);
	}
}

static struct worker *idle_worker(struct spawner *s)
{
	int pair[2];
	struct worker *place = NULL;
	for (size_t i = 0; i < MOST_WORKERS; i++) {
		if (s->workers[i].fd >= 0 && !s->workers[i].busy) return &s->workers[i];
		if (s->workers[i].fd < 0) place = &s->workers[i];
	}
	if (!place || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) return NULL;
	pid_t pid = bare_fork();
	if (pid == 0) {
		close(pair[0]);
		leave_spawner(s, NULL);
		work(pair[1]);
	}
	close(pair[1]);
	if (pid < 0) {
		close(pair[0]);
		return NULL;
	}
	*place = (struct worker){ .fd = pair[0] };
	return place;
}

static void end_worker(struct worker *worker)
{
	close(worker->fd);
	*worker = (struct worker){ .fd = -1 };
}

/* False: no worker is free, or the plan is too long for one. */
static bool give_to_worker(struct spawner *s, struct conn *conn, struct frame frame, uint32_t at)
{
	struct job *job = free_job(s);
	struct worker *worker;
	struct iovec parts[2] = { { &at, sizeof at }, { (void *)(uintptr_t)frame.payload, frame.size } };
	struct msghdr packet = { .msg_iov = parts, .msg_iovlen = LENGTH(parts) };
	if (!job || frame.size > WORKER_ROOM - sizeof at) return false;
	for (int attempt = 0; attempt <= MOST_WORKERS && (worker = idle_worker(s)); attempt++) {
		if (sendmsg(worker->fd, &packet, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) { /* it was killed */
			end_worker(worker);
			continue;
		}
		worker->busy = true;
		*job = new_job(s, job, conn, frame, worker->fd);
		job->worker = worker;
		return true;
	}
	return false;
}

static bool any_worker(const struct spawner *s)
{
	for (size_t i = 0; i < MOST_WORKERS; i++)
		if (s->workers[i].fd >= 0) return true;
	return false;
}

/* Nothing was asked for a while. */
static void end_idle_workers(struct spawner *s)
{
	for (size_t i = 0; i < MOST_WORKERS; i++)
		if (s->workers[i].fd >= 0 && !s->workers[i].busy) end_worker(&s->workers[i]);
}

/* -- children */

/* `at`: the first step that is still to be done. */
static void start_job(struct spawner *s, struct conn *conn, struct frame frame, struct request *request, uint32_t at)
{
	static struct run run;
	int pipe_[2];
	struct job *job = free_job(s);
	bool shim = frame.kind == ASK_SHIM;
	struct shim_door door;
	int error;
	if (!job) return refuse(conn, frame.id, 0, EAGAIN, "too many plans at once");
	const char *wrong = shim ? shim_open_door(request->options, &door, &error) : NULL;
	if (wrong) return refuse(conn, frame.id, 0, error, wrong);
	if (pipe2(pipe_, O_CLOEXEC) < 0) {
		error = errno;
		if (shim) shim_close_door(&door, true);
		return refuse(conn, frame.id, 0, error, "pipe");
	}
	pid_t pid = bare_fork();
	if (pid == 0) {
		struct request_memory memory = { conn->in, conn->in_room };
		close(pipe_[0]);
		leave_spawner(s, conn);
		if (shim) shim_main(request, door, memory, pipe_[1]);
		prepare(&run, request, write_record, &pipe_[1]);
		run_private(&run, pipe_[1]);
		run.at = at;
		run_and_report(&run);
		_exit(0);
	}
	error = errno;
	close(pipe_[1]);
	if (shim) shim_close_door(&door, pid < 0);
	if (pid < 0) {
		close(pipe_[0]);
		return refuse(conn, frame.id, 0, error, "fork");
	}
	*job = new_job(s, job, conn, frame, pipe_[0]);
	/* While the container is made the client can connect, which costs it a quarter of a millisecond. */
	if (shim) conn_send(conn, TELL_LISTENS, frame.id, NULL, 0);
}

/* A shim that has made its container says so and lives on: nothing follows. One that failed first takes back what it made. A worker has
 * taken back already what failed; any other child says all by its end. */
static bool is_answered(const struct job *job)
{
	uint32_t at = 0;
	while ((job->shim || job->worker) && job->got - at >= RECORD_HEAD) {
		uint32_t kind = u32_at(job->answer + at + 4), detail = u32_at(job->answer + at + RECORD_HEAD - 4);
		if (detail > job->got - at - RECORD_HEAD) return false;
		if (kind == RECORD_DONE || (kind == RECORD_FAILED && job->worker)) return true;
		at += RECORD_HEAD + detail;
	}
	return false;
}

/* Children have no use for it, and a page of it that both have would become a page of each with the next answer. */
static bool has_answer_room(struct job *job)
{
	if (job->answer) return true;
	job->answer = take(JOB_ROOM);
	return job->answer && madvise(job->answer, JOB_ROOM, MADV_DONTFORK) == 0;
}

/* Takes what a child has written; at its end of file the answer goes to whoever asked, if he is still there. */
static void hear_job(struct spawner *s, struct job *job)
{
	if (!has_answer_room(job)) return;
	ssize_t n = read(job->fd, job->answer + job->got, JOB_ROOM - job->got);
	if (n > 0) {
		job->got += (uint32_t)n;
		if (job->got < JOB_ROOM && !is_answered(job)) return;
	}
	struct conn *conn = &s->conns[job->conn];
	if (conn->fd >= 0 && s->serials[job->conn] == job->serial) {
		if (job->got) conn_send(conn, TELL_RESULT, job->id, job->answer, job->got);
		else refuse(conn, job->id, 0, ECHILD, "the process that ran the plan was killed");
	}
	if (job->worker && n > 0 && is_answered(job)) job->worker->busy = false;
	else if (job->worker) end_worker(job->worker);
	else close(job->fd);
	*job = (struct job){ .fd = -1, .answer = job->answer };
}

/* Quick steps, but not here: there is other work, or one of them has to wait. */
static void run_elsewhere(struct spawner *s, struct conn *conn, struct frame frame, struct request *request, uint32_t at)
{
	if (!give_to_worker(s, conn, frame, at)) start_job(s, conn, frame, request, at);
}

/* Answers, or hands the rest to a child when a step would have to wait (a cgroup that is busy, a tree that is large). */
static void run_here(struct spawner *s, struct conn *conn, struct frame frame, struct request *request)
{
	static unsigned char answer[JOB_ROOM];
	static struct run run;
	struct job job = { .fd = -1, .answer = answer };
	prepare(&run, request, collect, &job);
	run.hurry = true;
	enum outcome outcome = run_and_report(&run);
	uint32_t at = run.at;
	run_close(&run);
	if (outcome == WAITS) run_elsewhere(s, conn, frame, request, at);
	else conn_send(conn, TELL_RESULT, frame.id, answer, job.got);
}

/* With containers being made, an unmount that waits for the kernel's grace period would hold all of them up: then a worker does it. */
static bool is_busy(const struct spawner *s)
{
	for (size_t i = 0; i < MOST_JOBS; i++)
		if (s->jobs[i].fd >= 0) return true;
	return false;
}

/* False: the client asked for the end. */
static bool serve(struct spawner *s, struct conn *conn)
{
	struct frame frame;
	while (conn->fd >= 0 && conn_frame(conn, &frame)) {
		if (frame.kind == ASK_QUIT) return false;
		if (frame.kind == ASK_WHO) {
			conn_record(conn, frame.id, &(struct record){ .kind = RECORD_DONE, .pid = (uint32_t)getpid() });
		} else if (frame.kind != ASK_RUN && frame.kind != ASK_SHIM) {
			refuse(conn, frame.id, 0, EOPNOTSUPP, "the spawner knows no such request");
		} else {
			struct request request;
			const char *wrong = read_request(frame, frame.kind == ASK_SHIM, &request);
			if (wrong) refuse(conn, frame.id, request.bad_step, EBADMSG, wrong);
			else if (frame.kind == ASK_SHIM || !runs_here(&request.plan)) start_job(s, conn, frame, &request, 0);
			else if (is_busy(s)) run_elsewhere(s, conn, frame, &request, 0);
			else run_here(s, conn, frame, &request);
			request_done(&request);
		}
		conn_next(conn, &frame);
	}
	return true;
}

static void welcome(struct spawner *s)
{
	int fd = accept_own(s->listener);
	for (size_t i = 0; fd >= 0 && i < MOST_CONNS; i++)
		if (s->conns[i].fd < 0) {
			conn_open(&s->conns[i], fd);
			s->serials[i]++;
			return;
		}
	if (fd >= 0) close(fd);
}

static int listen_at(const char *path)
{
	char parent[PATH_SIZE];
	const char *slash = strrchr(path, '/');
	if (!slash || (size_t)(slash - path) >= sizeof parent) return -EINVAL;
	text(parent, sizeof parent, "%s", path);
	parent[slash - path] = 0;
	int dir = open(*parent ? parent : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) return -errno;
	int listener = listen_unix(dir, slash + 1);
	close(dir);
	return listener;
}

/* False: its client asked for the end. */
static bool serve_events(struct spawner *s, struct conn *conn, short events)
{
	int rc = events & POLLOUT ? conn_flush(conn) : 0;
	if (rc == 0 && events & (POLLIN | POLLHUP | POLLERR)) rc = conn_read(conn);
	if (rc == 0) return serve(s, conn);
	conn_close(conn);
	s->serials[conn - s->conns]++;
	return true;
}

/* Waits for news and serves it. Only places in use are asked for: the kernel visits every entry, and there are hundreds. */
static bool turn(struct spawner *s)
{
	enum { LISTENER, FIRST, IDLE_MS = 2000 };
	struct pollfd polls[FIRST + MOST_JOBS + MOST_CONNS];
	uint16_t places[LENGTH(polls)];
	nfds_t jobs = FIRST, all;
	polls[LISTENER] = (struct pollfd){ .fd = s->listener, .events = POLLIN };
	for (uint16_t i = 0; i < MOST_JOBS; i++)
		if (s->jobs[i].fd >= 0) places[jobs] = i, polls[jobs++] = (struct pollfd){ .fd = s->jobs[i].fd, .events = POLLIN };
	all = jobs;
	for (uint16_t i = 0; i < MOST_CONNS; i++) {
		const struct conn *conn = &s->conns[i];
		if (conn->fd < 0) continue;
		places[all] = i;
		polls[all++] = (struct pollfd){ .fd = conn->fd, .events = (short)(POLLIN | (conn_pending(conn) ? POLLOUT : 0)) };
	}
	int ready = poll(polls, all, any_worker(s) ? IDLE_MS : -1);
	if (ready == 0) end_idle_workers(s);
	if (ready <= 0) return true;
	for (nfds_t i = FIRST; i < jobs; i++)
		if (polls[i].revents) hear_job(s, &s->jobs[places[i]]);
	for (nfds_t i = jobs; i < all; i++) {
		struct conn *conn = &s->conns[places[i]];
		/* Closed meanwhile: an answer of a job could not be sent. */
		if (conn->fd == polls[i].fd && polls[i].revents && !serve_events(s, conn, polls[i].revents)) return false;
	}
	if (polls[LISTENER].revents) welcome(s);
	return true;
}

int spawner_main(const char *socket_path)
{
	static struct spawner s;
	/* What the daemon's own parent left open (a script's lock, a terminal) would live as long as every shim. */
	syscall(NR_close_range, 3, ~0u, 0);
	for (size_t i = 0; i < MOST_CONNS; i++) conn_open(&s.conns[i], -1);
	for (size_t i = 0; i < MOST_JOBS; i++) s.jobs[i].fd = -1;
	for (size_t i = 0; i < MOST_WORKERS; i++) s.workers[i].fd = -1;
	s.listener = listen_at(socket_path);
	if (s.listener < 0) {
		char line[128];
		write_all(2, line, text(line, sizeof line, "estiba-init: cannot listen: errno %d\n", -s.listener));
		return 1;
	}
	prctl(PR_SET_NAME, "estiba-spawner");
	signal(SIGCHLD, SIG_IGN); /* children are reaped by the kernel: nobody here waits for them */
	setsid();		  /* a ^C for the daemon is not for us */
	write_all(1, "ready\n", 6);
	int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd < 3 && nothing >= 0; fd++)
		if (fd != 2) dup2(nothing, fd);

	while (turn(&s)) continue;
	unlink(socket_path);
	return 0;
}
