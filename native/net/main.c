/* The loop: frames from descriptor 0 are requests, done one after the other; sockets of DNS and relays are watched beside. */
#include "net.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int loop_fd, home_ns;

uint32_t in_u32(struct in *in) {
  uint32_t v = 0;
  if (in->left < 4) { in->bad = 1; return 0; }
  memcpy(&v, in->p, 4); in->p += 4; in->left -= 4;
  return v;
}

const uint8_t *in_bytes(struct in *in, uint32_t *len) {
  *len = in_u32(in);
  if (in->bad || *len > in->left) { in->bad = 1; *len = 0; return in->p; }
  const uint8_t *at = in->p;
  in->p += *len; in->left -= *len;
  return at;
}

const char *in_str(struct in *in) {
  uint32_t len; const uint8_t *at = in_bytes(in, &len);
  if (in->bad || len == 0 || at[len - 1] != 0) { in->bad = 1; return ""; }
  return (const char *)at;
}

static void put(const void *data, size_t len) {
  const char *p = data;
  while (len) { /* blocking on purpose: who does not read our answers gets no more of them */
    ssize_t n = write(1, p, len);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) _exit(0); /* nobody is left to serve */
    p += n; len -= n;
  }
}

/* What goes out with the next write: each of them wakes our owner, on a processor that somebody else uses while a container is made. */
static char held[16 << 10]; static size_t held_len; static int replies_held;
/* A namespace is plugged by two requests in a row; who asks for less must not wait for long behind others' requests. */
#define REPLIES_HELD_MOST 2

static void flush(void) {
  put(held, held_len);
  held_len = 0; replies_held = 0;
}

static void hold(const void *data, size_t len) {
  if (held_len + len > sizeof held) flush();
  if (len > sizeof held) return put(data, len);
  if (len) memcpy(held + held_len, data, len); /* of an answer that says nothing there is no address */
  held_len += len;
}

/* `requests` flushes what is held when no further one waits. */
void reply(uint32_t id, int err, const void *data, size_t len) {
  uint32_t head[3] = { 8 + len, id, err };
  hold(head, sizeof head); hold(data, len);
  if (++replies_held >= REPLIES_HELD_MOST) flush();
}

void event(uint32_t what, const void *head, size_t head_len, const void *data, size_t len) {
  uint32_t frame[3] = { 8 + head_len + len, 0, what };
  hold(frame, sizeof frame); hold(head, head_len); hold(data, len);
  flush();
}

int watch_add(struct watch *w, uint32_t events) {
  struct epoll_event e = { .events = events, .data.ptr = w };
  return epoll_ctl(loop_fd, EPOLL_CTL_ADD, w->fd, &e);
}

int watch_mod(struct watch *w, uint32_t events) {
  struct epoll_event e = { .events = events, .data.ptr = w };
  return epoll_ctl(loop_fd, EPOLL_CTL_MOD, w->fd, &e);
}

int netns_enter(const char *path) {
  if (!*path) return 0;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  int err = setns(fd, CLONE_NEWNET) ? errno : 0;
  close(fd);
  return err;
}

void netns_leave(void) {
  if (setns(home_ns, CLONE_NEWNET)) { perror("estiba-net: back to our own network namespace"); _exit(70); }
}

static void handle(uint32_t id, uint32_t op, struct in *in) {
  switch (op) {
  case OP_NETLINK: return op_netlink(id, in);
  case OP_NETNS_MAKE: return op_netns_make(id, in);
  case OP_NETNS_MAKE_OWNED: return op_netns_make_owned(id, in);
  case OP_NETNS_DROP: return op_netns_drop(id, in);
  case OP_SYSCTL: return op_sysctl(id, in);
  case OP_XTABLES: return op_xtables(id, in);
  case OP_DNS_OPEN: return op_dns_open(id, in);
  case OP_DNS_CLOSE: return op_dns_close(id, in);
  case OP_DNS_ANSWER: return op_dns_answer(id, in);
  case OP_HOLD: return op_hold(id, in);
  case OP_RELAY: return op_relay(id, in);
  case OP_RELAY_DATAGRAMS: return op_relay_datagrams(id, in);
  case OP_RELEASE: return op_release(id, in);
  default: return reply(id, ENOSYS, 0, 0);
  }
}

static uint8_t *buf; static size_t have;

static void requests(struct watch *w, uint32_t events) {
  (void)events;
  ssize_t n = read(w->fd, buf + have, FRAME_MAX - have);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (n <= 0) exit(0); /* our owner is gone: so are we, and the kernel closes every socket */
  have += n;
  size_t at = 0;
  while (have - at >= 12) {
    uint32_t head[3]; memcpy(head, buf + at, 12);
    if (head[0] < 8 || head[0] > FRAME_MAX - 4) exit(65);
    if (have - at < head[0] + 4) break;
    struct in in = { buf + at + 12, head[0] - 8, 0 };
    handle(head[1], head[2], &in);
    at += head[0] + 4;
  }
  memmove(buf, buf + at, have - at);
  have -= at;
  int waiting = 0;
  if (held_len && (ioctl(w->fd, FIONREAD, &waiting) || !waiting)) flush();
}

int main(int argc, char **argv) {
  /* What our owner's own parents left open (a script's lock) is nobody's business here, and we may live on in the edge. */
  syscall(SYS_close_range, 3, ~0u, 0);
  signal(SIGPIPE, SIG_IGN);
  if (argc > 1 && strcmp(argv[1], "dial") == 0) return dial(argc - 2, argv + 2);
  /* A signal to our owner's process group is for the owner: we go when it closes our input, and not before it has finished. */
  signal(SIGINT, SIG_IGN); signal(SIGTERM, SIG_IGN); signal(SIGHUP, SIG_IGN);
  prctl(PR_SET_NAME, "estiba-net");
  loop_fd = epoll_create1(EPOLL_CLOEXEC);
  home_ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  buf = malloc(FRAME_MAX);
  if (loop_fd < 0 || home_ns < 0 || !buf) { perror("estiba-net"); return 71; }
  struct watch in = { 0, requests };
  if (watch_add(&in, EPOLLIN)) { perror("estiba-net: watch descriptor 0"); return 71; }
  for (;;) {
    struct epoll_event e; /* one at a time: a handler may free what a later event of the same round points at */
    int n = epoll_wait(loop_fd, &e, 1, 5000);
    if (n < 0 && errno != EINTR) { perror("estiba-net: epoll_wait"); return 71; }
    if (n == 0) { dns_expire(); datagram_expire(); }
    if (n > 0) { struct watch *w = e.data.ptr; w->ready(w, e.events); }
  }
}
