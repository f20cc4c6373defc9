/* The container's log file, as a kubelet and log collectors read it. */
#pragma once
#include "sys.h"

enum log_format { LOG_NONE, LOG_CRI, LOG_JSON };
/* The longest piece of a line in one entry: what containerd and dockerd use. */
#define LOG_PIECE 16384

struct log {
	enum log_format format;
	const char *path;
	const char *attrs; /* json-file: a JSON object of labels, or NULL */
	uint64_t max_size; /* 0: no rotation */
	uint64_t max_files;
	int fd;
	uint64_t size;
	uint64_t lost; /* entries that could not be written (disk full) */
};

int log_open(struct log *log);
/* A line, or a piece of a longer one: `whole` when a newline ended it (it is not part of the bytes). */
void log_entry(struct log *log, bool is_stderr, const unsigned char *bytes, size_t size, bool whole);
/* Entries are gathered; this hands them to the kernel. */
void log_flush(struct log *log);
void log_sync(struct log *log);
