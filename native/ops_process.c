/* What a process does to itself on its way to the program, and what the host does to it by pid. */
#include "path.h"
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>

int op_setns(struct run *run, const union args *a)
{
	/* From here on processes of the container may see us: they must not reach our memory or /proc/self/exe (CVE-2016-9962). */
	prctl(PR_SET_DUMPABLE, 0);
	int type = (int)a->setns.type.n;
	if (a->setns.slot.n != NO_SLOT) {
		int fd = slot_fd(run, a->setns.slot.n);
		return fd < 0 ? fd : negative(setns(fd, type));
	}
	int fd = open(str(a->setns.path), O_RDONLY | O_CLOEXEC);
	if (fd < 0) return -errno;
	int rc = negative(setns(fd, type));
	close(fd);
	return rc;
}

/* Linux before 5.8 takes no pidfd: one after the other, the user namespace first and the mount namespace last, as namespaces.ts has it. */
static int enter_one_by_one(struct run *run, int pidfd, pid_t pid, uint32_t types)
{
	static const struct { uint32_t flag; const char *name; } ROWS[] = { { CLONE_NEWUSER, "user" }, { CLONE_NEWIPC, "ipc" },
		{ CLONE_NEWUTS, "uts" }, { CLONE_NEWNET, "net" }, { CLONE_NEWPID, "pid" }, { CLONE_NEWCGROUP, "cgroup" }, { 0x80, "time" }, { CLONE_NEWNS, "mnt" } };
	int fds[LENGTH(ROWS)], rc = 0;
	for (size_t i = 0; i < LENGTH(ROWS); i++) {
		char path[64];
		text(path, sizeof path, "/proc/%d/ns/%s", pid, ROWS[i].name);
		fds[i] = types & ROWS[i].flag ? open(path, O_RDONLY | O_CLOEXEC) : -1;
		if (types & ROWS[i].flag && fds[i] < 0 && rc == 0) rc = fail(run, -errno, "%s", path);
	}
	/* What was opened is the process's only if it is there still. */
	if (rc == 0) rc = pidfd_kill(pidfd, 0);
	for (size_t i = 0; i < LENGTH(ROWS); i++) {
		if (fds[i] < 0) continue;
		if (rc == 0 && setns(fds[i], (int)ROWS[i].flag) < 0) rc = fail(run, -errno, "namespace %s", ROWS[i].name);
		close(fds[i]);
	}
	return rc;
}

int op_enterProcess(struct run *run, const union args *a)
{
	prctl(PR_SET_DUMPABLE, 0); /* as in op_setns */
	int pidfd = slot_fd(run, a->enterProcess.slot.n);
	uint32_t types = (uint32_t)a->enterProcess.types.n;
	if (pidfd < 0 || setns(pidfd, (int)types) == 0) return pidfd < 0 ? pidfd : 0;
	return errno == EINVAL ? enter_one_by_one(run, pidfd, (pid_t)a->enterProcess.pid.n, types) : -errno;
}

int op_unshare(struct run *run, const union args *a)
{
	(void)run;
	return negative(unshare((int)a->unshare.flags.n));
}

int op_writeProc(struct run *run, const union args *a)
{
	char path[PATH_SIZE];
	text(path, sizeof path, "/proc/%d/%s", run->me == HOST ? run->pid : getpid(), str(a->writeProc.file));
	int fd = open_proc(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0) return fail(run, fd, "open %s", path);
	/* Id maps must come in one write (user_namespaces(7)). */
	ssize_t n = write(fd, a->writeProc.data.p, a->writeProc.data.n);
	int rc = n < 0 ? -errno : (uint64_t)n == a->writeProc.data.n ? 0 : -EIO;
	close(fd);
	return rc;
}

int op_setsid(struct run *run, const union args *a)
{
	(void)run, (void)a;
	/* EPERM: it leads a session already, because its parent gave it one. */
	return setsid() < 0 && errno != EPERM ? -errno : 0;
}

int op_hostname(struct run *run, const union args *a)
{
	(void)run;
	return negative(sethostname(str(a->hostname.name), a->hostname.name.n));
}

int op_domainname(struct run *run, const union args *a)
{
	(void)run;
	return negative(setdomainname(str(a->domainname.name), a->domainname.name.n));
}

int op_prctl(struct run *run, const union args *a)
{
	(void)run;
	return negative(prctl((int)a->prctl.option.n, (unsigned long)a->prctl.value.n, 0ul, 0ul, 0ul));
}

int op_setgroups(struct run *run, const union args *a)
{
	enum { MOST = 65536 }; /* NGROUPS_MAX */
	uint32_t n = (uint32_t)a->setgroups.gids.n;
	(void)run;
	if (n > MOST) return -EINVAL;
	gid_t *gids = take((n + 1) * sizeof *gids);
	if (!gids) return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) gids[i] = item(a->setgroups.gids, i);
	int rc = negative(syscall(SYS_setgroups, n, gids));
	give_back(gids, (n + 1) * sizeof *gids);
	return rc;
}

int op_setgid(struct run *run, const union args *a)
{
	(void)run;
	gid_t gid = (gid_t)a->setgid.gid.n;
	return negative(syscall(SYS_setresgid, gid, gid, gid));
}

int op_setuid(struct run *run, const union args *a)
{
	(void)run;
	uid_t uid = (uid_t)a->setuid.uid.n;
	return negative(syscall(SYS_setresuid, uid, uid, uid));
}

int op_capset(struct run *run, const union args *a)
{
	(void)run;
	uint64_t e = a->capset.effective.n, p = a->capset.permitted.n, i = a->capset.inheritable.n;
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { (uint32_t)e, (uint32_t)p, (uint32_t)i },
						   { (uint32_t)(e >> 32), (uint32_t)(p >> 32), (uint32_t)(i >> 32) } };
	return negative(syscall(SYS_capset, &head, data));
}

int op_capBounding(struct run *run, const union args *a)
{
	(void)run;
	for (int cap = 0; cap < 64; cap++) {
		if (a->capBounding.keep.n >> cap & 1) continue;
		if (prctl(PR_CAPBSET_DROP, (unsigned long)cap, 0ul, 0ul, 0ul) == 0) continue;
		/* Dropping what is dropped needs CAP_SETPCAP all the same. EINVAL: beyond the kernel's last. */
		int has = errno == EPERM ? prctl(PR_CAPBSET_READ, (unsigned long)cap, 0ul, 0ul, 0ul) : -1;
		if (has > 0) return -EPERM;
		if (has < 0) return errno == EINVAL ? 0 : -errno;
	}
	return 0;
}

int op_capAmbient(struct run *run, const union args *a)
{
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0ul, 0ul, 0ul) < 0) return errno == EINVAL && !a->capAmbient.set.n ? 0 : -errno;
	for (int cap = 0; cap < 64; cap++)
		if (a->capAmbient.set.n >> cap & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, (unsigned long)cap, 0ul, 0ul) < 0)
			return fail(run, -errno, "capability %d is not both permitted and inheritable", cap);
	return 0;
}

int op_seccomp(struct run *run, const union args *a)
{
	struct arg filter = a->seccomp.filter;
	if (filter.n % sizeof(struct sock_filter) || filter.n / sizeof(struct sock_filter) > 4096) return -EINVAL;
	/* The filter lies unaligned in the plan; the kernel copies it byte by byte. */
	struct sock_fprog program = { (unsigned short)(filter.n / sizeof(struct sock_filter)), (struct sock_filter *)(uintptr_t)filter.p };
	unsigned long flags = a->seccomp.flags.n;
	if (a->seccomp.listener.n) flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER;
	int fd = value_of(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program));
	if (fd < 0 || !a->seccomp.listener.n) return fd;
	/* write(2) alone passes the number on; the profile must not hold that call back, and runtime/ refuses one that does. */
	int rc = ask_host(run, MESSAGE_LISTENER, (uint32_t)fd, -1);
	close(fd);
	return rc;
}

int op_rlimit(struct run *run, const union args *a)
{
	struct rlimit64_ { uint64_t soft, hard; } limit = { a->rlimit.soft.n, a->rlimit.hard.n };
	return negative(syscall(SYS_prlimit64, run->me == HOST ? run->pid : 0, (int)a->rlimit.resource.n, &limit, NULL));
}

int op_personality(struct run *run, const union args *a)
{
	(void)run;
	return personality((unsigned long)a->personality.value.n) < 0 ? -errno : 0;
}

int op_scheduler(struct run *run, const union args *a)
{
	(void)run;
	return negative(syscall(SYS_sched_setattr, 0, a->scheduler.attr.p, 0));
}

int op_ioPriority(struct run *run, const union args *a)
{
	enum { WHO_PROCESS = 1 };
	(void)run;
	return negative(syscall(SYS_ioprio_set, WHO_PROCESS, 0, (int)a->ioPriority.value.n));
}

int op_affinity(struct run *run, const union args *a)
{
	return negative(syscall(SYS_sched_setaffinity, run->me == HOST ? run->pid : 0, a->affinity.mask.n, a->affinity.mask.p));
}

int op_memoryPolicy(struct run *run, const union args *a)
{
	struct arg nodes = a->memoryPolicy.nodes;
	(void)run;
	/* The kernel reads maxnode - 1 bits. */
	return negative(syscall(SYS_set_mempolicy, (int)a->memoryPolicy.mode.n, nodes.n ? nodes.p : NULL, nodes.n ? nodes.n * 8 + 1 : 0));
}

int op_umask(struct run *run, const union args *a)
{
	(void)run;
	umask((mode_t)a->umask.mask.n);
	return 0;
}

int op_chdir(struct run *run, const union args *a)
{
	uint64_t flags = a->chdir.inside.n;
	char where[PATH_SIZE];
	if ((flags & CHDIR_IF_NOT_YET) && run->changed_directory) return 0;
	if (chdir(str(a->chdir.path)) < 0) return errno == EACCES && (flags & CHDIR_OR_LATER) ? 0 : -errno;
	/* CVE-2024-21626: a path through a leaked fd may lead to the host. The kernel then answers "(unreachable)/…", or ENOENT. */
	if ((flags & CHDIR_INSIDE) && (syscall(SYS_getcwd, where, sizeof where) < 0 || where[0] != '/'))
		return fail(run, -EPERM, "the working directory lies outside the container's root");
	run->changed_directory = true;
	return 0;
}

int op_keyring(struct run *run, const union args *a)
{
	const char *name = a->keyring.name.n ? str(a->keyring.name) : NULL;
	long ring = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name);
	(void)run;
	if (ring < 0) return errno == ENOSYS ? 0 : -errno; /* a kernel without keys has none to leak */
	/* The owner may search it too: after a change of user the program is no longer its possessor. */
	syscall(SYS_keyctl, KEYCTL_SETPERM, ring, 0x3f3f0000ul & ~0x00200000ul);
	return 0;
}

int op_landlock(struct run *run, const union args *a)
{
	/* Rights that mean something on a file: execute, write, read, truncate, ioctl on a device (ABI 5). */
	const uint64_t OF_FILES = 1u << 0 | 1u << 1 | 1u << 2 | 1u << 14 | 1u << 15;
	if (a->landlock.paths.n != a->landlock.access.n) return fail(run, -EINVAL, "paths and access differ in length");
	int rules = value_of(syscall(SYS_landlock_create_ruleset, a->landlock.attr.p, a->landlock.attr.n, 0));
	if (rules < 0) return rules;
	const unsigned char *at = a->landlock.paths.p;
	int rc = 0;
	for (uint32_t i = 0; rc == 0 && i < a->landlock.paths.n; i++) {
		const char *path = next_str(&at);
		struct stat st;
		int fd = open(path, O_PATH | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st) < 0) {
			rc = fail(run, -errno, "%s", path);
		} else {
			uint64_t allowed = item(a->landlock.access, i);
			struct landlock_path_beneath_attr rule = { S_ISDIR(st.st_mode) ? allowed : allowed & OF_FILES, fd };
			rc = negative(syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0));
			if (rc < 0) fail(run, rc, "%s", path);
		}
		if (fd >= 0) close(fd);
	}
	if (rc == 0) rc = negative(syscall(SYS_landlock_restrict_self, rules, 0));
	close(rules);
	return rc;
}

int op_closeFds(struct run *run, const union args *a)
{
	enum { CLOSE_ON_EXEC = 4 };
	(void)run;
	return negative(syscall(NR_close_range, (unsigned)a->closeFds.from.n, ~0u, CLOSE_ON_EXEC));
}

/* The standard streams belong to the user who runs: a program that opens /dev/stdout again would get EACCES. They are init's 0 to 2; who
   comes before it has those that init will be given. */
int op_ownStdio(struct run *run, const union args *a)
{
	struct stat st, null = { 0 };
	stat("/dev/null", &null);
	for (int i = 0; i < 3; i++) {
		int fd = run->me == INIT || run->stdio[i] < 0 ? i : run->stdio[i];
		if (fstat(fd, &st) < 0 || st.st_uid == a->ownStdio.uid.n) continue;
		if (S_ISCHR(st.st_mode) && (st.st_rdev == makedev(1, 3) || st.st_rdev == null.st_rdev)) continue;
		if (fchown(fd, (uid_t)a->ownStdio.uid.n, (gid_t)-1) < 0 && errno != EINVAL && errno != EPERM && errno != EROFS)
			return fail(run, -errno, "fd %d", fd);
	}
	return 0;
}

/* -- the program */

static const char *path_variable(struct arg env)
{
	const unsigned char *at = env.p;
	const char *found = NULL;
	for (uint64_t i = 0; i < env.n; i++) {
		const char *s = next_str(&at);
		if (starts(s, "PATH=")) found = s + 5;
	}
	return found;
}

static int executable(const char *path)
{
	struct stat st;
	if (stat(path, &st) < 0) return -errno;
	if (S_ISDIR(st.st_mode)) return -EISDIR;
	if (syscall(NR_faccessat2, AT_FDCWD, path, X_OK, AT_EACCESS) == 0) return 0;
	/* The container's filter is on already, and one from before Linux 5.8 does not know this call: then execve is asked. */
	bool filtered = errno == ENOSYS || errno == EPERM;
	return filtered && (st.st_mode & 0111) ? 0 : -EACCES;
}

/* As a shell finds it; the words are those of Go's os/exec, which engines match in runc's messages to give 126 and 127. */
static int find_program(struct run *run, const char *name, struct arg env)
{
	int rc;
	if (strchr(name, '/')) {
		if (strlen(name) >= sizeof run->program) return -ENAMETOOLONG;
		strcpy(run->program, name);
		rc = executable(name);
		if (rc == 0) return 0;
		run->program[0] = 0;
		if (rc == -ENOENT) return fail(run, rc, "exec: \"%s\": stat %s: no such file or directory", name, name);
		return fail(run, rc == -EISDIR ? -EACCES : rc, rc == -EISDIR ? "exec: \"%s\": is a directory: permission denied" : "exec: \"%s\": permission denied", name);
	}
	const char *path = path_variable(env);
	bool denied = false;
	while (path && *name) {
		const char *colon = strchr(path, ':');
		size_t length = colon ? (size_t)(colon - path) : strlen(path);
		/* An empty or relative entry means the working directory, which a container's image chooses: not searched, as in Go. */
		if (length && path[0] == '/' && length + strlen(name) + 2 <= sizeof run->program) {
			memcpy(run->program, path, length);
			text(run->program + length, sizeof run->program - length, "/%s", name);
			rc = executable(run->program);
			if (rc == 0) return 0;
			denied |= rc == -EACCES;
		}
		path = colon ? colon + 1 : NULL;
	}
	run->program[0] = 0;
	if (denied) return fail(run, -EACCES, "exec: \"%s\": permission denied", name);
	return fail(run, -ENOENT, "exec: \"%s\": executable file not found in $PATH", name);
}

int op_lookup(struct run *run, const union args *a) { return find_program(run, str(a->lookup.path), a->lookup.env); }

static uint64_t ignored_by_caller;

void note_ignored_signals(void)
{
	for (int number = 1; number < 65; number++) {
		struct sigaction action;
		if (sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN) ignored_by_caller |= 1ull << (number - 1);
	}
}

/* Handlers go with exec by themselves; what is ignored or blocked stays, and a program expects neither. */
void default_signals(void)
{
	static const int BY_US[] = { SIGPIPE, SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM };
	sigset_t none;
	for (size_t i = 0; i < LENGTH(BY_US); i++) ignored_by_caller |= 1ull << (BY_US[i] - 1);
	for (int number = 1; number < 65; number++)
		if (ignored_by_caller >> (number - 1) & 1) signal(number, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

int op_exec(struct run *run, const union args *a)
{
	const char **argv = str_vector(a->exec.argv, 0), **env = str_vector(a->exec.env, 0);
	if (!argv || !env) return -ENOMEM;
	int rc = run->program[0] ? 0 : find_program(run, str(a->exec.path), a->exec.env);
	if (rc < 0) return rc;
	ask_host(run, MESSAGE_EXEC, 0, -1); /* the host may be gone by now, as runc create is when start comes */
	default_signals();
	execve(run->program, (char *const *)argv, (char *const *)env);
	rc = -errno;
	signal(SIGPIPE, SIG_IGN);
	const char *why = rc == -ENOENT ? "no such file or directory" : rc == -EACCES ? "permission denied" : rc == -ENOEXEC ? "exec format error" : "it cannot be run";
	return fail(run, rc, "exec %s: %s", run->program, why);
}

/* -- by pid, from the host */

int op_kill(struct run *run, const union args *a)
{
	(void)run;
	int fd = pidfd_of((pid_t)a->kill.pid.n, a->kill.startTime.n);
	if (fd < 0) return fd;
	int rc = pidfd_kill(fd, (int)a->kill.signal.n);
	close(fd);
	return rc;
}

int op_openProcess(struct run *run, const union args *a)
{
	int fd = pidfd_of((pid_t)a->openProcess.pid.n, a->openProcess.startTime.n);
	return fd < 0 ? fd : set_slot(run, a->openProcess.into.n, fd);
}

int op_waitGone(struct run *run, const union args *a)
{
	int fd = pidfd_of((pid_t)a->waitGone.pid.n, a->waitGone.startTime.n);
	if (fd < 0) return fd == -ESRCH ? 0 : fd;
	int rc = wait_pidfd(fd, (int)a->waitGone.timeoutMs.n);
	close(fd);
	return rc < 0 ? fail(run, rc, "process %u still runs", (unsigned)a->waitGone.pid.n) : 0;
}

static const int FOR_THE_CALLER[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM };

int op_waitInit(struct run *run, const union args *a)
{
	int status, timeout = a->waitInit.timeoutMs.n ? (int)a->waitInit.timeoutMs.n : -1;
	if (run->alone && run->pid) {
		/* A terminal sends its signals to the whole group: our caller passes them on, we have to outlive the container. */
		for (size_t i = 0; i < LENGTH(FOR_THE_CALLER) && !run->forwards; i++) signal(FOR_THE_CALLER[i], SIG_IGN);
		if (run->terminal >= 0) relay_terminal(run);
	}
	int rc = run->pid ? wait_init(run, timeout, &status) : -ECHILD;
	if (rc < 0) return rc;
	run->report(run, &(struct record){ .kind = RECORD_EXITED, .pid = (uint32_t)run->pid, .step = run->at, .op = OP_waitInit, .status = (uint32_t)status });
	return 0;
}

int op_awaitStart(struct run *run, const union args *a)
{
	char path[64], byte = 0;
	const char *fifo = str(a->awaitStart.fifo);
	if (a->awaitStart.slot.n != NO_SLOT) {
		int held = slot_fd(run, a->awaitStart.slot.n);
		if (held < 0) return held;
		text(path, sizeof path, "/proc/self/fd/%d", held);
		fifo = path;
	} else if (!*fifo) {
		return 0; /* the shim has given its word: it let us come this far */
	}
	/* Opening blocks until `start` opens the other end; the byte tells it that we have seen it, as runc's exec.fifo does. */
	int fd = open(fifo, O_WRONLY | O_CLOEXEC);
	if (fd < 0) return -errno;
	int rc = write_all(fd, &byte, 1);
	close(fd);
	return rc;
}
