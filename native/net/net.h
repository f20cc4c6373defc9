/* estiba-net, shared by its parts. The wire is in README.md: little-endian frames on descriptors 0 (in) and 1 (out). */
#ifndef ESTIBA_NET_H
#define ESTIBA_NET_H
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

enum { FRAME_MAX = 1 << 22, EVENT_DNS_QUERY = 1 };

enum op {
  OP_NETLINK = 1, OP_NETNS_MAKE = 2, OP_NETNS_DROP = 3, OP_DNS_OPEN = 4, OP_DNS_CLOSE = 5, OP_DNS_ANSWER = 6,
  OP_HOLD = 7, OP_RELAY = 8, OP_RELEASE = 9, OP_SYSCTL = 10,
  OP_RELAY_DATAGRAMS = 11, OP_NETNS_MAKE_OWNED = 12, OP_XTABLES = 13,
};

/* A request being read. A field that leads out of it sets `bad`; the request is then answered with EBADMSG. */
struct in { const uint8_t *p; size_t left; int bad; };
uint32_t in_u32(struct in *);
const uint8_t *in_bytes(struct in *, uint32_t *len);
const char *in_str(struct in *); /* NUL-terminated by the sender; "" when absent */

void reply(uint32_t id, int err, const void *data, size_t len);
void event(uint32_t what, const void *head, size_t head_len, const void *data, size_t len);

/* Something epoll watches. `ready` may free it. */
struct watch { int fd; void (*ready)(struct watch *, uint32_t events); };
int watch_add(struct watch *, uint32_t events);
int watch_mod(struct watch *, uint32_t events);

/* Runs with this thread in the network namespace at `path`; "" is our own. enter returns 0 or errno. */
int netns_enter(const char *path);
void netns_leave(void);

int dial(int argc, char **argv);

void op_netlink(uint32_t id, struct in *);
void op_netns_make(uint32_t id, struct in *);
void op_netns_make_owned(uint32_t id, struct in *);
void op_netns_drop(uint32_t id, struct in *);
void op_sysctl(uint32_t id, struct in *);
void op_xtables(uint32_t id, struct in *);
void op_dns_open(uint32_t id, struct in *);
void op_dns_close(uint32_t id, struct in *);
void op_dns_answer(uint32_t id, struct in *);
void op_hold(uint32_t id, struct in *);
void op_relay(uint32_t id, struct in *);
void op_relay_datagrams(uint32_t id, struct in *);
void op_release(uint32_t id, struct in *);
void dns_expire(void);
void datagram_expire(void);
void datagram_release(uint32_t key);

int bound(int type, const char *ip, uint32_t port); /* a socket, or -1 and errno */
int parse_addr(const char *ip, uint32_t port, void *sockaddr, unsigned *len); /* 0 or errno */
#endif
