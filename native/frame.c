#include "frame.h"

enum { FIRST_ROOM = 16 << 10 };

void conn_open(struct conn *conn, int fd)
{
	memset(conn, 0, sizeof *conn);
	conn->fd = fd;
}

void conn_close(struct conn *conn)
{
	if (conn->fd >= 0) close(conn->fd);
	give_back(conn->in, conn->in_room);
	give_back(conn->out, conn->out_room);
	conn_open(conn, -1);
}

static int make_room(unsigned char **buffer, uint32_t *room, uint32_t used, uint32_t needed)
{
	if (needed <= *room) return 0;
	uint32_t larger = *room ? *room : FIRST_ROOM;
	while (larger < needed) larger *= 2;
	unsigned char *p = take(larger);
	if (!p) return -ENOMEM;
	if (used) memcpy(p, *buffer, used);
	give_back(*buffer, *room);
	*buffer = p;
	*room = larger;
	return 0;
}

int conn_read(struct conn *conn)
{
	uint32_t want = FIRST_ROOM;
	if (conn->in_got >= FRAME_HEAD) {
		uint32_t size = u32_at(conn->in);
		if (size > MAX_FRAME) return -EMSGSIZE;
		if (FRAME_HEAD + size > want) want = FRAME_HEAD + size;
	}
	/* A whole frame waits for its turn (stdin is full): read no more until it has gone. */
	if (conn->in_got >= want) return 0;
	int rc = make_room(&conn->in, &conn->in_room, conn->in_got, want);
	if (rc < 0) return rc;
	ssize_t n = recv(conn->fd, conn->in + conn->in_got, want - conn->in_got, MSG_DONTWAIT);
	if (n < 0) return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0) return -EPIPE;
	conn->in_got += (uint32_t)n;
	return 0;
}

bool conn_frame(const struct conn *conn, struct frame *out)
{
	if (conn->in_got < FRAME_HEAD) return false;
	uint32_t size = u32_at(conn->in);
	if (size > MAX_FRAME || conn->in_got - FRAME_HEAD < size) return false;
	*out = (struct frame){ size, u32_at(conn->in + 8), conn->in[4], conn->in + FRAME_HEAD };
	return true;
}

void conn_next(struct conn *conn, const struct frame *frame)
{
	uint32_t used = FRAME_HEAD + frame->size;
	memmove(conn->in, conn->in + used, conn->in_got - used);
	conn->in_got -= used;
	if (conn->in_room > FIRST_ROOM) conn_shed(conn);
}

void conn_shed(struct conn *conn)
{
	if (conn->in_got) return;
	give_back(conn->in, conn->in_room);
	conn->in = NULL;
	conn->in_room = 0;
}

static int queue(struct conn *conn, const void *data, size_t size)
{
	uint32_t waiting = conn->out_got - conn->out_at;
	if (waiting + size > MAX_PENDING) return -ENOBUFS;
	if (conn->out_at) memmove(conn->out, conn->out + conn->out_at, waiting);
	conn->out_at = 0;
	conn->out_got = waiting;
	int rc = make_room(&conn->out, &conn->out_room, waiting, waiting + (uint32_t)size);
	if (rc < 0) return rc;
	memcpy(conn->out + waiting, data, size);
	conn->out_got += (uint32_t)size;
	return 0;
}

int conn_flush(struct conn *conn)
{
	while (conn_pending(conn)) {
		ssize_t n = send(conn->fd, conn->out + conn->out_at, conn->out_got - conn->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return errno == EAGAIN ? 0 : -errno;
		conn->out_at += (uint32_t)n;
	}
	give_back(conn->out, conn->out_room);
	conn->out = NULL;
	conn->out_room = conn->out_got = conn->out_at = 0;
	return 0;
}

int conn_send(struct conn *conn, uint8_t kind, uint32_t id, const void *payload, size_t size)
{
	unsigned char head[FRAME_HEAD] = { 0 };
	uint32_t length = (uint32_t)size;
	memcpy(head, &length, 4);
	head[4] = kind;
	memcpy(head + 8, &id, 4);
	size_t sent = 0;
	if (!conn_pending(conn)) { /* mostly it goes at once, and nothing is copied */
		struct iovec parts[2] = { { head, sizeof head }, { (void *)(uintptr_t)payload, size } };
		struct msghdr message = { .msg_iov = parts, .msg_iovlen = size ? 2 : 1 };
		ssize_t n = sendmsg(conn->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EINTR) return -errno;
		sent = n < 0 ? 0 : (size_t)n;
	}
	int rc = sent < sizeof head ? queue(conn, head + sent, sizeof head - sent) : 0;
	size_t done = sent > sizeof head ? sent - sizeof head : 0;
	return rc == 0 && done < size ? queue(conn, (const char *)payload + done, size - done) : rc;
}

int conn_record(struct conn *conn, uint32_t id, const struct record *record)
{
	unsigned char bytes[RECORD_HEAD + DETAIL_SIZE];
	struct record cut = *record;
	if (cut.detail_size > DETAIL_SIZE) cut.detail_size = DETAIL_SIZE;
	record_head(&cut, bytes);
	if (cut.detail_size) memcpy(bytes + RECORD_HEAD, cut.detail, cut.detail_size);
	return conn_send(conn, TELL_RESULT, id, bytes, RECORD_HEAD + cut.detail_size);
}

int listen_unix(int dir, const char *name)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	text(at.sun_path, sizeof at.sun_path, "/proc/self/fd/%d/%s", dir, name);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) return -errno;
	unlinkat(dir, name, 0);
	mode_t old = umask(0177);
	int rc = negative(bind(fd, (struct sockaddr *)&at, sizeof at));
	umask(old);
	if (rc == 0) rc = negative(listen(fd, 64));
	if (rc < 0) close(fd);
	return rc < 0 ? rc : fd;
}

int accept_own(int listener)
{
	struct ucred peer;
	socklen_t size = sizeof peer;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) return -1;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && (peer.uid == geteuid() || peer.uid == 0)) return fd;
	close(fd);
	return -1;
}

const char *read_request(struct frame frame, bool with_options, struct request *out)
{
	const unsigned char *p = frame.payload, *end = p + frame.size;
	out->options = (struct arg){ 0 };
	out->bad_step = 0;
	out->offsets = NULL;
	if (with_options) {
		if (frame.size < 4) return "the options are cut off";
		out->options.n = u32_at(p);
		p += 4;
		out->options.p = p;
		for (uint64_t i = 0; i < out->options.n; i++) {
			if (end - p < 5) return "the options are cut off";
			uint32_t size = u32_at(p);
			if (size >= (size_t)(end - p) - 4 || memchr(p + 4, 0, size + 1) != p + 4 + size) return "an option is malformed";
			p += 4 + size + 1;
		}
	}
	size_t left = (size_t)(end - p);
	uint32_t count = plan_offsets(p, left), *offsets = out->few_offsets;
	if (!count) return "these bytes are no plan";
	if (count > LENGTH(out->few_offsets)) {
		out->offsets_room = count;
		offsets = out->offsets = take(count * sizeof *offsets);
	}
	if (!offsets) return "out of memory";
	return plan_check(&out->plan, p, left, offsets, &out->bad_step);
}

void request_done(struct request *request)
{
	give_back(request->offsets, request->offsets_room * sizeof *request->offsets);
	request->offsets = NULL;
}

const char *option(struct arg options, const char *key)
{
	const unsigned char *at = options.p;
	size_t n = strlen(key);
	for (uint64_t i = 0; i < options.n; i++) {
		const char *s = next_str(&at);
		if (!strncmp(s, key, n) && s[n] == '=') return s + n + 1;
	}
	return NULL;
}

const char *unknown_option(struct arg options, const char *const known[])
{
	const unsigned char *at = options.p;
	for (uint64_t i = 0; i < options.n; i++) {
		const char *s = next_str(&at);
		bool found = false;
		for (size_t k = 0; known[k] && !found; k++) found = starts(s, known[k]) && s[strlen(known[k])] == '=';
		if (!found) return s;
	}
	return NULL;
}
