/* What clients of a shim ask for. The kinds and their payloads: frame.h. */
#include "process.h"
#include <sys/ioctl.h>
#include <termios.h>

struct process *find_process(struct shim *shim, uint32_t number)
{
	for (size_t i = 0; i < MOST_PROCESSES; i++)
		if (shim->processes[i].used && shim->processes[i].number == number) return &shim->processes[i];
	return NULL;
}

static int answer(struct conn *conn, uint32_t id, int rc, const char *detail)
{
	struct record record = { .kind = rc < 0 ? RECORD_FAILED : RECORD_DONE, .error = rc < 0 ? (uint32_t)-rc : 0 };
	if (detail) record.detail = detail, record.detail_size = (uint32_t)strlen(detail);
	return conn_record(conn, id, &record);
}

static uint32_t word(const struct frame *frame, uint32_t i) { return frame->size >= 4 * (i + 1) ? u32_at(frame->payload + 4 * i) : 0; }

/* -- the container's start */

void forget_plan(struct shim *shim)
{
	run_close(&shim->run);
	give_back(shim->plan_memory.at, shim->plan_memory.size);
	request_done(shim->request);
	shim->plan_memory.at = NULL;
	shim->touched = true;
}

struct heard { struct conn *conn; uint32_t id, number; };

static void pass_on(struct run *run, const struct record *record)
{
	struct heard *heard = run->owner;
	struct record with = *record;
	if (record->kind == RECORD_DONE) with.status = heard->number;
	conn_record(heard->conn, heard->id, &with);
}

static int ask_start(struct shim *shim, struct conn *conn, const struct frame *frame)
{
	struct process *container = &shim->processes[0];
	if (shim->started) return answer(conn, frame->id, -EALREADY, "the container has been started");
	if (container->exited) return answer(conn, frame->id, -ESRCH, "the container's process has ended before it was started");
	struct heard heard = { conn, frame->id, 0 };
	shim->run.report = pass_on;
	shim->run.owner = &heard;
	shim->run.pause = false;
	shim->started = true;
	enum outcome outcome = run_and_report(&shim->run);
	if (outcome == FAILED) {
		container->status = shim->run.status;
		container->exited = true;
		container->exited_ns = now_ns();
	} else {
		answer(conn, frame->id, 0, NULL);
	}
	forget_plan(shim);
	return 0;
}

/* -- exec */

static bool is_name(const char *s)
{
	size_t n = strlen(s);
	for (size_t i = 0; i < n; i++)
		if (!((s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') || (s[i] >= '0' && s[i] <= '9') || s[i] == '-' || s[i] == '_')) return false;
	return n > 0 && n < NAME_SIZE - 8;
}

static struct process *free_process(struct shim *shim)
{
	for (size_t i = 1; i < MOST_PROCESSES; i++)
		if (!shim->processes[i].used) return &shim->processes[i];
	return NULL;
}

static void run_exec(struct shim *shim, struct conn *conn, const struct frame *frame, struct request *request, struct process *process)
{
	static struct run run;
	int theirs[3];
	struct heard heard = { conn, frame->id, process->number };
	bool attaches = yes(option(request->options, "attach"));
	int rc = make_stdio(process, yes(option(request->options, "stdin")), theirs);
	if (rc < 0) {
		answer(conn, frame->id, rc, "making pipes");
	} else {
		run_init(&run);
		run.plan = request->plan;
		memcpy(run.stdio, theirs, sizeof theirs);
		run.takes_terminal = process->terminal;
		run.report = pass_on;
		run.owner = &heard;
		int private[] = { shim->listener, shim->signals, shim->dir };
		for (size_t i = 0; i < LENGTH(private); i++) run_private(&run, private[i]);
		/* Attached first: not a byte may come before the answer's reader is known. */
		if (attaches) conn->attached = true, conn->process = process->number, conn->streams = STREAM_IN | STREAM_OUT | STREAM_ERR;
		if (run_and_report(&run) == FAILED) {
			rc = -ECHILD;
			conn->attached = conn->attached && !attaches;
		} else {
			process->pid = run.pid;
			take_terminal(process, run.terminal);
			if (run.reaped) process->exited = true, process->status = run.status, process->exited_ns = now_ns();
		}
		run_close(&run);
	}
	for (int i = 0; i < 3; i++)
		if (theirs[i] >= 0) close(theirs[i]);
	if (rc < 0 || !process->pid) {
		close_stdio(process);
		process->used = false;
	}
	shim->touched = true;
}

static int ask_exec(struct shim *shim, struct conn *conn, const struct frame *frame)
{
	static const char *const KNOWN[] = { "name", "terminal", "stdin", "attach", NULL };
	struct request request;
	const char *wrong = read_request(*frame, true, &request), *name = NULL;
	struct process *process = free_process(shim);
	if (!wrong && unknown_option(request.options, KNOWN)) wrong = "an option is unknown";
	if (!wrong && (!(name = option(request.options, "name")) || !is_name(name))) wrong = "an exec needs a name of letters, digits, - and _";
	if (!wrong && shim->processes[0].exited) wrong = "the container has ended";
	if (wrong) answer(conn, frame->id, -EBADMSG, wrong);
	else if (!process) answer(conn, frame->id, -EAGAIN, "too many processes run in this container");
	else {
		*process = (struct process){ .used = true, .number = ++shim->next_number, .terminal = yes(option(request.options, "terminal")), .in = -1, .out = -1, .err = -1 };
		text(process->name, sizeof process->name, "%s", name);
		run_exec(shim, conn, frame, &request, process);
	}
	request_done(&request);
	return 0;
}

/* -- the others */

static int ask_signal(struct shim *shim, struct conn *conn, const struct frame *frame)
{
	struct process *process = find_process(shim, word(frame, 0));
	/* It is our child and not reaped yet, so its pid cannot be another's. */
	int rc = !process || process->exited ? -ESRCH : negative(kill(process->pid, (int)word(frame, 1)));
	return answer(conn, frame->id, rc, NULL);
}

static int ask_resize(struct shim *shim, struct conn *conn, const struct frame *frame)
{
	struct process *process = find_process(shim, word(frame, 0));
	struct winsize size = { .ws_row = (unsigned short)word(frame, 1), .ws_col = (unsigned short)word(frame, 2) };
	int rc = !process ? -ESRCH : !process->terminal || process->out < 0 ? -ENOTTY : negative(ioctl(process->out, TIOCSWINSZ, &size));
	return answer(conn, frame->id, rc, NULL);
}

static int ask_attach(struct shim *shim, struct conn *conn, const struct frame *frame)
{
	struct process *process = find_process(shim, word(frame, 0));
	if (!process) return answer(conn, frame->id, -ESRCH, "there is no such process");
	conn->attached = true;
	conn->process = process->number;
	conn->streams = word(frame, 1);
	return answer(conn, frame->id, 0, NULL);
}

static int send_exit(struct shim *shim, struct conn *conn, const struct process *process)
{
	unsigned char payload[20];
	uint32_t words[3] = { process->number, (uint32_t)process->status, shim->ooms > 0 };
	memcpy(payload, words, sizeof words);
	memcpy(payload + 12, &process->exited_ns, 8);
	return conn_send(conn, TELL_EXIT, 0, payload, sizeof payload);
}

void tell_exit(struct shim *shim, struct process *process)
{
	for (size_t i = 0; i < MOST_CLIENTS; i++) {
		struct conn *c = &shim->clients[i];
		/* Who watches asks for the container's end; an exec's is news for those who see its output. */
		bool concerned = (c->watches && process->number == 0) || (c->attached && c->process == process->number);
		if (c->fd >= 0 && concerned && send_exit(shim, c, process) < 0) conn_close(c);
	}
}

/* False: the pipe is full and the frame must wait. A program that has closed its stdin gets nothing, as in a shell's pipe. */
static bool give_stdin(struct shim *shim, struct conn *conn, const struct frame *frame, uint32_t *given)
{
	struct process *process = conn->attached && (conn->streams & STREAM_IN) ? find_process(shim, conn->process) : NULL;
	while (process && process->in >= 0 && *given < frame->size) {
		ssize_t n = write(process->in, frame->payload + *given, frame->size - *given);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0 && errno == EAGAIN) return false;
		if (n < 0) break;
		*given += (uint32_t)n;
	}
	return true;
}

/* The frame keeps its head and loses what was written: the next call begins where this one stopped. */
static void shorten(struct conn *conn, const struct frame *frame, uint32_t given)
{
	uint32_t left = frame->size - given;
	memmove(conn->in + FRAME_HEAD, conn->in + FRAME_HEAD + given, conn->in_got - FRAME_HEAD - given);
	conn->in_got -= given;
	memcpy(conn->in, &left, 4);
}

static void end_stdin(struct shim *shim, struct conn *conn)
{
	enum { CTRL_D = 4 };
	struct process *process = conn->attached && (conn->streams & STREAM_IN) ? find_process(shim, conn->process) : NULL;
	char eof = CTRL_D;
	if (!process || process->in < 0) return;
	/* A terminal cannot be closed on one side: its line discipline knows the end of input as a character. */
	if (process->terminal) (void)!write(process->in, &eof, 1);
	else close(process->in), process->in = -1;
}

bool stdin_waits(const struct shim *shim, const struct conn *conn)
{
	struct frame frame;
	(void)shim;
	return conn_frame(conn, &frame) && frame.kind == ASK_STDIN;
}

/* Nobody is heard before the container is made: the answer, with its pid, says that it is. A daemon of a later build may have operations
 * that we lack: it learns here which ones we can be asked for. */
static int ask_watch(struct shim *shim, struct conn *conn, const struct frame *frame)
{
	unsigned char known[KNOWN_SIZE];
	struct record record = { .kind = RECORD_DONE, .pid = (uint32_t)shim->processes[0].pid, .detail = known, .detail_size = ops_known(known) };
	conn->watches = true;
	int rc = conn_record(conn, frame->id, &record);
	for (size_t i = 0; rc == 0 && i < MOST_PROCESSES; i++)
		if (shim->processes[i].used && shim->processes[i].exited && shim->over) rc = send_exit(shim, conn, &shim->processes[i]);
	return rc;
}

static int ask_packed(struct shim *shim, struct conn *conn, const struct frame *frame)
{
	char path[PATH_SIZE] = "";
	uint64_t inode = 0;
	if (frame->size <= sizeof inode || frame->size - sizeof inode >= sizeof path) return answer(conn, frame->id, -EBADMSG, "an inode and a path are wanted");
	memcpy(&inode, frame->payload, sizeof inode);
	memcpy(path, frame->payload + sizeof inode, frame->size - sizeof inode);
	return answer(conn, frame->id, log_packed(&shim->log, inode, path), NULL);
}

static int ask_end(struct shim *shim, struct conn *conn, const struct frame *frame)
{
	shim->ending = true;
	for (size_t i = 0; i < MOST_PROCESSES; i++) {
		struct process *process = &shim->processes[i];
		if (process->used && !process->exited) kill(process->pid, SIGKILL);
	}
	return answer(conn, frame->id, 0, NULL);
}

void serve_client(struct shim *shim, struct conn *conn)
{
	struct frame frame;
	int rc = 0;
	while (rc == 0 && conn->fd >= 0 && conn_frame(conn, &frame)) {
		uint32_t given = 0;
		switch (frame.kind) {
		case ASK_START: rc = ask_start(shim, conn, &frame); break;
		case ASK_SIGNAL: rc = ask_signal(shim, conn, &frame); break;
		case ASK_RESIZE: rc = ask_resize(shim, conn, &frame); break;
		case ASK_EXEC: rc = ask_exec(shim, conn, &frame); break;
		case ASK_ATTACH: rc = ask_attach(shim, conn, &frame); break;
		case ASK_WATCH: rc = ask_watch(shim, conn, &frame); break;
		case ASK_REOPEN: rc = answer(conn, frame.id, log_reopen(&shim->log), NULL); break;
		case ASK_PACKED: rc = ask_packed(shim, conn, &frame); break;
		case ASK_END: rc = ask_end(shim, conn, &frame); break;
		case ASK_STDIN_END: end_stdin(shim, conn); break;
		case ASK_STDIN:
			if (!give_stdin(shim, conn, &frame, &given)) {
				shorten(conn, &frame, given);
				return;
			}
			break;
		default: rc = -EBADMSG;
		}
		if (rc == 0 && conn->fd >= 0) conn_next(conn, &frame);
	}
	if (rc < 0 && conn->fd >= 0) conn_close(conn);
}
