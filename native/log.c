#include "log.h"
#include "sys.h"
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

/* A JSON line may grow sixfold (\u0000 for each byte), and each line carries some 80 bytes of its own. */
#define LINE_OVERHEAD 96u
#define OUT_SIZE (LOG_CHUNK + 4 * (6 * LOG_LINE + LINE_OVERHEAD))

static const char *const STREAM[LOG_STREAMS] = { "stdout", "stderr" };

int log_open(struct log *log)
{
	log->fd = -1;
	if (log->format == LOG_NONE)
		return 0;
	log->out = take(OUT_SIZE);
	for (int i = 0; i < LOG_STREAMS; i++)
		log->rest[i].text = take(LOG_LINE);
	if (!log->out || !log->rest[LOG_STDOUT].text || !log->rest[LOG_STDERR].text)
		return -ENOMEM;
	return log_reopen(log);
}

int log_reopen(struct log *log)
{
	struct stat st;
	int fd;

	if (log->format == LOG_NONE)
		return 0;
	/* The directory may be the kubelet's, but the file is ours: no link is followed at its end. */
	fd = value_of(open(log->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640));
	if (fd < 0)
		return fd;
	if (log->fd >= 0)
		close(log->fd);
	log->fd = fd;
	log->size = fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
	return 0;
}

void log_shed(struct log *log)
{
	if (log->format == LOG_NONE || log->out_size)
		return;
	madvise(log->out, OUT_SIZE, MADV_DONTNEED);
	for (int i = 0; i < LOG_STREAMS; i++)
		if (!log->rest[i].size)
			madvise(log->rest[i].text, LOG_LINE, MADV_DONTNEED);
}

void log_close(struct log *log)
{
	if (log->fd >= 0)
		close(log->fd);
	log->fd = -1;
}

/* The i-th file becomes the one after it: path -> path.1, path.1 -> path.2, path.1.gz -> path.2.gz. */
static int shift(const struct log *log, uint32_t i, const char *end)
{
	char from[PATH_SIZE], to[PATH_SIZE];

	if (i > 0)
		text(from, sizeof from, "%s.%u%s", log->path, i, end);
	else
		text(from, sizeof from, "%s", log->path);
	text(to, sizeof to, "%s.%u%s", log->path, i + 1, end);
	return rename(from, to) < 0 && errno != ENOENT ? -errno : 0;
}

/* Each file moves up one, packed or not; the oldest falls away. */
static int rotate(struct log *log)
{
	uint32_t last = log->max_files - 1;
	char oldest[PATH_SIZE];
	int rc = 0;

	if (log->max_files <= 1)
		return negative(ftruncate(log->fd, 0)) ?: (log->size = 0, 0);
	/* A rename replaces what has the same name alone, and the other would pass for the newcomer. */
	text(oldest, sizeof oldest, "%s.%u", log->path, last);
	unlink(oldest);
	text(oldest, sizeof oldest, "%s.%u.gz", log->path, last);
	unlink(oldest);
	for (uint32_t i = last; !rc && i-- > 0;)
		rc = (i > 0 ? shift(log, i, ".gz") : 0) ?: shift(log, i, "");
	return rc ?: log_reopen(log);
}

int log_packed(const struct log *log, uint64_t inode, const char *packed)
{
	char plain[PATH_SIZE], to[PATH_SIZE];
	struct stat st;

	for (uint32_t i = 1; i < log->max_files; i++) {
		text(plain, sizeof plain, "%s.%u", log->path, i);
		if (lstat(plain, &st) < 0 || st.st_ino != inode)
			continue;
		text(to, sizeof to, "%s.gz", plain);
		return rename(packed, to) < 0 ? -errno : negative(unlink(plain));
	}
	return -ENOENT;
}

/* Writes the first `size` bytes that wait; what stands behind them moves up. */
static int flush(struct log *log, size_t size)
{
	int error = 0;

	if (size == 0)
		return 0;
	if (log->fd < 0)
		error = log_reopen(log);
	if (!error)
		error = write_all(log->fd, log->out, size);
	if (!error)
		log->size += size;
	else if (log->fd >= 0)
		/* Half a line would make the next one unreadable. */
		(void)!ftruncate(log->fd, (off_t)log->size);
	log->lost |= error != 0;
	log->out_size -= size;
	memmove(log->out, log->out + size, log->out_size);
	return error;
}

/* 2026-11-21T04:05:06.1234Z: as Go's RFC3339Nano, without zeros at the end. */
static size_t stamp(char out[40])
{
	struct timespec now;
	struct tm tm;
	char digits[16];
	size_t n, last = 9;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	n = text(out, 40, "%d-%c%d-%c%dT", tm.tm_year + 1900, '0' + (tm.tm_mon + 1) / 10, (tm.tm_mon + 1) % 10, '0' + tm.tm_mday / 10, tm.tm_mday % 10);
	n += text(out + n, 40 - n, "%c%d:%c%d:%c%d", '0' + tm.tm_hour / 10, tm.tm_hour % 10, '0' + tm.tm_min / 10, tm.tm_min % 10, '0' + tm.tm_sec / 10, tm.tm_sec % 10);
	for (size_t i = 9; i-- > 0; now.tv_nsec /= 10)
		digits[i] = (char)('0' + now.tv_nsec % 10);
	while (last > 0 && digits[last - 1] == '0')
		last--;
	if (last > 0) {
		out[n++] = '.';
		memcpy(out + n, digits, last);
		n += last;
	}
	out[n++] = 'Z';
	return n;
}

static unsigned char *put(unsigned char *to, const char *s)
{
	size_t n = strlen(s);
	memcpy(to, s, n);
	return to + n;
}

/* Length of the UTF-8 character at p; 0 when it is none. Shortest form only, no surrogates, to U+10FFFF (RFC 3629). */
static size_t character(const unsigned char *p, size_t left)
{
	static const struct { unsigned char first, last, low, high; uint8_t size; } FORM[] = {
		{ 0xc2, 0xdf, 0x80, 0xbf, 2 }, { 0xe0, 0xe0, 0xa0, 0xbf, 3 }, { 0xe1, 0xec, 0x80, 0xbf, 3 }, { 0xed, 0xed, 0x80, 0x9f, 3 },
		{ 0xee, 0xef, 0x80, 0xbf, 3 }, { 0xf0, 0xf0, 0x90, 0xbf, 4 }, { 0xf1, 0xf3, 0x80, 0xbf, 4 }, { 0xf4, 0xf4, 0x80, 0x8f, 4 },
	};

	if (p[0] < 0x80)
		return 1;
	for (size_t i = 0; i < LENGTH(FORM); i++) {
		if (p[0] < FORM[i].first || p[0] > FORM[i].last)
			continue;
		if (FORM[i].size > left || p[1] < FORM[i].low || p[1] > FORM[i].high)
			return 0;
		for (size_t k = 2; k < FORM[i].size; k++)
			if ((p[k] & 0xc0) != 0x80)
				return 0;
		return FORM[i].size;
	}
	return 0;
}

/* Bytes at the end that begin a character whose rest may still come; at most 3. */
static size_t unfinished(const unsigned char *p, size_t size)
{
	for (size_t back = 1; back <= 3 && back <= size; back++) {
		unsigned char c = p[size - back];
		if ((c & 0xc0) == 0x80)
			continue;
		return (c >= 0xc2 && c <= 0xdf && back < 2) || (c >= 0xe0 && c <= 0xef && back < 3) || (c >= 0xf0 && c <= 0xf4 && back < 4) ? back : 0;
	}
	return 0;
}

/* Sixteen bytes at once, in a register. */
typedef unsigned char wide __attribute__((vector_size(16)));

static bool all_plain(const unsigned char *p)
{
	wide w;
	uint64_t half[2];

	memcpy(&w, p, sizeof w);
	w = (wide)((w - 0x20 >= 0x60) | (w == '"') | (w == '&') | (w == '<') | (w == '>') | (w == '\\'));
	memcpy(half, &w, sizeof half);
	return (half[0] | half[1]) == 0;
}

/* As dockerd writes a string: as Go's encoding/json (<, > and & too, and bytes that are no UTF-8 as U+FFFD), but a tab by number. */
static unsigned char *escape(unsigned char *to, const unsigned char *p, size_t size)
{
	static const char HEX[] = "0123456789abcdef";
	/* ASCII from the space on, but the five that are escaped: what most lines are made of is copied in runs. */
	static const bool PLAIN[256] = {
		[0x20 ... 0x21] = true, [0x23 ... 0x25] = true, [0x27 ... 0x3b] = true, [0x3d] = true, [0x3f ... 0x5b] = true, [0x5d ... 0x7f] = true,
	};

	for (size_t i = 0; i < size;) {
		size_t run = i, n;
		unsigned char c;

		while (size - run >= sizeof(wide) && all_plain(p + run)) {
			memcpy(to, p + run, sizeof(wide)); /* a load and a store */
			to += sizeof(wide);
			run += sizeof(wide);
		}
		for (; run < size && PLAIN[p[run]]; run++)
			*to++ = p[run];
		i = run;
		if (i == size)
			break;
		c = p[i];
		n = character(p + i, size - i);
		if (n == 0) {
			to = put(to, "\\ufffd");
			i++;
			continue;
		}
		if (n == 3 && c == 0xe2 && p[i + 1] == 0x80 && (p[i + 2] == 0xa8 || p[i + 2] == 0xa9)) {
			to = put(to, p[i + 2] == 0xa8 ? "\\u2028" : "\\u2029"); /* line ends in JavaScript before 2019 */
		} else if (n > 1) {
			memcpy(to, p + i, n);
			to += n;
		} else if (c == '"' || c == '\\') {
			*to++ = '\\';
			*to++ = c;
		} else if (c == '\n' || c == '\r') {
			*to++ = '\\';
			*to++ = c == '\n' ? 'n' : 'r';
		} else {
			to = put(to, "\\u00");
			*to++ = (unsigned char)HEX[c >> 4];
			*to++ = (unsigned char)HEX[c & 15];
		}
		i += n;
	}
	return to;
}

/* What stands around each line of a chunk: made once, since what came together is stamped together. */
struct edges {
	unsigned char before[64], after[LOG_ATTRS + LINE_OVERHEAD];
	size_t before_size, after_size;
};

static void make_edges(struct edges *edges, const struct log *log, int stream)
{
	unsigned char *before = edges->before, *after = edges->after;
	char when[40];
	size_t when_size = stamp(when);

	if (log->format == LOG_CRI) {
		memcpy(before, when, when_size);
		before = put(put(put(before + when_size, " "), STREAM[stream]), " ");
	} else {
		before = put(before, "{\"log\":\"");
		after = put(put(put(after, "\",\"stream\":\""), STREAM[stream]), "\"");
		if (log->attrs)
			after = put(put(after, ",\"attrs\":"), log->attrs);
		after = put(after, ",\"time\":\"");
		memcpy(after, when, when_size);
		after = put(after + when_size, "\"}\n");
	}
	edges->before_size = (size_t)(before - edges->before);
	edges->after_size = (size_t)(after - edges->after);
}

/* One line, or a part of one (`whole` false), without its newline. */
static int put_line(struct log *log, const struct edges *edges, const unsigned char *p, size_t size, bool whole, bool newline)
{
	unsigned char *to;
	size_t before;
	int error = 0;

	if (log->out_size + 6 * size + LINE_OVERHEAD + edges->after_size > OUT_SIZE)
		error = flush(log, log->out_size);
	before = log->out_size;
	to = log->out + before;
	memcpy(to, edges->before, edges->before_size);
	to += edges->before_size;
	if (log->format == LOG_CRI) {
		to = put(to, whole ? "F " : "P ");
		memcpy(to, p, size);
		to += size;
		*to++ = '\n';
	} else {
		to = escape(to, p, size);
		if (newline)
			to = put(to, "\\n");
		memcpy(to, edges->after, edges->after_size);
		to += edges->after_size;
	}
	log->out_size = (size_t)(to - log->out);
	/* The line that would make the file too long is the first of the next one. */
	if (log->max_bytes && log->size + before > 0 && log->size + log->out_size > log->max_bytes)
		error = flush(log, before) ?: rotate(log) ?: error;
	return error;
}

int log_put(struct log *log, int stream, const void *data, size_t size)
{
	const unsigned char *p = data, *end = p + size;
	unsigned char *rest = log->rest[stream].text;
	uint32_t kept = log->rest[stream].size;
	struct edges edges;
	int error = 0;

	if (log->format == LOG_NONE || size == 0)
		return 0;
	make_edges(&edges, log, stream);
	while (p < end) {
		size_t room = LOG_LINE - kept, left = (size_t)(end - p), look = left < room ? left : room;
		const unsigned char *newline = memchr(p, '\n', look);
		size_t take_now = newline ? (size_t)(newline - p) : look;
		int failed = 0;

		if (kept > 0) {
			memcpy(rest + kept, p, take_now);
			kept += (uint32_t)take_now;
		}
		if (newline) {
			failed = kept > 0 ? put_line(log, &edges, rest, kept, true, true) : put_line(log, &edges, p, take_now, true, true);
			kept = 0;
			p += take_now + 1;
		} else if (look == room) { /* LOG_LINE bytes and no end */
			const unsigned char *part = kept > 0 ? rest : p;
			size_t cut = LOG_LINE - unfinished(part, LOG_LINE);

			failed = put_line(log, &edges, part, cut, false, false);
			memmove(rest, part + cut, LOG_LINE - cut);
			kept = LOG_LINE - (uint32_t)cut;
			p += take_now;
		} else {
			if (kept == 0) {
				memcpy(rest, p, take_now);
				kept = (uint32_t)take_now;
			}
			p += take_now;
		}
		error = error ?: failed;
	}
	log->rest[stream].size = kept;
	return error ?: flush(log, log->out_size);
}

int log_end(struct log *log, int stream)
{
	struct edges edges;
	uint32_t kept = log->rest[stream].size;

	if (log->format == LOG_NONE || kept == 0)
		return 0;
	make_edges(&edges, log, stream);
	put_line(log, &edges, log->rest[stream].text, kept, true, false);
	log->rest[stream].size = 0;
	return flush(log, log->out_size);
}
