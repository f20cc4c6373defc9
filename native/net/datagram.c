/* Datagrams of a host port passed on, where the kernel cannot rewrite the destination: [::1], and IPv6 in front of a container
 * that has none. Who sends gets a socket of its own towards the container, so that answers find the way back; a way that nobody
 * goes any more is forgotten, as the kernel's connection tracking does it. */
#include "net.h"
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { WAYS_MAX = 1024, IDLE_SECONDS = 120, SWEEP_SECONDS = 5, DATAGRAM_MAX = 65535, BURST = 64, RECEIVE_BYTES = 212992 };

struct door { struct watch w; uint32_t key; struct sockaddr_storage to; unsigned to_len; struct door *next; };
/* `at` is the address of ours that was asked: the answer has to come from it. */
struct way { struct watch w; struct door *door; struct sockaddr_in6 from; struct in6_pktinfo at; time_t used; struct way *next; };

static struct door *doors; static struct way *ways; static unsigned way_count; static time_t swept;
static uint8_t datagram[DATAGRAM_MAX];

static time_t seconds(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec; }

static void way_free(struct way *of) {
  for (struct way **at = &ways; *at; at = &(*at)->next) if (*at == of) { *at = of->next; break; }
  close(of->w.fd); free(of); way_count--;
}

void datagram_expire(void) {
  time_t now = seconds();
  if (now - swept < SWEEP_SECONDS) return;
  swept = now;
  for (struct way *w = ways, *next; w; w = next) { next = w->next; if (now - w->used > IDLE_SECONDS) way_free(w); }
}

/* From the container back to who asked. */
static void on_answer(struct watch *w, uint32_t events) {
  struct way *way = (void *)w; (void)events;
  for (int i = 0; i < BURST; i++) {
    ssize_t n = recv(w->fd, datagram, sizeof datagram, MSG_DONTWAIT);
    if (n < 0) return; /* nothing left, or nobody listens: reading the error has cleared it */
    union { struct cmsghdr head; char room[CMSG_SPACE(sizeof(struct in6_pktinfo))]; } control;
    struct iovec part = { datagram, n };
    struct msghdr m = { .msg_name = &way->from, .msg_namelen = sizeof way->from, .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
    control.head = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof way->at), .cmsg_level = IPPROTO_IPV6, .cmsg_type = IPV6_PKTINFO };
    memcpy(CMSG_DATA(&control.head), &way->at, sizeof way->at);
    sendmsg(way->door->w.fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    way->used = seconds();
  }
}

static struct way *way_for(struct door *door, const struct sockaddr_in6 *from, const struct in6_pktinfo *at) {
  struct way *oldest = 0;
  for (struct way *w = ways; w; w = w->next) {
    if (w->door == door && w->from.sin6_port == from->sin6_port && w->from.sin6_scope_id == from->sin6_scope_id &&
        !memcmp(&w->from.sin6_addr, &from->sin6_addr, 16) && !memcmp(&w->at.ipi6_addr, &at->ipi6_addr, 16)) return w;
    if (!oldest || w->used < oldest->used) oldest = w;
  }
  if (way_count >= WAYS_MAX && oldest) way_free(oldest);
  struct way *w = calloc(1, sizeof *w);
  int fd = w ? socket(door->to.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;
  if (fd < 0) { free(w); return 0; }
  w->w = (struct watch){ fd, on_answer }; w->door = door; w->from = *from; w->at = *at;
  /* The link counts for addresses of a link alone; for others it would bind the answer to the way the question came. */
  if (!IN6_IS_ADDR_LINKLOCAL(&at->ipi6_addr)) w->at.ipi6_ifindex = 0;
  if (connect(fd, (void *)&door->to, door->to_len) || watch_add(&w->w, EPOLLIN)) { close(fd); free(w); return 0; }
  w->next = ways; ways = w; way_count++;
  return w;
}

static void on_question(struct watch *w, uint32_t events) {
  struct door *door = (void *)w; (void)events;
  datagram_expire();
  for (int i = 0; i < BURST; i++) { /* then the others have a turn */
    union { struct cmsghdr head; char room[256]; } control;
    struct sockaddr_in6 from; struct in6_pktinfo at = { 0 };
    struct iovec part = { datagram, sizeof datagram };
    struct msghdr m = { .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
    ssize_t n = recvmsg(w->fd, &m, MSG_DONTWAIT);
    if (n < 0) return;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
      if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) memcpy(&at, CMSG_DATA(c), sizeof at);
    struct way *way = way_for(door, &from, &at);
    if (!way) continue; /* dropped, as a network may */
    way->used = seconds();
    send(way->w.fd, datagram, n, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
}

/* relay datagrams: key, address, port, target address, target port */
void op_relay_datagrams(uint32_t id, struct in *in) {
  uint32_t key = in_u32(in); const char *ip = in_str(in); uint32_t port = in_u32(in);
  const char *to = in_str(in); uint32_t to_port = in_u32(in);
  if (in->bad) return reply(id, EBADMSG, 0, 0);
  struct door *d = calloc(1, sizeof *d);
  if (!d) return reply(id, ENOMEM, 0, 0);
  int err = parse_addr(to, to_port, &d->to, &d->to_len), one = 1, room = RECEIVE_BYTES;
  int fd = err ? -1 : bound(SOCK_DGRAM, ip, port);
  if (!err && fd < 0) err = errno;
  if (!err && setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof one)) err = errno; /* IPv4 has no need of this */
  if (!err) {
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    d->key = key; d->w = (struct watch){ fd, on_question };
    if (watch_add(&d->w, EPOLLIN)) err = errno;
  }
  if (err) { if (fd >= 0) close(fd); free(d); return reply(id, err, 0, 0); }
  d->next = doors; doors = d;
  reply(id, 0, 0, 0);
}

void datagram_release(uint32_t key) {
  for (struct door **at = &doors; *at;) {
    struct door *d = *at;
    if (d->key != key) { at = &d->next; continue; }
    for (struct way *w = ways, *next; w; w = next) { next = w->next; if (w->door == d) way_free(w); }
    *at = d->next; close(d->w.fd); free(d);
  }
}
