/* DNS sockets inside other network namespaces. Queries go up as events; answers come down by handle.
 * A handle names one question: a UDP client's address, or a TCP connection. */
#include "net.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MESSAGE_MAX = 65535, ASKED_MAX = 4096, STREAMS_MAX = 256, STREAM_SECONDS = 20 };

struct server { struct watch udp, tcp; uint32_t key; struct server *next; };
struct stream { struct watch w; struct server *s; time_t used; size_t have; uint8_t buf[2 + MESSAGE_MAX]; struct stream *next; };
struct asked { uint32_t handle; struct server *s; struct stream *stream; struct sockaddr_in from; };

static struct server *servers; static struct stream *streams; static unsigned stream_count;
static struct asked asked[ASKED_MAX]; static uint32_t next_handle = 1;

static time_t seconds(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec; }

/* The table is a ring over handles: who is not answered in ASKED_MAX questions is forgotten, and asks again. */
static void ask(struct server *s, struct stream *stream, const struct sockaddr_in *from, const void *q, size_t len) {
  struct asked *a = &asked[next_handle % ASKED_MAX];
  *a = (struct asked){ .handle = next_handle, .s = s, .stream = stream };
  if (from) a->from = *from;
  if (++next_handle == 0) next_handle = 1;
  uint32_t head[3] = { a->handle, s->key, stream != 0 };
  event(EVENT_DNS_QUERY, head, sizeof head, q, len);
}

static void on_udp(struct watch *w, uint32_t events) {
  struct server *s = (void *)((char *)w - offsetof(struct server, udp)); static uint8_t q[MESSAGE_MAX];
  (void)events;
  for (int i = 0; i < 64; i++) { /* then the others have a turn */
    struct sockaddr_in from; socklen_t l = sizeof from;
    ssize_t n = recvfrom(w->fd, q, sizeof q, MSG_DONTWAIT, (void *)&from, &l);
    if (n < 12) return; /* nothing left, or too short for a header */
    ask(s, 0, &from, q, n);
  }
}

static void stream_free(struct stream *c) {
  for (unsigned i = 0; i < ASKED_MAX; i++) if (asked[i].stream == c) asked[i].handle = 0;
  for (struct stream **at = &streams; *at; at = &(*at)->next) if (*at == c) { *at = c->next; break; }
  close(c->w.fd); free(c); stream_count--;
}

static void on_stream(struct watch *w, uint32_t events) {
  struct stream *c = (void *)w; (void)events;
  ssize_t n = recv(w->fd, c->buf + c->have, sizeof c->buf - c->have, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) return stream_free(c);
  c->have += n; c->used = seconds();
  for (;;) {
    if (c->have < 2) return;
    size_t len = c->buf[0] << 8 | c->buf[1];
    if (len < 12) return stream_free(c);
    if (c->have < 2 + len) return;
    ask(c->s, c, 0, c->buf + 2, len);
    memmove(c->buf, c->buf + 2 + len, c->have - 2 - len);
    c->have -= 2 + len;
  }
}

static void on_tcp(struct watch *w, uint32_t events) {
  struct server *s = (void *)((char *)w - offsetof(struct server, tcp)); (void)events;
  int fd = accept4(w->fd, 0, 0, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  struct stream *c = stream_count < STREAMS_MAX ? malloc(sizeof *c) : 0;
  if (!c) { close(fd); return; }
  c->w = (struct watch){ fd, on_stream }; c->s = s; c->used = seconds(); c->have = 0; c->next = streams;
  if (watch_add(&c->w, EPOLLIN)) { close(fd); free(c); return; }
  streams = c; stream_count++;
}

static int listen_at(int type, const char *ip, uint32_t port) {
  struct sockaddr_storage a; unsigned l; int one = 1, err = parse_addr(ip, port, &a, &l);
  if (err) { errno = err; return -1; }
  int fd = socket(a.ss_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, (void *)&a, l) || (type == SOCK_STREAM && listen(fd, 64))) { int e = errno; close(fd); errno = e; return -1; }
  return fd;
}

/* dns open: key, namespace, address, port */
void op_dns_open(uint32_t id, struct in *in) {
  uint32_t key = in_u32(in); const char *ns = in_str(in), *ip = in_str(in); uint32_t port = in_u32(in);
  if (in->bad) return reply(id, EBADMSG, 0, 0);
  for (struct server *s = servers; s; s = s->next) if (s->key == key) return reply(id, EEXIST, 0, 0);
  int err = netns_enter(ns), udp = -1, tcp = -1;
  if (!err && ((udp = listen_at(SOCK_DGRAM, ip, port)) < 0 || (tcp = listen_at(SOCK_STREAM, ip, port)) < 0)) err = errno;
  netns_leave();
  struct server *s = err ? 0 : calloc(1, sizeof *s);
  if (!err && !s) err = ENOMEM;
  if (!err) {
    s->key = key; s->udp = (struct watch){ udp, on_udp }; s->tcp = (struct watch){ tcp, on_tcp };
    if (watch_add(&s->udp, EPOLLIN) || watch_add(&s->tcp, EPOLLIN)) { err = errno; free(s); }
  }
  if (err) { if (udp >= 0) close(udp); if (tcp >= 0) close(tcp); return reply(id, err, 0, 0); }
  s->next = servers; servers = s;
  reply(id, 0, 0, 0);
}

/* An open socket keeps its network namespace alive: whoever removes a namespace closes its server first. */
void op_dns_close(uint32_t id, struct in *in) {
  uint32_t key = in_u32(in);
  for (struct server **at = &servers; *at; at = &(*at)->next) {
    struct server *s = *at;
    if (s->key != key) continue;
    for (struct stream *c = streams, *next; c; c = next) { next = c->next; if (c->s == s) stream_free(c); }
    for (unsigned i = 0; i < ASKED_MAX; i++) if (asked[i].s == s) asked[i].handle = 0;
    close(s->udp.fd); close(s->tcp.fd);
    *at = s->next; free(s);
    break;
  }
  reply(id, 0, 0, 0); /* absent is fine */
}

/* dns answer: handle, message. Not answered itself; a client that is gone asks nothing any more. */
void op_dns_answer(uint32_t id, struct in *in) {
  uint32_t handle = in_u32(in), len; const uint8_t *m = in_bytes(in, &len); (void)id;
  struct asked *a = &asked[handle % ASKED_MAX];
  if (in->bad || handle == 0 || a->handle != handle || len > MESSAGE_MAX) return;
  if (!a->stream) sendto(a->s->udp.fd, m, len, MSG_DONTWAIT | MSG_NOSIGNAL, (void *)&a->from, sizeof a->from);
  else {
    uint8_t head[2] = { len >> 8, len };
    if (send(a->stream->w.fd, head, 2, MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE) != 2 ||
        send(a->stream->w.fd, m, len, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)len) return stream_free(a->stream); /* does not read */
  }
  a->handle = 0;
}

void dns_expire(void) {
  time_t now = seconds();
  for (struct stream *c = streams, *next; c; c = next) { next = c->next; if (now - c->used > STREAM_SECONDS) stream_free(c); }
}
