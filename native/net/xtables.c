/* What iptables-legacy keeps, as the kernel gives it (linux/netfilter_ipv4/ip_tables.h; IPv6 has the same heads and numbers). A file of its own:
 * the kernel's headers for it and libc's for sockets do not go together. */
#include "net.h"
#include <errno.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

_Static_assert(IPT_SO_GET_ENTRIES == 65 && sizeof(struct ipt_getinfo) == 84, "linux/netfilter_ipv6/ip6_tables.h has these, too");
enum { ENTRIES_MAX = 1 << 26, TRIES = 8 };

/* To ask for a table makes it, and loads its module: so one that is not on the list is not asked for. 0, ENOENT or another errno. */
static int is_there(int family, const char *table) {
  FILE *names = fopen(family == AF_INET ? "/proc/self/net/ip_tables_names" : "/proc/self/net/ip6_tables_names", "re");
  if (!names) return errno;
  char line[XT_TABLE_MAXNAMELEN + 2]; int err = ENOENT;
  while (err && fgets(line, sizeof line, names)) {
    line[strcspn(line, "\n")] = 0;
    if (strcmp(line, table) == 0) err = 0;
  }
  fclose(names);
  return err;
}

/* xtables: family, table. Answers with struct ipt_getinfo and the entries behind it, or with nothing where there is no such table. */
void op_xtables(uint32_t id, struct in *in) {
  int family = in_u32(in); const char *table = in_str(in);
  if (in->bad || (family != AF_INET && family != AF_INET6) || strlen(table) >= XT_TABLE_MAXNAMELEN) return reply(id, EBADMSG, 0, 0);
  int err = is_there(family, table);
  if (err) return reply(id, err == ENOENT ? 0 : err, 0, 0);
  int level = family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6, s = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (s < 0) return reply(id, errno, 0, 0);
  struct ipt_get_entries *got = 0; uint8_t *out = 0; size_t size = 0;
  for (int tries = 0; (tries == 0 || err == EAGAIN) && tries < TRIES; tries++) { /* EAGAIN: it was replaced by one of another size meanwhile */
    struct ipt_getinfo info = { 0 };
    socklen_t len = sizeof info;
    strcpy(info.name, table);
    if (getsockopt(s, level, IPT_SO_GET_INFO, &info, &len)) { err = errno; break; }
    size = info.size;
    if (size > ENTRIES_MAX) { err = EMSGSIZE; break; }
    free(got); free(out);
    got = calloc(1, sizeof *got + size); out = malloc(sizeof info + size);
    if (!got || !out) { err = ENOMEM; break; }
    strcpy(got->name, table); got->size = size;
    len = sizeof *got + size;
    err = getsockopt(s, level, IPT_SO_GET_ENTRIES, got, &len) ? errno : 0;
    memcpy(out, &info, sizeof info);
    if (!err) memcpy(out + sizeof info, got->entrytable, size);
  }
  close(s);
  reply(id, err, out, err ? 0 : sizeof(struct ipt_getinfo) + size);
  free(got); free(out);
}
