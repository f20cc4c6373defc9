/* What reaches beyond the process: terminals, netlink, BPF, other programs, the pid file. */
#include "path.h"
#include <linux/bpf.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <termios.h>

/* -- terminal */

/* Over /dev/console, by fds alone (CVE-2025-52565): a link there could have led the mount to a masked path. */
static int bind_console(struct run *run, int slave)
{
	int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0) return -errno;
	int target = make_in(run, root, "dev/console", CREATE_FILE | TARGET_NO_LINKS, 0755, -1);
	close(root);
	if (target < 0) return fail(run, target, "/dev/console");
	int tree = open_tree_(slave, "", AT_EMPTY_PATH | OPEN_TREE_CLONE_ | O_CLOEXEC);
	int rc = tree < 0 ? tree : move_mount_(tree, target);
	if (tree >= 0) close(tree);
	close(target);
	return rc < 0 ? fail(run, rc, "binding /dev/console") : 0;
}

int op_console(struct run *run, const union args *a)
{
	enum { GET_PEER = 0x5441 /* TIOCGPTPEER, Linux 4.13: the slave without a path that could be somebody's link */ };
	struct stat st;
	int zero = 0, rc = 0;
	/* From the container's own devpts, so that ttyname(3) finds it there; it must be devpts, and the multiplexer of it. */
	int master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NOFOLLOW);
	if (master < 0 && errno == ENOENT) master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (master < 0) return fail(run, -errno, "/dev/pts/ptmx");
	int slave = -1;
	if (!on_filesystem(master, DEVPTS_MAGIC) && (fstat(master, &st) < 0 || st.st_rdev != makedev(5, 2))) rc = fail(run, -EPERM, "/dev/pts/ptmx is no terminal multiplexer");
	if (rc == 0 && ioctl(master, TIOCSPTLCK, &zero) < 0) rc = fail(run, -errno, "unlocking the terminal");
	if (rc == 0) slave = ioctl(master, GET_PEER, O_RDWR | O_NOCTTY | O_CLOEXEC), rc = slave < 0 ? fail(run, -errno, "opening the terminal") : 0;
	if (rc == 0 && (a->console.rows.n || a->console.cols.n)) {
		struct winsize size = { .ws_row = (unsigned short)a->console.rows.n, .ws_col = (unsigned short)a->console.cols.n };
		ioctl(slave, TIOCSWINSZ, &size);
	}
	if (rc == 0) rc = ask_host(run, MESSAGE_CONSOLE, 0, master);
	if (rc == 0 && a->console.bind.n) rc = bind_console(run, slave);
	/* The session is new (setsid came first), so this gives it the terminal. */
	if (rc == 0 && ioctl(slave, TIOCSCTTY, 0) < 0) rc = fail(run, -errno, "taking the terminal: is this process a session's leader?");
	for (int fd = 0; rc == 0 && fd < 3; fd++) rc = dup2(slave, fd) < 0 ? -errno : 0;
	close(master);
	if (slave > 2) close(slave);
	return rc;
}

/* -- netlink */

static void put_u32(unsigned char *p, uint32_t n) { memcpy(p, &n, 4); }

/* Counts the messages that will be acknowledged, a dump by its DONE; -EBADMSG when they do not add up. */
static int count_messages(const unsigned char *bytes, size_t size, bool *dumps)
{
	int acks = 0;
	for (size_t at = 0; at < size;) {
		struct nlmsghdr head;
		if (size - at < sizeof head) return -EBADMSG;
		memcpy(&head, bytes + at, sizeof head);
		if (head.nlmsg_len < sizeof head || head.nlmsg_len > size - at) return -EBADMSG;
		/* NEW… uses the same bits otherwise; requests for what there is are every fourth, from 18 on (rtnetlink.h). */
		bool dump = (head.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP && head.nlmsg_type % 4 == 2;
		*dumps |= dump;
		if (dump || head.nlmsg_flags & NLM_F_ACK) acks++;
		at += NLMSG_ALIGN(head.nlmsg_len);
	}
	return acks;
}

/* The kernel's text beside the errno (NLMSGERR_ATTR_MSG), if it sent one. */
static void kernel_says(struct run *run, const unsigned char *message, size_t size, uint32_t number)
{
	size_t at = NLMSG_HDRLEN + sizeof(struct nlmsgerr);
	fail(run, 0, "message %u", (unsigned)number);
	while (at + 4 <= size) {
		uint16_t length, type;
		memcpy(&length, message + at, 2);
		memcpy(&type, message + at + 2, 2);
		if (length < 4 || length > size - at) return;
		if (type == NLMSGERR_ATTR_MSG && length > 4 && message[at + length - 1] == 0) fail(run, 0, "%s", message + at + 4);
		at += NLMSG_ALIGN(length);
	}
}

static int keep_answer(struct run *run, const unsigned char *message, size_t size)
{
	if (!run->data) run->data = take(DATA_SIZE);
	if (!run->data) return -ENOMEM;
	if (size > DATA_SIZE - run->data_size) return fail(run, -EMSGSIZE, "the answer has more than %u bytes", DATA_SIZE);
	memcpy(run->data + run->data_size, message, size);
	run->data_size += (uint32_t)size;
	return 0;
}

/* Reads until every acknowledgement is there; the first error ends it. Answers that are none are kept for the caller. */
static int hear_netlink(struct run *run, int fd, int acks, unsigned char *buffer, size_t room)
{
	uint32_t seen = 0;
	while (acks > 0) {
		ssize_t n = recv(fd, buffer, room, 0);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return fail(run, errno == EAGAIN ? -ETIMEDOUT : -errno, "waiting for the kernel's acknowledgement");
		for (size_t at = 0; at + sizeof(struct nlmsghdr) <= (size_t)n;) {
			struct nlmsghdr head;
			memcpy(&head, buffer + at, sizeof head);
			if (head.nlmsg_len < sizeof head || head.nlmsg_len > (size_t)n - at) break;
			if (head.nlmsg_type == NLMSG_ERROR && head.nlmsg_len >= sizeof head + 4) {
				int32_t error;
				memcpy(&error, buffer + at + sizeof head, 4);
				acks--, seen++;
				if (error) {
					kernel_says(run, buffer + at, head.nlmsg_len, seen);
					return error;
				}
			} else if (head.nlmsg_type == NLMSG_DONE) {
				acks--, seen++;
			} else if (head.nlmsg_type >= NLMSG_MIN_TYPE) {
				int rc = keep_answer(run, buffer + at, head.nlmsg_len);
				if (rc < 0) return rc;
			}
			at += NLMSG_ALIGN(head.nlmsg_len);
		}
	}
	return 0;
}

int op_netlink(struct run *run, const union args *a)
{
	enum { ROOM = 32768 };
	size_t size = a->netlink.messages.n, total = size + ROOM;
	unsigned char *bytes = take(total);
	if (!bytes) return -ENOMEM;
	memcpy(bytes, a->netlink.messages.p, size);
	int rc = 0, fd = -1, on = 1, big = 1 << 20;
	for (uint32_t i = 0; i < a->netlink.pidAt.n && rc == 0; i++) {
		uint32_t at = item(a->netlink.pidAt, i);
		if (at > size || size - at < 4) rc = fail(run, -EINVAL, "pid offset %u is outside the messages", (unsigned)at);
		else put_u32(bytes + at, (uint32_t)run->pid);
	}
	bool dumps = false;
	int acks = count_messages(bytes, size, &dumps);
	if (rc == 0 && acks < 0) rc = fail(run, acks, "the messages are malformed");
	if (rc == 0) rc = fd = value_of(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, (int)a->netlink.protocol.n));
	if (rc >= 0) {
		struct timeval patience = { .tv_sec = 10 };
		setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
		setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
		/* Linux 4.20: a dump heeds the fields of its request, so "of this link" gives no more than that. */
		if (dumps) setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on);
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
		if (size > 100000) setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof big);
		struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
		ssize_t n = sendto(fd, bytes, size, 0, (struct sockaddr *)&kernel, sizeof kernel);
		rc = n < 0 ? -errno : hear_netlink(run, fd, acks, bytes + size, ROOM);
		close(fd);
	}
	give_back(bytes, total);
	return rc;
}

/* -- device filter, cgroup v2 */

static int bpf(int command, union bpf_attr *attr) { return value_of(syscall(SYS_bpf, command, attr, sizeof *attr)); }

int op_deviceFilter(struct run *run, const union args *a)
{
	enum { MOST = 64 };
	char log[512] = "";
	uint32_t ids[MOST];
	int cgroup = open(str(a->deviceFilter.cgroup), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (cgroup < 0) return fail(run, -errno, "%s", str(a->deviceFilter.cgroup));
	union bpf_attr attr = { .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE };
	attr.insn_cnt = (uint32_t)(a->deviceFilter.program.n / sizeof(struct bpf_insn));
	attr.insns = (uintptr_t)a->deviceFilter.program.p;
	attr.license = (uintptr_t)"Apache-2.0"; /* no helper is called, so none asks for the GPL */
	int program = bpf(BPF_PROG_LOAD, &attr);
	if (program < 0 && program != -EPERM) { /* once more for the verifier's reason */
		attr.log_buf = (uintptr_t)log;
		attr.log_size = sizeof log;
		attr.log_level = 1;
		program = bpf(BPF_PROG_LOAD, &attr);
	}
	int rc = program < 0 ? fail(run, program, "%s", log) : 0;
	/* What is attached already (an update) leaves after the new one is in: there is no moment without a filter. */
	union bpf_attr query = { .query = { .target_fd = (uint32_t)cgroup, .attach_type = BPF_CGROUP_DEVICE, .prog_ids = (uintptr_t)ids, .prog_cnt = MOST } };
	if (rc == 0) rc = bpf(BPF_PROG_QUERY, &query);
	union bpf_attr attach = { .target_fd = (uint32_t)cgroup, .attach_bpf_fd = (uint32_t)program, .attach_type = BPF_CGROUP_DEVICE, .attach_flags = BPF_F_ALLOW_MULTI };
	if (rc >= 0) rc = bpf(BPF_PROG_ATTACH, &attach);
	for (uint32_t i = 0; rc >= 0 && i < query.query.prog_cnt && i < MOST; i++) {
		union bpf_attr by_id = { .prog_id = ids[i] };
		int old = bpf(BPF_PROG_GET_FD_BY_ID, &by_id);
		union bpf_attr detach = { .target_fd = (uint32_t)cgroup, .attach_bpf_fd = (uint32_t)old, .attach_type = BPF_CGROUP_DEVICE };
		rc = old < 0 ? old : bpf(BPF_PROG_DETACH, &detach);
		if (old >= 0) close(old);
	}
	if (program >= 0) close(program);
	close(cgroup);
	return rc < 0 ? rc : 0;
}

/* -- other programs */

char *fill_pid(struct arg bytes, struct arg at, pid_t pid, size_t *size)
{
	char digits[16];
	size_t length = text(digits, sizeof digits, "%d", pid), out = 0, from = 0;
	char *p = take(bytes.n + at.n * length + 1);
	if (!p) return NULL;
	for (uint32_t i = 0; i < at.n; i++) {
		size_t to = item(at, i);
		if (to < from || to > bytes.n) break;
		memcpy(p + out, bytes.p + from, to - from);
		out += to - from;
		memcpy(p + out, digits, length);
		out += length;
		from = to;
	}
	memcpy(p + out, bytes.p + from, bytes.n - from);
	*size = out + bytes.n - from;
	return p;
}

static int memory_file(const void *data, size_t size)
{
	int fd = (int)syscall(SYS_memfd_create, "estiba", 1u /* MFD_CLOEXEC */);
	if (fd < 0) return -errno;
	int rc = write_all(fd, data, size);
	if (rc == 0 && lseek(fd, 0, SEEK_SET) < 0) rc = -errno;
	if (rc < 0) close(fd);
	return rc < 0 ? rc : fd;
}

/* The end of what a program wrote, as the detail of its failure. */
static void quote_output(struct run *run, int output, const char *what, int status)
{
	char tail[512];
	off_t size = lseek(output, 0, SEEK_END), from = size > (off_t)sizeof tail - 1 ? size - ((off_t)sizeof tail - 1) : 0;
	ssize_t n = size < 0 ? read(output, tail, sizeof tail - 1) : pread(output, tail, sizeof tail - 1, from); /* a pipe cannot seek */
	tail[n > 0 ? n : 0] = 0;
	while (n > 0 && (tail[n - 1] == '\n' || tail[n - 1] == ' ')) tail[--n] = 0;
	if (WIFSIGNALED(status)) fail(run, 0, "%s: signal %d%s%s", what, WTERMSIG(status), *tail ? ": " : "", tail);
	else fail(run, 0, "%s: exit status %d%s%s", what, WEXITSTATUS(status), *tail ? ": " : "", tail);
}

/* What lies in a pipe whose other end is not here: opened by its name it is one more reader. */
static int reader_of(int pipe)
{
	char path[32];
	text(path, sizeof path, "/proc/self/fd/%d", pipe);
	return value_of(open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC));
}

static void become_program(const struct program *p, int output) __attribute__((noreturn));
static void become_program(const struct program *p, int output)
{
	for (int fd = 0; fd < 3; fd++)
		if (dup2(p->stdio[fd] < 0 ? output : p->stdio[fd], fd) < 0) _exit(126);
	syscall(NR_close_range, 3, ~0u, 4 /* CLOSE_RANGE_CLOEXEC */);
	setsid();
	if (p->goes_with_us) prctl(PR_SET_PDEATHSIG, SIGKILL);
	default_signals();
	execve(p->path, (char *const *)p->argv, (char *const *)p->env);
	const char *why = errno == ENOENT ? "no such file or directory" : errno == EACCES ? "permission denied" : "cannot be run";
	write_all(2, why, strlen(why));
	_exit(errno == ENOENT ? 127 : 126);
}

int run_to_end(struct run *run, const struct program *p)
{
	int output = p->stdio[2] < 0 ? memory_file("", 0) : reader_of(p->stdio[2]), pidfd = -1, status, rc;
	if (output < 0) return output;
	struct clone_args_ args = { .flags = 0x1000 /* CLONE_PIDFD */, .pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD };
	pid_t pid = (pid_t)syscall(NR_clone3, &args, sizeof args);
	if (pid == 0) become_program(p, output);
	if (pid < 0) {
		rc = -errno;
	} else {
		rc = wait_pidfd(pidfd, p->timeout_ms);
		if (rc < 0) pidfd_kill(pidfd, SIGKILL);
		waitpid(pid, &status, 0);
		if (rc == -ETIMEDOUT) fail(run, rc, "%s ran longer than %d ms and was killed", p->path, p->timeout_ms);
		else if (rc == 0 && status) rc = -ECHILD, quote_output(run, output, p->path, status);
		close(pidfd);
	}
	close(output);
	return rc;
}

int op_hook(struct run *run, const union args *a)
{
	size_t size = 0;
	const char **argv = str_vector(a->hook.argv, 0), **env = str_vector(a->hook.env, 0);
	char *state = fill_pid(a->hook.state, a->hook.pidAt, run->me == HOST ? run->pid : getpid(), &size);
	int input = state ? memory_file(state, size) : -ENOMEM;
	struct program hook = { str(a->hook.path), argv, env, { input, -1, -1 }, a->hook.timeoutMs.n ? (int)a->hook.timeoutMs.n : -1, false };
	int rc = input < 0 || !argv || !env ? -ENOMEM : run_to_end(run, &hook);
	if (input >= 0) close(input);
	give_back(state, size + 1);
	give_back(argv, (a->hook.argv.n + 1) * sizeof *argv);
	give_back(env, (a->hook.env.n + 1) * sizeof *env);
	return rc;
}

int op_idMapTool(struct run *run, const union args *a)
{
	static const char *const PLACES[] = { "/usr/bin/%s", "/bin/%s", "/usr/local/bin/%s", "/usr/sbin/%s" };
	const char *env[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	char path[256], pid[16];
	const char *tool = str(a->idMapTool.tool);
	text(path, sizeof path, "%s", tool);
	for (size_t i = 0; !strchr(tool, '/') && i < LENGTH(PLACES); i++) {
		text(path, sizeof path, PLACES[i], tool);
		if (access(path, X_OK) == 0) break;
	}
	const char **argv = str_vector(a->idMapTool.map, 2);
	if (!argv) return -ENOMEM;
	text(pid, sizeof pid, "%d", run->pid);
	argv[0] = tool;
	argv[1] = pid;
	int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct program map = { path, argv, env, { nothing, -1, -1 }, 10000, false };
	int rc = nothing < 0 ? -errno : run_to_end(run, &map);
	if (nothing >= 0) close(nothing);
	give_back(argv, (a->idMapTool.map.n + 3) * sizeof *argv);
	return rc;
}

/* -- a user namespace without processes */

static int write_map(pid_t pid, const char *file, struct arg map)
{
	char path[64];
	text(path, sizeof path, "/proc/%d/%s", pid, file);
	return write_file(path, map.p, map.n, 0);
}

int op_userns(struct run *run, const union args *a)
{
	char path[64];
	int pidfd = -1, status, rc;
	struct clone_args_ args = { .flags = 0x1000 | CLONE_NEWUSER, .pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD };
	pid_t pid = (pid_t)syscall(NR_clone3, &args, sizeof args);
	if (pid < 0) return -errno;
	if (pid == 0) /* only holds the namespace until its fd is open */
		for (;;) pause();
	rc = write_map(pid, "uid_map", a->userns.uidMap);
	if (rc == 0) rc = write_map(pid, "gid_map", a->userns.gidMap);
	text(path, sizeof path, "/proc/%d/ns/user", pid);
	int fd = rc < 0 ? rc : value_of(open(path, O_RDONLY | O_CLOEXEC));
	pidfd_kill(pidfd, SIGKILL);
	waitpid(pid, &status, 0);
	close(pidfd);
	return fd < 0 ? fd : set_slot(run, a->userns.into.n, fd);
}

/* -- the pid file */

int op_writePid(struct run *run, const union args *a)
{
	char text_[64], temporary[PATH_SIZE];
	const char *path = str(a->writePid.path);
	uint64_t start = 0;
	int rc = a->writePid.withStart.n ? start_time(run->pid, &start) : 0;
	if (rc < 0) return rc;
	size_t n = text(text_, sizeof text_, "%d", run->pid);
	if (a->writePid.withStart.n) n += text(text_ + n, sizeof text_ - n, " %lu\n", (unsigned long)start);
	/* Readers poll for this file: they must never see it half written. */
	if (a->writePid.path.n + 16 > sizeof temporary) return -ENAMETOOLONG;
	text(temporary, sizeof temporary, "%s.%d.tmp", path, getpid());
	rc = write_file(temporary, text_, n, O_CREAT | O_EXCL);
	if (rc == 0) rc = negative(rename(temporary, path));
	if (rc < 0) unlink(temporary);
	return rc;
}
