/* A plan being carried out. The actors and their order: src/kernel/plan/plan.ts; the messages: run.c. */
#pragma once
#include "wire.h"

#define DETAIL_SIZE 1024

enum { RECORD_DONE = 1, RECORD_FAILED, RECORD_EXITED, RECORD_UNDO_FAILED };
struct record { uint32_t kind, pid, step, op, error, status; const void *detail; uint32_t detail_size; };
#define RECORD_HEAD 32
void record_head(const struct record *record, unsigned char out[RECORD_HEAD]);
/* Writes one to a file descriptor as src/kernel/plan/result.ts reads it. */
int record_write(int fd, const struct record *record);

struct run {
	struct plan plan;
	enum where me;
	uint32_t at; /* the step that is next, or has failed */
	int slots[SLOTS];

	/* The container's process and what leads to it. Only the host knows these; pid is 0 until there is one. */
	pid_t pid, middle_pid;
	int pidfd, middle_pidfd;
	bool sibling;	 /* init is our parent's child, as runc's is its caller's: it cannot be waited for here */
	int channel[3];	 /* the host's ends, by actor; an actor's own end is channel[HOST] */
	int init_end;	 /* until it is cloned */
	bool execed;
	int status;	 /* of init, once reaped */
	bool reaped;

	/* What init's fds 0, 1 and 2 become; -1 leaves what it inherits. */
	int stdio[3];
	/* Where a console goes whose socket is '': the shim takes it from here. -1 until it has come. */
	int terminal;
	bool takes_terminal;
	/* Closed in every child: the result pipe, listening sockets. */
	int private_fds[12];
	uint32_t private_count;

	bool answered; /* `ready` is done */
	bool pause;    /* run_plan returns at `ready` */
	bool forwards; /* signals are handed on to init by this very process (front.c) */
	bool hurry;    /* a step that would have to wait says -EAGAIN, and run_plan returns WAITS at it */
	bool ahead;    /* init acts, and the host has not told it to yet */
	bool alone;    /* the process ends with its plan: after `ready` it need not wait for init's part */

	/* Between steps of one actor. */
	int parent; /* the directory of the last device or link made, with its path below its root: the next most often goes there too */
	int parent_root;
	char parent_path[64];
	bool changed_directory;
	char program[PATH_SIZE];

	int error;
	char detail[DETAIL_SIZE];
	unsigned char *data; /* netlink answers, DATA_SIZE long when there */
	uint32_t data_size;

	/* Called once init has been let go on: what has to be done about it, while it is busy. An error ends the plan. */
	int (*meanwhile)(struct run *);

	void (*report)(struct run *, const struct record *);
	void *owner;
};
#define DATA_SIZE (64u << 10)

/* Zeroes, no fds, no process. */
void run_init(struct run *run);
enum outcome { RAN, PAUSED, FAILED, WAITS };
/* From run->at on. FAILED: everything is taken back and reported. */
enum outcome run_plan(struct run *run);
/* As run_plan, for callers that answer with one record: done or failed are reported too. */
enum outcome run_and_report(struct run *run);
/* Runs the undo of all steps before `run->at`, last first. */
void run_undo(struct run *run);
void run_close(struct run *run);
void run_private(struct run *run, int fd);

/* -- for operations. Each gives 0 or a negative errno; `fail` adds words to the errno. */
int fail(struct run *run, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));
int slot_fd(struct run *run, uint64_t slot); /* the fd in a slot, -EBADF */
int set_slot(struct run *run, uint64_t slot, int fd);
/* Init or middle to host: a console's master, a seccomp listener. */
int ask_host(struct run *run, uint32_t kind, uint32_t value, int fd);
/* Reaps or kills what the host has made. */
void end_children(struct run *run);
int wait_init(struct run *run, int timeout_ms, int *status);
/* Our stdio and run->terminal, until init ends; it is not reaped yet then. */
void relay_terminal(struct run *run);
/* Before the program runs: what we write to is a terminal of its own, or a file, and adds a carriage return if it wants one. */
void relay_prepare(int master);
int do_op(struct run *run, struct op op);
/* A hook's state with the pid put in at each offset; decimal, as JSON has it. Taken memory, *size + 1 long. */
char *fill_pid(struct arg bytes, struct arg at, pid_t pid, size_t *size);
/* Runs a program to its end. Its stdin, stdout and stderr; what has -1 is kept, and its end is the detail of a failure. 0, or a negative
 * errno; -ECHILD with detail when it did not succeed. */
struct program { const char *path; const char **argv, **env; int stdio[3], timeout_ms; bool goes_with_us; /* SIGKILL when we end */ };
int run_to_end(struct run *run, const struct program *program);
/* Before we change any: what our caller ignores, the programs we run shall not (default_signals in ops_process.c). */
void note_ignored_signals(void);
void default_signals(void);

#define OP_DECLARE(name, code, signature) int op_##name(struct run *, const union args *);
FOR_EACH_OP(OP_DECLARE)
#undef OP_DECLARE

enum { MESSAGE_GO = 1, MESSAGE_DONE, MESSAGE_FAIL, MESSAGE_PID, MESSAGE_EXEC, MESSAGE_CONSOLE, MESSAGE_LISTENER };
/* Forks a child of the host for `clone` and `fork`; see run.c. */
int become(struct run *run, enum where actor) __attribute__((noreturn));
