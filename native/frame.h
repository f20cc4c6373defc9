/* Frames over a unix stream socket, for spawner and shim alike:
 *
 *   payload bytes u32 · kind u8 · 0 u8 u16 · id u32 · payload            little endian; an answer has its request's id
 */
#pragma once
#include "run.h"

enum kind {
	/* to the spawner */
	ASK_RUN = 1,	/* plan                                    → RESULT */
	ASK_SHIM = 2,	/* options strs, plan                      → RESULT, once the container is created */
	ASK_QUIT = 3,	/* nothing; shims live on */
	ASK_WHO = 4,	/* nothing                                 → RESULT with its pid */
	/* to a shim */
	ASK_START = 10,	  /*                                       → RESULT */
	ASK_SIGNAL = 11,  /* process u32, signal u32                → RESULT */
	ASK_RESIZE = 12,  /* process u32, rows u32, cols u32        → RESULT */
	ASK_EXEC = 13,	  /* options strs, plan                     → RESULT, status is the process's number */
	ASK_ATTACH = 14,  /* process u32, streams u32 (bits)        → RESULT, then OUTPUT … */
	ASK_STDIN = 15,	  /* bytes, for the attached process; no answer: a full pipe stops reading from this socket */
	ASK_STDIN_END = 16,
	ASK_WATCH = 17,	  /*                                       → RESULT with the container's pid; detail: the operations it knows, a bit
			     each by code. Then EXIT and OOM, also what has been */
	ASK_REOPEN = 18,  /*                                       → RESULT: the log is opened again by its path */
	ASK_END = 19,	  /* kills all, ends the shim              → RESULT */
	ASK_PACKED = 20,  /* inode u64, path                       → RESULT: the file there takes the place of the turned log of that inode */
	/* answers */
	TELL_RESULT = 64, /* result records */
	TELL_STDOUT = 65,
	TELL_STDERR = 66,
	TELL_EXIT = 67,	  /* process u32, status u32, oom u32, time u64 (ns) */
	TELL_OOM = 68,
	TELL_LISTENS = 69, /* to ASK_SHIM, before its result: DIR/shim.sock takes connections, which wait until the container is there */
};
enum { STREAM_IN = 1, STREAM_OUT = 2, STREAM_ERR = 4 };

#define FRAME_HEAD 12
#define MAX_FRAME (MAX_PLAN_BYTES + (64u << 10))
/* What may wait for a client that does not read; beyond it the client is cut off. Output stops being read long before. */
#define MAX_PENDING (1u << 20)

struct conn {
	int fd; /* -1: free */
	unsigned char *in; /* a small one is kept for the next frame, until conn_shed */
	uint32_t in_room, in_got;
	unsigned char *out;
	uint32_t out_room, out_got, out_at;
	bool watches, attached;
	uint32_t process, streams;
};
struct frame { uint32_t size, id; uint8_t kind; const unsigned char *payload; };

void conn_open(struct conn *conn, int fd);
void conn_close(struct conn *conn);
/* Reads what is there. 0, or a negative errno when the other side is gone or breaks the rules: close it. */
int conn_read(struct conn *conn);
/* The next whole frame in the buffer; it stays valid until conn_next. */
bool conn_frame(const struct conn *conn, struct frame *out);
void conn_next(struct conn *conn, const struct frame *frame);
/* Gives back what is kept for the next frame. */
void conn_shed(struct conn *conn);
int conn_send(struct conn *conn, uint8_t kind, uint32_t id, const void *payload, size_t size);
int conn_record(struct conn *conn, uint32_t id, const struct record *record);
int conn_flush(struct conn *conn);
static inline bool conn_pending(const struct conn *conn) { return conn->out_at < conn->out_got; }

/* A socket that listens, for our own uid only; `dir` and `name` because sun_path is short. */
int listen_unix(int dir, const char *name);
/* A new client of our own uid, or -1. */
int accept_own(int listener);

/* Splits "options strs, plan" and checks both. NULL or what is wrong. `plan` points into the request, which is not to be copied. */
struct request { struct arg options; struct plan plan; uint32_t bad_step; uint32_t *offsets, offsets_room; uint32_t few_offsets[256]; };
const char *read_request(struct frame frame, bool with_options, struct request *out);
void request_done(struct request *request);
/* The value of "key=value" among the options; NULL. */
const char *option(struct arg options, const char *key);
const char *unknown_option(struct arg options, const char *const known[]);
