/* `estiba-net dial NAMESPACE PORT ADDRESS…`: one connection made inside a network namespace, for port-forward, which has to reach what listens
 * on a pod's loopback alone. A zero byte on descriptor 1 says that it stands; then 0 goes in, 1 comes out, each with its own end. */
#include "net.h"
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* What listens here answers a SYN in microseconds, unless its queue of connections is full: the kernel would try on for two minutes. */
enum { BUFFER = 65536, REFUSED = 1, CONNECT_SECONDS = 10 };

static int write_all(int fd, const char *p, ssize_t len) {
  while (len > 0) {
    ssize_t n = write(fd, p, len);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return -1;
    p += n; len -= n;
  }
  return 0;
}

static void move(int from, int to) {
  static char buffer[BUFFER];
  for (;;) {
    ssize_t n = read(from, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0 || write_all(to, buffer, n)) return;
  }
}

/* Bounds connect too; 0 takes the bound away: a program may leave its input unread as long as it likes. */
static int bound_sends(int fd, int seconds) {
  struct timeval most = { .tv_sec = seconds };
  return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
}

static int reach(const char *address, uint32_t port) {
  struct sockaddr_storage to; unsigned len;
  int err = parse_addr(address, port, &to, &len), fd = err ? -1 : socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && bound_sends(fd, CONNECT_SECONDS) == 0 && connect(fd, (void *)&to, len) == 0 && bound_sends(fd, 0) == 0) return fd;
  if (!err) err = errno == EINPROGRESS ? ETIMEDOUT : errno; /* socket(7): how a connect tells that SO_SNDTIMEO is over */
  fprintf(stderr, "dial tcp %s port %u: %s\n", address, port, strerror(err));
  if (fd >= 0) close(fd);
  return -1;
}

int dial(int argc, char **argv) {
  if (argc < 3) { fputs("dial NAMESPACE PORT ADDRESS...\n", stderr); return 64; }
  int err = netns_enter(argv[0]), fd = -1;
  if (err) { fprintf(stderr, "network namespace %s: %s\n", argv[0], strerror(err)); return REFUSED; }
  for (int i = 2; i < argc && fd < 0; i++) fd = reach(argv[i], strtoul(argv[1], 0, 10));
  if (fd < 0 || write_all(1, "", 1)) return REFUSED;
  /* A process each way: with one for both, two sides that write more than buffers hold would wait for each other for ever. */
  pid_t in = fork();
  if (in < 0) { perror("fork"); return 71; }
  if (in == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    move(0, fd);
    shutdown(fd, SHUT_WR);
    _exit(0);
  }
  move(fd, 1);
  kill(in, SIGKILL); /* the pod has said all: it is over */
  waitpid(in, 0, 0);
  return 0;
}
