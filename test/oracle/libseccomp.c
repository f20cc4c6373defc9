/* The oracle our BPF compiler is compared with: builds a filter with libseccomp and writes its BPF to stdout.
 *
 *   cc -o oracle libseccomp.c -lseccomp;  oracle < profile > program.bpf
 *
 * stdin, one word group a line; numbers in any C notation:
 *   default RET                          SECCOMP_RET_* with data, as SCMP_ACT_* are
 *   arch TOKEN                           AUDIT_ARCH_* as libseccomp tells them; the native one is there already
 *   rule RET NAME COUNT {INDEX OP A B}…  OP: libseccomp's enum scmp_compare
 * A name that libseccomp does not know is left out, as runc does. Exit: 0, or 1 with the reason on stderr. */
#include <errno.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what, const char *detail, int rc)
{
	fprintf(stderr, "%s %s: %s\n", what, detail, strerror(-rc));
	return 1;
}

int main(void)
{
	scmp_filter_ctx ctx = NULL;
	char word[16], name[64];
	while (scanf("%15s", word) == 1) {
		if (!strcmp(word, "default")) {
			uint32_t ret;
			if (scanf("%" SCNi32, (int32_t *)&ret) != 1 || !(ctx = seccomp_init(ret)))
				return fail("default", "", -EINVAL);
		} else if (!strcmp(word, "arch")) {
			uint32_t token;
			int rc;
			if (scanf("%" SCNu32, &token) != 1)
				return fail("arch", "", -EINVAL);
			if ((rc = seccomp_arch_add(ctx, token)) && rc != -EEXIST)
				return fail("arch", "", rc);
		} else if (!strcmp(word, "rule")) {
			uint32_t ret;
			int count, number, rc;
			struct scmp_arg_cmp args[6];
			if (scanf("%" SCNu32 " %63s %d", &ret, name, &count) != 3 || count > 6)
				return fail("rule", "", -EINVAL);
			for (int i = 0; i < count; i++) {
				unsigned op;
				if (scanf("%u %u %" SCNu64 " %" SCNu64, &args[i].arg, &op, &args[i].datum_a, &args[i].datum_b) != 4)
					return fail("rule", name, -EINVAL);
				args[i].op = op;
			}
			if ((number = seccomp_syscall_resolve_name(name)) == __NR_SCMP_ERROR)
				continue;
			if ((rc = seccomp_rule_add_array(ctx, ret, number, count, args)))
				return fail("rule", name, rc);
		} else {
			return fail("word", word, -EINVAL);
		}
	}
	int rc = seccomp_export_bpf(ctx, 1);
	return rc ? fail("export", "", rc) : 0;
}
