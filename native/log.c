#include "log.h"
#include <stdio.h>
#include <time.h>

/* One buffer for a process that has one log. It lies in bss: its pages exist only once something is logged, and a shim that falls
 * idle gives them back (shim.c). */
unsigned char log_buffer[32768] __attribute__((aligned(4096)));
const size_t log_buffer_size = sizeof log_buffer;
static size_t log_used;

int log_open(struct log *log)
{
	struct stat st;
	if (log->format == LOG_NONE) return 0;
	int fd = open(log->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
	if (fd < 0) return -errno;
	if (log->fd >= 0) close(log->fd);
	log->fd = fd;
	log->size = fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
	return 0;
}

void log_flush(struct log *log)
{
	if (log_used && write_all(log->fd, log_buffer, log_used) < 0) log->lost++;
	log_used = 0;
}

void log_sync(struct log *log)
{
	if (log->format != LOG_NONE) log_flush(log);
}

static void put(struct log *log, const void *bytes, size_t size)
{
	const unsigned char *p = bytes;
	log->size += size;
	while (size) {
		size_t room = sizeof log_buffer - log_used, n = size < room ? size : room;
		memcpy(log_buffer + log_used, p, n);
		log_used += n;
		p += n;
		size -= n;
		if (log_used == sizeof log_buffer) log_flush(log);
	}
}

static void put_text(struct log *log, const char *s) { put(log, s, strlen(s)); }

/* path → path.1 → … → path.(max_files - 1); with one file it begins anew. */
static void rotate(struct log *log)
{
	char from[PATH_SIZE + 24], to[PATH_SIZE + 24];
	log_flush(log);
	for (uint64_t n = log->max_files; n-- > 1;) {
		if (n > 1) text(from, sizeof from, "%s.%lu", log->path, (unsigned long)n - 1);
		else text(from, sizeof from, "%s", log->path);
		text(to, sizeof to, "%s.%lu", log->path, (unsigned long)n);
		rename(from, to); /* ENOENT: fewer files so far */
	}
	if (log->max_files <= 1 && ftruncate(log->fd, 0) < 0) log->lost++;
	if (log_open(log) < 0) log->lost++; /* goes on in the old file: better there than nowhere */
}

/* RFC3339Nano as Go prints it: trailing zeros of the fraction fall away, and the point with the last of them. */
static size_t timestamp(char out[40])
{
	static time_t minute_of = -1;
	static char minute[24];
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	time_t second = now.tv_sec % 60;
	if (now.tv_sec - second != minute_of) { /* the calendar is dear; it is asked once a minute */
		struct tm t;
		minute_of = now.tv_sec - second;
		gmtime_r(&minute_of, &t);
		int year = t.tm_year + 1900, month = t.tm_mon + 1;
		text(minute, sizeof minute, "%d-%d%d-%d%dT%d%d:%d%d:", year, month / 10, month % 10, t.tm_mday / 10, t.tm_mday % 10,
		     t.tm_hour / 10, t.tm_hour % 10, t.tm_min / 10, t.tm_min % 10);
	}
	size_t n = strlen(minute);
	memcpy(out, minute, n);
	out[n++] = (char)('0' + second / 10);
	out[n++] = (char)('0' + second % 10);
	if (now.tv_nsec) {
		char digits[9];
		long rest = now.tv_nsec;
		int last = 8;
		for (int i = 8; i >= 0; i--, rest /= 10) digits[i] = (char)('0' + rest % 10);
		while (digits[last] == '0') last--;
		out[n++] = '.';
		memcpy(out + n, digits, (size_t)last + 1);
		n += (size_t)last + 1;
	}
	out[n++] = 'Z';
	out[n] = 0;
	return n;
}

/* How many bytes the UTF-8 sequence at p has, as Go's utf8.DecodeRune sees it: 0 when it is broken. */
static size_t rune_size(const unsigned char *p, size_t left)
{
	unsigned char c = p[0];
	size_t n = c >= 0xc2 && c <= 0xdf ? 2 : c >= 0xe0 && c <= 0xef ? 3 : c >= 0xf0 && c <= 0xf4 ? 4 : 0;
	if (!n || n > left) return 0;
	unsigned char low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80, high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
	if (p[1] < low || p[1] > high) return 0;
	for (size_t i = 2; i < n; i++)
		if ((p[i] & 0xc0) != 0x80) return 0;
	return n;
}

/* A JSON string's inside, byte for byte as dockerd writes it: <, > and & as \u00XX, only \n and \r by letter, each byte of broken
 * UTF-8 as \ufffd, the two separators that JavaScript takes for line ends escaped. */
static void put_json(struct log *log, const unsigned char *p, size_t size)
{
	static const char HEX[] = "0123456789abcdef";
	size_t plain = 0; /* where the bytes begin that need nothing */
	for (size_t i = 0; i < size;) {
		unsigned char c = p[i];
		size_t n = c < 0x80 ? 1 : rune_size(p + i, size - i);
		bool separator = n == 3 && c == 0xe2 && p[i + 1] == 0x80 && (p[i + 2] & 0xfe) == 0xa8;
		if ((c >= 0x20 && c < 0x80 && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&') || (n > 1 && !separator)) {
			i += n;
			continue;
		}
		put(log, p + plain, i - plain);
		char escape[6] = { '\\', 'u', '0', '0', HEX[c >> 4], HEX[c & 15] };
		if (n == 0) put(log, "\\ufffd", 6);
		else if (separator) put(log, p[i + 2] == 0xa8 ? "\\u2028" : "\\u2029", 6);
		else if (c == '"' || c == '\\') put(log, c == '"' ? "\\\"" : "\\\\", 2);
		else if (c == '\n' || c == '\r') put(log, c == '\n' ? "\\n" : "\\r", 2);
		else put(log, escape, 6);
		i += n ? n : 1;
		plain = i;
	}
	put(log, p + plain, size - plain);
}

void log_entry(struct log *log, bool is_stderr, const unsigned char *bytes, size_t size, bool whole)
{
	char time[40];
	if (log->format == LOG_NONE) return;
	/* As dockerd: the entry that crosses the line stays in its file, the next opens a new one. */
	if (log->max_size && log->size >= log->max_size) rotate(log);
	size_t n = timestamp(time);
	if (log->format == LOG_CRI) {
		put(log, time, n);
		put_text(log, is_stderr ? " stderr " : " stdout ");
		put_text(log, whole ? "F " : "P ");
		put(log, bytes, size);
		put(log, "\n", 1);
		return;
	}
	put_text(log, "{\"log\":\"");
	put_json(log, bytes, size);
	if (whole) put_text(log, "\\n");
	put_text(log, is_stderr ? "\",\"stream\":\"stderr\"" : "\",\"stream\":\"stdout\"");
	if (log->attrs) {
		put_text(log, ",\"attrs\":");
		put_text(log, log->attrs);
	}
	put_text(log, ",\"time\":\"");
	put(log, time, n);
	put_text(log, "\"}\n");
}
