/* Netlink messages go out as they came; what the kernel says comes back as it is. Network namespaces as files. */
#include "net.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ANSWER_MAX = 1 << 24, CHUNK = 1 << 16 };
static struct { uint8_t *p; size_t len, room; } out;

static int netlink_open(int protocol) {
  int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
  if (s < 0) return -1;
  int on = 1, size = 1 << 23; /* a bound, not an allocation: a transaction is one datagram */
  struct timeval limit = { .tv_sec = 5 }; /* the kernel answers within the call; this only guards against our own miscounting */
  setsockopt(s, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
  setsockopt(s, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on); /* Linux 4.20 */
  setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
  setsockopt(s, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
  setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  return s;
}

/* Receives until `acks` messages are acknowledged or refused, or a dump is done, or (single) one answer came.
 * `batch_end` is the last sequence number of an nftables transaction: a refusal of its first or last message is the only
 * answer there will be. Returns 0 or errno; *refused tells whether an error was among the answers. */
static int collect(int s, unsigned acks, int dump, int single, uint32_t batch_end, int *refused) {
  while (acks || dump || single) {
    if (out.room - out.len < CHUNK) {
      if (out.room >= ANSWER_MAX) return EMSGSIZE;
      size_t room = out.room ? out.room * 2 : CHUNK * 2;
      uint8_t *p = realloc(out.p, room);
      if (!p) return ENOMEM;
      out.p = p; out.room = room;
    }
    ssize_t n = recv(s, out.p + out.len, CHUNK, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN ? ETIMEDOUT : errno;
    size_t left = n;
    for (struct nlmsghdr *h = (void *)(out.p + out.len); NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
      if (h->nlmsg_type == NLMSG_ERROR) {
        int bad = ((struct nlmsgerr *)NLMSG_DATA(h))->error != 0;
        if (bad) *refused = 1;
        if (bad && batch_end && (h->nlmsg_seq == 1 || h->nlmsg_seq == batch_end)) acks = 0;
        else if (acks) acks--;
        dump = single = 0;
      } else if (h->nlmsg_type == NLMSG_DONE) dump = 0;
      else single = 0;
    }
    out.len += NLMSG_ALIGN(n);
  }
  return 0;
}

static int send_all(int s, const void *p, size_t len) {
  struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
  return sendto(s, p, len, 0, (void *)&kernel, sizeof kernel) < 0 ? errno : 0;
}

/* An nftables transaction is one datagram; all else goes message by message and stops at the first refusal. */
static int exchange(int s, int protocol, uint8_t *p, size_t len) {
  struct nlmsghdr *h = (void *)p; size_t left = len; int refused = 0, err = 0;
  if (protocol == NETLINK_NETFILTER && NLMSG_OK(h, left) && h->nlmsg_type == NFNL_MSG_BATCH_BEGIN) {
    unsigned acks = 0; uint32_t last = 0;
    for (; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) { if (h->nlmsg_flags & NLM_F_ACK) acks++; last = h->nlmsg_seq; }
    err = send_all(s, p, len);
    return err ? err : collect(s, acks, 0, 0, last, &refused);
  }
  for (; NLMSG_OK(h, left) && !refused; h = NLMSG_NEXT(h, left)) {
    int ack = (h->nlmsg_flags & NLM_F_ACK) != 0, dump = !ack && (h->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
    if ((err = send_all(s, h, h->nlmsg_len))) return err;
    if ((err = collect(s, ack, dump, !ack && !dump, 0, &refused))) return err;
  }
  return left ? (refused ? 0 : EBADMSG) : 0;
}

/* netlink: namespace, protocol, second namespace and where its descriptor's number goes in the messages, messages */
void op_netlink(uint32_t id, struct in *in) {
  const char *ns = in_str(in); uint32_t protocol = in_u32(in); const char *other = in_str(in);
  uint32_t at_len, len; const uint8_t *at = in_bytes(in, &at_len), *messages = in_bytes(in, &len);
  if (in->bad) return reply(id, EBADMSG, 0, 0);
  int other_fd = *other ? open(other, O_RDONLY | O_CLOEXEC) : -1;
  if (*other && other_fd < 0) return reply(id, errno, 0, 0);
  int err = netns_enter(ns), s = -1;
  if (!err && (s = netlink_open(protocol)) < 0) err = errno;
  netns_leave();
  uint8_t *copy = err ? 0 : malloc(len + 16);
  if (!err && !copy) err = ENOMEM;
  if (!err) {
    memcpy(copy, messages, len);
    for (uint32_t i = 0; i + 4 <= at_len; i += 4) {
      uint32_t where; memcpy(&where, at + i, 4);
      if (where > len || len - where < 4) { err = EBADMSG; break; }
      memcpy(copy + where, &other_fd, 4);
    }
    out.len = 0;
    if (!err) err = exchange(s, protocol, copy, len);
  }
  free(copy);
  if (s >= 0) close(s);
  if (other_fd >= 0) close(other_fd);
  reply(id, err, out.p, err ? 0 : out.len);
}

void op_netns_make(uint32_t id, struct in *in) {
  const char *path = in_str(in);
  if (in->bad) return reply(id, EBADMSG, 0, 0);
  int fd = open(path, O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, 0444);
  if (fd < 0) return reply(id, errno, 0, 0);
  close(fd);
  int err = unshare(CLONE_NEWNET) ? errno : 0;
  if (!err && mount("/proc/self/ns/net", path, 0, MS_BIND, 0)) err = errno;
  netns_leave();
  if (err) unlink(path);
  reply(id, err, 0, 0);
}

static int write_proc(pid_t pid, const char *file, const char *value) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
  int fd = open(path, O_WRONLY | O_CLOEXEC), err = 0;
  if (fd < 0 || write(fd, value, strlen(value)) < 0) err = errno;
  if (fd >= 0) close(fd);
  return err;
}

static int keep(pid_t pid, const char *type, const char *path) {
  char source[64];
  snprintf(source, sizeof source, "/proc/%d/ns/%s", pid, type);
  int fd = open(path, O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, 0444), err = 0;
  if (fd < 0) return errno;
  close(fd);
  if (mount(source, path, 0, MS_BIND, 0)) { err = errno; unlink(path); }
  return err;
}

static void unkeep(const char *path) {
  umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
  unlink(path);
}

/* make owned: path, path of the user namespace, its map of ids. A network namespace belongs to the user namespace that its maker is in
   (network_namespaces(7)): a child is born in both, and has nothing to do but to be there until both are kept. */
void op_netns_make_owned(uint32_t id, struct in *in) {
  const char *path = in_str(in), *user = in_str(in), *map = in_str(in);
  if (in->bad) return reply(id, EBADMSG, 0, 0);
  pid_t parent = getpid(), pid = (pid_t)syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWNET | SIGCHLD, 0, 0, 0, 0);
  if (pid < 0) return reply(id, errno, 0, 0);
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0); /* it went before the word: no signal will come */
    for (;;) pause();
  }
  int err = write_proc(pid, "uid_map", map);
  if (!err) err = write_proc(pid, "gid_map", map);
  if (!err) err = keep(pid, "user", user);
  if (!err && (err = keep(pid, "net", path))) unkeep(user);
  kill(pid, SIGKILL);
  while (waitpid(pid, 0, 0) < 0 && errno == EINTR) {}
  reply(id, err, 0, 0);
}

/* Absent is fine: a sweep may be repeated. */
void op_netns_drop(uint32_t id, struct in *in) {
  const char *path = in_str(in);
  if (in->bad) return reply(id, EBADMSG, 0, 0);
  while (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {}
  int err = errno == EINVAL || errno == ENOENT ? 0 : errno;
  if (!err && unlink(path) && errno != ENOENT) err = errno;
  reply(id, err, 0, 0);
}

/* sysctl: namespace, path below /proc/sys/net, value. /proc/sys/net shows the namespace of the process that opens it. */
void op_sysctl(uint32_t id, struct in *in) {
  const char *ns = in_str(in), *name = in_str(in), *value = in_str(in); char path[256];
  if (in->bad || strstr(name, "..") || snprintf(path, sizeof path, "/proc/sys/net/%s", name) >= (int)sizeof path)
    return reply(id, EBADMSG, 0, 0);
  int err = netns_enter(ns);
  if (!err) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, value, strlen(value)) < 0) err = errno;
    if (fd >= 0) close(fd);
  }
  netns_leave();
  reply(id, err, 0, 0);
}
