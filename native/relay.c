/* A foreground container with a terminal: our stdio on one side, the master on the other, until init ends.
 *
 *   caller's terminal, raw          this process          container
 *     ── keys ────────────────────▶  master ────────────▶  slave
 *     ◀──────────────────── bytes ── master ◀────────────
 *     ── SIGWINCH ────────────────▶  TIOCSWINSZ
 */
#include "run.h"
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>

enum { STDIN, MASTER, INIT_ENDED, RESIZED, POLLED };
#define CHUNK 4096

struct relay {
	int master, outside; /* outside: the caller's terminal, or -1 */
	char input[CHUNK];
	size_t from, to; /* what of `input` the master has not taken yet */
	bool input_ended, output_ended;
};

/* The size follows whichever of the caller's descriptors is a terminal; without one, the controlling terminal. */
static int find_terminal(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (isatty(fd)) return fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
}

static void copy_size(struct relay *r)
{
	struct winsize size;
	if (r->outside >= 0 && ioctl(r->outside, TIOCGWINSZ, &size) == 0 && size.ws_row && size.ws_col) ioctl(r->master, TIOCSWINSZ, &size);
}

static void take_input(struct relay *r)
{
	ssize_t n = read(0, r->input, sizeof r->input);
	if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
	if (n <= 0) r->input_ended = true;
	r->from = 0;
	r->to = n > 0 ? (size_t)n : 0;
}

static void give_input(struct relay *r)
{
	ssize_t n = write(r->master, r->input + r->from, r->to - r->from);
	if (n > 0) r->from += (size_t)n;
	else if (errno != EAGAIN && errno != EINTR) r->input_ended = true, r->from = r->to;
}

/* False when there is nothing more for now. EIO is the end: no process has the slave open any more. */
static bool take_output(struct relay *r)
{
	char chunk[CHUNK];
	ssize_t n = read(r->master, chunk, sizeof chunk);
	if (n < 0 && errno == EINTR) return true;
	if (n < 0 && errno == EAGAIN) return false;
	if (n <= 0 || write_all(1, chunk, (size_t)n) < 0) {
		r->output_ended = true;
		return false;
	}
	return true;
}

static void pump(struct relay *r, int pidfd, int resized)
{
	struct signalfd_siginfo info;
	for (bool alive = true; alive;) {
		bool pending = r->from < r->to;
		struct pollfd polled[POLLED] = {
			[STDIN] = { .fd = pending || r->input_ended ? -1 : 0, .events = POLLIN },
			[MASTER] = { .fd = r->output_ended ? -1 : r->master, .events = (short)(POLLIN | (pending ? POLLOUT : 0)) },
			[INIT_ENDED] = { .fd = pidfd, .events = POLLIN },
			[RESIZED] = { .fd = resized, .events = POLLIN },
		};
		if (poll(polled, POLLED, -1) < 0) continue;
		if (polled[STDIN].revents) take_input(r);
		if (polled[MASTER].revents & POLLOUT) give_input(r);
		if (polled[MASTER].revents & (POLLIN | POLLHUP | POLLERR)) take_output(r);
		if (polled[RESIZED].revents && read(resized, &info, sizeof info) > 0) copy_size(r);
		alive = !polled[INIT_ENDED].revents;
	}
	/* What init wrote last lies in the terminal's buffer. A process that outlives it may write for ever: not waited for. */
	while (!r->output_ended && take_output(r)) continue;
}

void relay_prepare(int master)
{
	struct termios attributes;
	if (tcgetattr(master, &attributes) < 0) return;
	attributes.c_oflag &= (tcflag_t)~ONLCR;
	tcsetattr(master, TCSANOW, &attributes);
}

void relay_terminal(struct run *run)
{
	static struct relay r;
	struct termios before, raw;
	sigset_t winch;
	r.master = run->terminal;
	r.outside = find_terminal();
	fcntl(r.master, F_SETFL, fcntl(r.master, F_GETFL) | O_NONBLOCK);
	copy_size(&r);
	sigemptyset(&winch);
	sigaddset(&winch, SIGWINCH);
	sigprocmask(SIG_BLOCK, &winch, NULL);
	int resized = signalfd(-1, &winch, SFD_CLOEXEC | SFD_NONBLOCK);
	/* Keys go through as they are, Ctrl-C too; only when it is the keyboard we read from. */
	bool keyboard = isatty(0) && tcgetattr(0, &before) == 0;
	if (keyboard) {
		raw = before;
		cfmakeraw(&raw);
		tcsetattr(0, TCSANOW, &raw);
	}
	pump(&r, run->pidfd, resized);
	if (keyboard) tcsetattr(0, TCSANOW, &before);
	if (resized >= 0) close(resized);
	if (r.outside >= 0) close(r.outside);
	close(r.master);
	run->terminal = -1;
}
