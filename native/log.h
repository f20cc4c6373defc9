/* Log files, written by the shim itself so that no daemon has to be there: what kubelets and log collectors read.
 *
 *   cri    2026-11-21T04:05:06.123456789Z stdout F a whole line
 *   cri    2026-11-21T04:05:06.123456789Z stdout P a line longer than LOG_LINE, its end follows
 *   json   {"log":"a whole line\n","stream":"stdout","time":"2026-11-21T04:05:06.123456789Z"}
 *
 * A line stays in memory until it ends or is LOG_LINE long; a cut never falls inside a UTF-8 character. One write(2) a chunk:
 * a line is in the file whole, or not at all. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_LINE (16u << 10)
#define LOG_ATTRS 4096u
#define LOG_CHUNK (64u << 10) /* at most this much in one log_put */

enum log_format { LOG_NONE, LOG_CRI, LOG_JSON };
enum { LOG_STDOUT, LOG_STDERR, LOG_STREAMS };

struct log {
	const char *path;
	enum log_format format;
	uint64_t max_bytes; /* a file grows no further; 0: for ever */
	const char *attrs;  /* json: an object of labels put into each line, at most LOG_ATTRS long; or NULL */
	uint32_t max_files; /* this one and its older ones, path.1 the youngest, or path.1.gz once somebody has packed it */

	int fd;
	uint64_t size;
	struct { unsigned char *text; uint32_t size; } rest[LOG_STREAMS]; /* lines that have not ended */
	unsigned char *out;
	size_t out_size;
	bool lost;	   /* something could not be written; see log_put */
};

/* All of these give 0 or a negative errno. */
int log_open(struct log *log);
/* Takes what a stream gave. A full disk costs lines, never the container: the error is returned, the rest goes on. */
int log_put(struct log *log, int stream, const void *data, size_t size);
/* The stream has ended: its last line has no newline. */
int log_end(struct log *log, int stream);
/* Somebody has moved the file away (a kubelet rotates): go on in a new one of that name. */
int log_reopen(struct log *log);
/* `packed` takes the place of the turned file of that inode, wherever that is by now; -ENOENT when it has fallen away. Who turns files puts
 * it there, since a name may be another file's a moment later. */
int log_packed(const struct log *log, uint64_t inode, const char *packed);
/* Gives back memory while nothing is logged; it comes again by itself. */
void log_shed(struct log *log);
void log_close(struct log *log);
