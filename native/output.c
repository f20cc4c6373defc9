/* Streams: from the program to the log and to clients. */
#include "process.h"
#include <sys/mman.h>

/* In bss and page-aligned: an idle shim gives its pages back (shed_memory). */
static unsigned char scratch[LOG_CHUNK] __attribute__((aligned(4096)));

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

static bool is_attached(const struct shim *shim, const struct process *process)
{
	for (size_t i = 0; i < MOST_CLIENTS; i++) {
		const struct conn *c = &shim->clients[i];
		if (c->fd >= 0 && c->attached && c->process == process->number) return true;
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

static void end_stream(struct shim *shim, struct process *process, int stream)
{
	int which = stream == STREAM_ERR ? LOG_STDERR : LOG_STDOUT, *fd = which == LOG_STDERR ? &process->err : &process->out;
	if (*fd < 0) return;
	if (process->number == 0) log_end(&shim->log, which);
	close(*fd);
	*fd = -1;
}

/* What a pipe holds at first, and what it holds while a flood lasts: more than a program writes until it is looked at again, so that it
 * never waits for us. An unprivileged user may ask for as much. */
enum { PIPE_SIZE = 64 << 10, FLOOD_SIZE = 1 << 20 };

/* What flows into the log alone is read once a millisecond and not at each of the program's writes: a wake-up costs the program more
 * than its write, and few large writes cost the file less than many. Where a client listens nothing rests: it may answer what it reads. */
static void rest(struct shim *shim, struct process *process, int fd, size_t size)
{
	enum { FLOW = 4096 };
	if (process->number != 0 || process->terminal || is_attached(shim, process)) return;
	process->rests |= size >= FLOW && size < sizeof scratch;
	if (size < sizeof scratch || shim->roomy) return;
	/* As much as a pipe holds at first: the program has waited for us. Not from the start, and not for ever, since root's pipes are
	 * counted together (pipe-user-pages-soft), and beyond that sum programs in containers get small ones. */
	shim->roomy = true;
	(void)fcntl(fd, F_SETPIPE_SZ, FLOOD_SIZE);
}

/* The flood is over: nothing has come for a while. A pipe that holds more by now stays as it is. */
static void narrow(struct shim *shim)
{
	const struct process *process = &shim->processes[0];
	if (!shim->roomy) return;
	shim->roomy = false;
	(void)fcntl(process->out, F_SETPIPE_SZ, PIPE_SIZE);
	(void)fcntl(process->err, F_SETPIPE_SZ, PIPE_SIZE);
}

int pump(struct shim *shim, struct process *process, int stream)
{
	int which = stream == STREAM_ERR ? LOG_STDERR : LOG_STDOUT, fd = which == LOG_STDERR ? process->err : process->out;
	if (fd < 0) return -EPIPE;
	ssize_t n = read(fd, scratch, sizeof scratch);
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
	if (n <= 0) { /* EIO: the last holder of the terminal has closed it */
		/* A terminal without a process may get one again (a child that opens /dev/tty later), as long as the container lives. */
		if (process->terminal && !process->exited && n < 0) return -EIO;
		end_stream(shim, process, stream);
		return -EPIPE;
	}
	shim->touched = true;
	rest(shim, process, fd, (size_t)n);
	send_output(shim, process, stream, scratch, (size_t)n);
	/* A full disk costs lines, never the container: the log remembers that it lost some. */
	if (process->number == 0) (void)log_put(&shim->log, which, scratch, (size_t)n);
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
	madvise(scratch, sizeof scratch, MADV_DONTNEED);
	log_shed(&shim->log);
	narrow(shim);
	for (size_t i = 0; i < MOST_CLIENTS; i++) conn_shed(&shim->clients[i]);
	/* Below the mapping's end madvise says ENOMEM and does the rest all the same, so it is asked page by page from the top. */
	for (uintptr_t page = top; page > top - STACK; page -= PAGE)
		if (madvise((void *)page, PAGE, MADV_DONTNEED) < 0) break;
	shim->touched = false;
}
