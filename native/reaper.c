/* The reaper of `docker run --init`: PID 1 of a container whose program was not written to be one. It starts the program, hands
 * it every signal it gets itself, reaps whatever is orphaned to it, and ends as the program ends.
 *
 *   estiba-init init -- PROGRAM [ARGUMENT…]
 */
#include "run.h"
#include "shim.h"
#include <signal.h>
#include <sys/wait.h>

enum { CANNOT_RUN = 126, NOT_FOUND = 127, BY_SIGNAL = 128 };

static int say(const char *program, int error)
{
	const char *why = error == ENOENT ? ": not found\n" : ": cannot be run\n";
	write_all(2, program, strlen(program));
	write_all(2, why, strlen(why));
	return error == ENOENT ? NOT_FOUND : CANNOT_RUN;
}

/* In the program's own process group, which gets the terminal if there is one: as a shell does it, so that ^C reaches the program
 * and not us. */
static int run_program(char **argv, const sigset_t *mask)
{
	setpgid(0, 0);
	sigset_t tty;
	sigemptyset(&tty);
	sigaddset(&tty, SIGTTOU); /* a background group that takes the terminal is stopped by it */
	sigprocmask(SIG_BLOCK, &tty, NULL);
	tcsetpgrp(0, getpid());
	sigprocmask(SIG_SETMASK, mask, NULL);
	execvp(argv[0], argv);
	return say(argv[0], errno);
}

/* Reaps all that have ended; whether the program is among them. */
static bool reap(pid_t program, int *code)
{
	bool ended = false;
	int status;
	for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
		if (pid != program) continue;
		ended = true;
		*code = WIFEXITED(status) ? WEXITSTATUS(status) : BY_SIGNAL + WTERMSIG(status);
	}
	return ended;
}

int reaper_main(char **argv)
{
	sigset_t all, mask;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &mask);
	pid_t program = fork();
	if (program < 0) return say(argv[0], errno);
	if (program == 0) _exit(run_program(argv, &mask));
	for (int code = 0;;) {
		siginfo_t info;
		int signal = sigwaitinfo(&all, &info);
		if (signal < 0) continue; /* EINTR: stopped and continued */
		if (signal != SIGCHLD) kill(program, signal);
		else if (reap(program, &code)) return code;
	}
}
