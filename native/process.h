/* What a shim holds. The parts: shim.c the loop, requests.c what clients ask, output.c streams and log, state.c files and OOM. */
#pragma once
#include "shim.h"
#include "log.h"

enum { MOST_PROCESSES = 64, MOST_CLIENTS = 32, NAME_SIZE = 80 };

/* Number 0 is the container, the others are execs. */
struct process {
	bool used, terminal, exited, rests; /* rests: its output is not looked at in the next turn */
	uint32_t number;
	pid_t pid;
	int status;
	uint64_t exited_ns;
	int in, out, err;     /* our ends; -1 when closed. With a terminal, in and out are its master. */
	char name[NAME_SIZE]; /* of an exec, for its file */
};

struct shim {
	int dir, listener, signals;
	struct run run; /* the container's plan, until it has started */
	bool started, ending, over;
	struct request *request; /* what asked for it; its payload lies in plan_memory */
	struct request_memory plan_memory;
	uint32_t next_number;
	struct process processes[MOST_PROCESSES];
	struct conn clients[MOST_CLIENTS];
	struct log log;
	char paths[3][PATH_SIZE]; /* log, attrs, oom: copied, since the request's memory goes */
	int mounts;		  /* the container's mount namespace: the kernel takes it apart when we let go, not in the end of its last process */
	int oom_fd;
	uint64_t ooms;
	bool touched; /* buffers hold pages that an idle shim should not */
	bool roomy;   /* the container's pipe has grown */
};

/* An option that is said by "1". */
static inline bool yes(const char *value) { return value && !strcmp(value, "1"); }

/* output.c */
int make_stdio(struct process *process, bool with_stdin, int theirs[3]);
void take_terminal(struct process *process, int master);
void close_stdio(struct process *process);
/* Moves what one read gives to log and clients. 1, 0 when there is nothing now, negative at the end of the stream. */
int pump(struct shim *shim, struct process *process, int stream);
/* Everything the pipes still hold, after the process has ended. False: a client must read first. */
bool drain(struct shim *shim, struct process *process);
/* Some client of this process has not read what it was sent: read no more until it has. */
bool is_held_back(const struct shim *shim, const struct process *process);
void shed_memory(struct shim *shim);

/* requests.c */
void serve_client(struct shim *shim, struct conn *conn);
struct process *find_process(struct shim *shim, uint32_t number);
/* A frame of stdin waits because the program does not read: the client's socket rests meanwhile. */
bool stdin_waits(const struct shim *shim, const struct conn *conn);
void tell_exit(struct shim *shim, struct process *process);
/* The plan has run: its memory and fds go. */
void forget_plan(struct shim *shim);

/* state.c */
int write_state(int dir, const char *name, const char *content, size_t size, bool durable);
int write_process_file(int dir, const char *name, pid_t pid);
void write_exit(struct shim *shim, const struct process *process);
int watch_oom(struct shim *shim);
/* True when the kernel has killed for memory since the last call. */
bool hear_oom(struct shim *shim);
uint64_t now_ns(void);
