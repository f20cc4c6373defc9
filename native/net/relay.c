/* Host ports: held by a bound socket so that nobody else takes them, or relayed where the kernel cannot rewrite the
 * destination: [::1] has no route_localnet (IPv6 has no such setting), so its connections end here and go on from here. */
#include "net.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAIRS_MAX = 4096, BUFFER = 65536 };
#define EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)

struct port { struct watch w; uint32_t key; struct sockaddr_storage to; unsigned to_len; struct port *next; };
/* One direction of a relayed connection: what `from` gave and `to` has not taken yet. */
struct half { struct watch w; struct pair *pair; struct half *peer; int pipe[2]; size_t held; int ended, shut; };
struct pair { struct half a, b; };

static struct port *ports; static unsigned pair_count;

int parse_addr(const char *ip, uint32_t port, void *out, unsigned *len) {
  struct sockaddr_in *v4 = out; struct sockaddr_in6 *v6 = out;
  memset(out, 0, sizeof(struct sockaddr_storage));
  if (port > 65535) return EINVAL;
  if (inet_pton(AF_INET, ip, &v4->sin_addr) == 1) { v4->sin_family = AF_INET; v4->sin_port = htons(port); *len = sizeof *v4; return 0; }
  if (inet_pton(AF_INET6, ip, &v6->sin6_addr) == 1) { v6->sin6_family = AF_INET6; v6->sin6_port = htons(port); *len = sizeof *v6; return 0; }
  return EINVAL;
}

int bound(int type, const char *ip, uint32_t port) {
  struct sockaddr_storage a; unsigned l; int one = 1, small = 1, err = parse_addr(ip, port, &a, &l);
  if (err) { errno = err; return -1; }
  int fd = socket(a.ss_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  if (a.ss_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
  if (type == SOCK_STREAM) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one); /* else TIME_WAIT of the last holder is in the way */
  else setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small); /* what arrives here was not meant for us */
  if (bind(fd, (void *)&a, l)) { int e = errno; close(fd); errno = e; return -1; }
  return fd;
}

static struct port *add(uint32_t key, int fd, void (*ready)(struct watch *, uint32_t)) {
  struct port *p = calloc(1, sizeof *p);
  if (!p) { close(fd); return 0; }
  p->key = key; p->w = (struct watch){ fd, ready }; p->next = ports; ports = p;
  return p;
}

/* A listening socket, so that a second binder with SO_REUSEADDR is refused as well; nothing is ever accepted: the packets
 * are rewritten before they come here, and what comes nevertheless is turned away. */
static void refuse(struct watch *w, uint32_t events) {
  (void)events;
  int fd = accept4(w->fd, 0, 0, SOCK_CLOEXEC);
  if (fd < 0) return;
  struct linger now = { .l_onoff = 1 };
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close(fd);
}

/* hold: key, socket type (1 stream, 2 datagram), address, port */
void op_hold(uint32_t id, struct in *in) {
  uint32_t key = in_u32(in), type = in_u32(in); const char *ip = in_str(in); uint32_t port = in_u32(in);
  if (in->bad || (type != SOCK_STREAM && type != SOCK_DGRAM)) return reply(id, EBADMSG, 0, 0);
  int fd = bound(type, ip, port);
  if (fd < 0) return reply(id, errno, 0, 0);
  if (type == SOCK_STREAM && listen(fd, 1)) { int e = errno; close(fd); return reply(id, e, 0, 0); }
  struct port *p = add(key, fd, refuse);
  if (!p) return reply(id, ENOMEM, 0, 0);
  if (type == SOCK_STREAM) watch_add(&p->w, EPOLLIN);
  reply(id, 0, 0, 0);
}

static void pair_free(struct pair *p) {
  struct half *h[2] = { &p->a, &p->b };
  for (int i = 0; i < 2; i++) {
    if (h[i]->w.fd >= 0) close(h[i]->w.fd);
    if (h[i]->pipe[0] >= 0) { close(h[i]->pipe[0]); close(h[i]->pipe[1]); }
  }
  free(p); pair_count--;
}

/* Moves h → its peer through h's kernel pipe: no byte is copied to us. Returns -1 when the pair is
 * done with, 1 when there is more to move than one turn allows. */
static int pump(struct half *h) {
  struct half *to = h->peer; int moved = 1;
  for (int round = 0; moved && round < 16; round++) {
    moved = 0;
    if (!h->ended && h->held < BUFFER) {
      ssize_t n = splice(h->w.fd, 0, h->pipe[1], 0, BUFFER - h->held, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
      if (n > 0) { h->held += n; moved = 1; }
      else if (n == 0) h->ended = 1;
      else if (errno != EAGAIN && errno != EINTR) return -1;
    }
    if (h->held) {
      ssize_t n = splice(h->pipe[0], 0, to->w.fd, 0, h->held, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
      if (n > 0) { h->held -= n; moved = 1; }
      else if (n < 0 && errno != EAGAIN && errno != EINTR && errno != ENOTCONN) return -1;
    }
    if (h->ended && !h->held && !h->shut) { h->shut = 1; shutdown(to->w.fd, SHUT_WR); }
  }
  return h->shut && to->shut ? -1 : moved;
}

static void on_half(struct watch *w, uint32_t events) {
  struct half *h = (void *)w; struct pair *p = h->pair;
  int one = events & EPOLLERR ? -1 : pump(h), two = one < 0 ? -1 : pump(h->peer);
  if (one < 0 || two < 0) return pair_free(p);
  if (one || two) watch_mod(w, EVENTS); /* edge-triggered: asks to be woken again for what is there already */
}

static void on_client(struct watch *w, uint32_t events) {
  struct port *port = (void *)w; int one = 1; (void)events;
  int fd = accept4(w->fd, 0, 0, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  struct pair *p = pair_count < PAIRS_MAX ? calloc(1, sizeof *p) : 0;
  if (!p) { close(fd); return; }
  pair_count++;
  p->a = (struct half){ .w = { fd, on_half }, .pair = p, .peer = &p->b, .pipe = { -1, -1 } };
  p->b = (struct half){ .w = { socket(port->to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on_half }, .pair = p, .peer = &p->a, .pipe = { -1, -1 } };
  if (p->b.w.fd < 0 || pipe2(p->a.pipe, O_CLOEXEC | O_NONBLOCK)) { p->a.pipe[0] = -1; return pair_free(p); }
  if (pipe2(p->b.pipe, O_CLOEXEC | O_NONBLOCK)) { p->b.pipe[0] = -1; return pair_free(p); }
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(p->b.w.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect(p->b.w.fd, (void *)&port->to, port->to_len) && errno != EINPROGRESS) return pair_free(p);
  /* Edge-triggered: a half that is writable but has nothing to write would wake us for ever. */
  if (watch_add(&p->b.w, EVENTS) || watch_add(&p->a.w, EVENTS)) pair_free(p);
}

/* relay: key, address, port, target address, target port */
void op_relay(uint32_t id, struct in *in) {
  uint32_t key = in_u32(in); const char *ip = in_str(in); uint32_t at = in_u32(in);
  const char *to = in_str(in); uint32_t to_port = in_u32(in);
  if (in->bad) return reply(id, EBADMSG, 0, 0);
  struct sockaddr_storage target; unsigned target_len; int err = parse_addr(to, to_port, &target, &target_len);
  if (err) return reply(id, err, 0, 0);
  int fd = bound(SOCK_STREAM, ip, at);
  if (fd < 0) return reply(id, errno, 0, 0);
  if (listen(fd, 512)) { err = errno; close(fd); return reply(id, err, 0, 0); }
  struct port *p = add(key, fd, on_client);
  if (!p) return reply(id, ENOMEM, 0, 0);
  p->to = target; p->to_len = target_len;
  watch_add(&p->w, EPOLLIN);
  reply(id, 0, 0, 0);
}

/* release: key. Connections that run are left to end by themselves; absent is fine. */
void op_release(uint32_t id, struct in *in) {
  uint32_t key = in_u32(in);
  datagram_release(key);
  for (struct port **at = &ports; *at;) {
    struct port *p = *at;
    if (p->key != key) { at = &p->next; continue; }
    *at = p->next; close(p->w.fd); free(p);
  }
  reply(id, 0, 0, 0);
}
