/* Streams: from the program to the log and to clients. */
#include "process.h"
#include <sys/mman.h>

/* In bss and page-aligned: an idle shim gives all of it back (shed_memory). The container's bytes are read straight behind the
 * unfinished line they continue, so that nothing is copied before it is written. */
static unsigned char lines[2][LOG_PIECE] __attribute__((aligned(4096)));
static size_t line_used[2];
static unsigned char scratch[LOG_PIECE] __attribute__((aligned(4096)));
extern unsigned char log_buffer[] __attribute__((aligned(4096)));
extern const size_t log_buffer_size;

static int make_pipe(int *ours, int *theirs, int our_end)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0) return -errno;
	*ours = ends[our_end];
	*theirs = ends[!our_end];
	return negative(fcntl(*ours, F_SETFL, O_NONBLOCK));
}

/* Real pipes, never socketpairs: a program that opens /dev/stdout would get ENXIO from a socket. */
int make_stdio(struct process *process, bool with_stdin, int theirs[3])
{
	int rc = 0;
	theirs[0] = theirs[1] = theirs[2] = process->in = process->out = process->err = -1;
	if (process->terminal) return 0; /* the plan's console step makes it */
	if (with_stdin) rc = make_pipe(&process->in, &theirs[0], 1);
	else rc = value_of(theirs[0] = open("/dev/null", O_RDONLY | O_CLOEXEC));
	if (rc >= 0) rc = make_pipe(&process->out, &theirs[1], 0);
	if (rc >= 0) rc = make_pipe(&process->err, &theirs[2], 0);
	return rc < 0 ? rc : 0;
}

void take_terminal(struct process *process, int master)
{
	if (master < 0) return;
	fcntl(master, F_SETFL, O_NONBLOCK);
	process->out = master;
	process->in = fcntl(master, F_DUPFD_CLOEXEC, 3);
}

void close_stdio(struct process *process)
{
	int *ends[] = { &process->in, &process->out, &process->err };
	for (size_t i = 0; i < LENGTH(ends); i++)
		if (*ends[i] >= 0) close(*ends[i]), *ends[i] = -1;
}

bool is_held_back(const struct shim *shim, const struct process *process)
{
	for (size_t i = 0; i < MOST_CLIENTS; i++) {
		const struct conn *c = &shim->clients[i];
		if (c->fd >= 0 && c->attached && c->process == process->number && conn_pending(c)) return true;
	}
	return false;
}

static void send_output(struct shim *shim, const struct process *process, int stream, const unsigned char *bytes, size_t size)
{
	for (size_t i = 0; i < MOST_CLIENTS; i++) {
		struct conn *c = &shim->clients[i];
		if (c->fd < 0 || !c->attached || c->process != process->number || !(c->streams & (uint32_t)stream)) continue;
		if (conn_send(c, stream == STREAM_ERR ? TELL_STDERR : TELL_STDOUT, 0, bytes, size) < 0) conn_close(c);
	}
}

/* Cuts what has come into lines; what is left is the beginning of the next. */
static void log_lines(struct shim *shim, int which, size_t size)
{
	unsigned char *p = lines[which], *end = p + size;
	/* Only what is new can hold a newline; the unfinished line before it has none. */
	for (unsigned char *from = p + line_used[which]; p < end;) {
		unsigned char *newline = memchr(from, '\n', (size_t)(end - from));
		if (!newline) break;
		log_entry(&shim->log, which, p, (size_t)(newline - p), true);
		p = from = newline + 1;
	}
	size_t left = (size_t)(end - p);
	if (left == LOG_PIECE) {
		log_entry(&shim->log, which, p, left, false);
		left = 0;
	} else if (left && p != lines[which]) {
		memmove(lines[which], p, left);
	}
	line_used[which] = left;
	log_sync(&shim->log);
}

static void end_stream(struct shim *shim, struct process *process, int stream)
{
	int which = stream == STREAM_ERR, *fd = which ? &process->err : &process->out;
	if (process->number == 0 && line_used[which]) {
		log_entry(&shim->log, which, lines[which], line_used[which], false);
		line_used[which] = 0;
		log_sync(&shim->log);
	}
	if (*fd >= 0) close(*fd);
	*fd = -1;
}

int pump(struct shim *shim, struct process *process, int stream)
{
	int which = stream == STREAM_ERR, fd = which ? process->err : process->out;
	bool logged = process->number == 0 && shim->log.format != LOG_NONE;
	unsigned char *into = logged ? lines[which] + line_used[which] : scratch;
	if (fd < 0) return -EPIPE;
	ssize_t n = read(fd, into, logged ? LOG_PIECE - line_used[which] : sizeof scratch);
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
	if (n <= 0) { /* EIO: the last holder of the terminal has closed it */
		/* A terminal without a process may get one again (a child that opens /dev/tty later), as long as the container lives. */
		if (process->terminal && !process->exited && n < 0) return -EIO;
		end_stream(shim, process, stream);
		return -EPIPE;
	}
	shim->touched = true;
	send_output(shim, process, stream, into, (size_t)n);
	if (logged) log_lines(shim, which, line_used[which] + (size_t)n);
	return 1;
}

bool drain(struct shim *shim, struct process *process)
{
	static const int STREAMS[] = { STREAM_OUT, STREAM_ERR };
	enum { MOST_READS = 512 }; /* a pipe holds at most 1 MiB; a child left behind may write for ever */
	for (size_t i = 0; i < LENGTH(STREAMS); i++) {
		for (int reads = 0; reads < MOST_READS; reads++) {
			if (is_held_back(shim, process)) return false;
			if (pump(shim, process, STREAMS[i]) <= 0) break;
		}
		end_stream(shim, process, STREAMS[i]);
	}
	return true;
}

/* Called when nothing has happened for a while: the pages of buffers, and of the stack that running a plan has used. */
void shed_memory(struct shim *shim)
{
	enum { PAGE = 4096, STACK = 512 << 10 };
	char here;
	uintptr_t top = ((uintptr_t)&here & ~(uintptr_t)(PAGE - 1)) - 2 * PAGE;
	for (int which = 0; which < 2; which++)
		if (!line_used[which]) madvise(lines[which], sizeof lines[which], MADV_DONTNEED);
	madvise(scratch, sizeof scratch, MADV_DONTNEED);
	madvise(log_buffer, log_buffer_size, MADV_DONTNEED);
	/* Below the mapping's end madvise says ENOMEM and does the rest all the same, so it is asked page by page from the top. */
	for (uintptr_t page = top; page > top - STACK; page -= PAGE)
		if (madvise((void *)page, PAGE, MADV_DONTNEED) < 0) break;
	shim->touched = false;
}
