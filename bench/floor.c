/* The floor of "run a container": the same kernel work as the handmade plan (src/kernel/plan/handmade.ts), in straight C, with nothing
 * decided, sent or reported. What a runtime takes beyond this is its own.
 *
 *   cc -O2 -static -o floor bench/floor.c
 *   floor ROOTFS WORK COUNT GAP_MS FILTER CGROUP…      milliseconds of each container, one a line
 *
 * FILTER: a file with a seccomp program, or "-". CGROUP: parent directories, one is made in each; a v2 one is born in, v1 ones are entered
 * by the child itself through `tasks`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MUST(call) do { if ((call) < 0) { perror(#call); _exit(90); } } while (0)

static const char *rootfs, *work;
static struct sock_fprog filter;
static char cgroups[16][512];
static int cgroup_count, born_in = -1;

static double now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void put_file(const char *dir, const char *name, const char *content)
{
	char path[600];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	MUST(fd);
	MUST(write(fd, content, strlen(content)));
	close(fd);
}

static void mask(const char *path)
{
	struct stat st;
	if (stat(path, &st) < 0) return;
	if (S_ISDIR(st.st_mode)) MUST(mount("tmpfs", path, "tmpfs", MS_RDONLY, "size=0"));
	else MUST(mount("/dev/null", path, NULL, MS_BIND, NULL));
}

static void read_only(const char *path)
{
	if (mount(path, path, NULL, MS_BIND | MS_REC, NULL) < 0) return;
	MUST(mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL));
}

static void become_container(const char *root)
{
	static const struct { const char *name; int major, minor; } DEVICES[] = { { "null", 1, 3 }, { "zero", 1, 5 }, { "full", 1, 7 }, { "random", 1, 8 }, { "urandom", 1, 9 }, { "tty", 5, 0 } };
	const uint64_t caps = 0xa80425fb;
	const unsigned long quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	for (int i = 0; i < cgroup_count; i++)
		if (i != born_in) put_file(cgroups[i], "tasks", "0");
	MUST(unshare(CLONE_NEWCGROUP));
	setsid();
	MUST(mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL));
	MUST(chdir(root));
	MUST(mount("proc", "proc", "proc", quiet, NULL));
	MUST(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=65536k"));
	MUST(mkdir("dev/pts", 0755));
	MUST(mkdir("dev/shm", 0755));
	MUST(mkdir("dev/mqueue", 0755));
	MUST(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"));
	MUST(mount("shm", "dev/shm", "tmpfs", quiet, "mode=1777,size=65536k"));
	MUST(mount("mqueue", "dev/mqueue", "mqueue", quiet, NULL));
	MUST(mount("sysfs", "sys", "sysfs", quiet | MS_RDONLY, NULL));
	umask(0);
	for (size_t i = 0; i < sizeof DEVICES / sizeof *DEVICES; i++) {
		char path[32];
		snprintf(path, sizeof path, "dev/%s", DEVICES[i].name);
		MUST(mknod(path, S_IFCHR | 0666, makedev(DEVICES[i].major, DEVICES[i].minor)));
	}
	MUST(symlink("/proc/self/fd", "dev/fd"));
	MUST(symlink("/proc/self/fd/0", "dev/stdin"));
	MUST(symlink("/proc/self/fd/1", "dev/stdout"));
	MUST(symlink("/proc/self/fd/2", "dev/stderr"));
	MUST(symlink("pts/ptmx", "dev/ptmx"));
	MUST(syscall(SYS_pivot_root, ".", "."));
	MUST(umount2(".", MNT_DETACH));
	MUST(chdir("/"));
	static const char *const MASKED[] = { "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware" };
	static const char *const READONLY[] = { "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger" };
	for (size_t i = 0; i < sizeof MASKED / sizeof *MASKED; i++) mask(MASKED[i]);
	for (size_t i = 0; i < sizeof READONLY / sizeof *READONLY; i++) read_only(READONLY[i]);
	MUST(sethostname("floor", 5));
	for (int cap = 0; cap <= 40; cap++)
		if (!(caps >> cap & 1)) prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { (uint32_t)caps, (uint32_t)caps, 0 }, { 0, 0, 0 } };
	MUST(syscall(SYS_capset, &head, data));
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	if (filter.len) MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter));
	char *argv[] = { "true", NULL }, *env[] = { "PATH=/bin", NULL };
	execve("/bin/true", argv, env);
	_exit(91);
}

static void one(int n, char **parents)
{
	char upper[512], inner[512], scratch[512], merged[512], options[2048];
	int v2 = -1, status;
	for (int i = 0; i < cgroup_count; i++) {
		snprintf(cgroups[i], sizeof cgroups[i], "%s/floor-%d-%d", parents[i], getpid(), n);
		MUST(mkdir(cgroups[i], 0755));
		if (strstr(parents[i], "cpuset")) {
			put_file(cgroups[i], "cpuset.cpus", "0");
			put_file(cgroups[i], "cpuset.mems", "0");
		}
		if (i == born_in) v2 = open(cgroups[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	snprintf(upper, sizeof upper, "%s/u%d", work, n);
	snprintf(scratch, sizeof scratch, "%s/w%d", work, n);
	snprintf(merged, sizeof merged, "%s/m%d", work, n);
	MUST(mkdir(upper, 0755));
	MUST(mkdir(scratch, 0755));
	MUST(mkdir(merged, 0755));
	snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", rootfs, upper, scratch);
	MUST(mount("overlay", merged, "overlay", 0, options));

	struct clone_args args = { .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET, .exit_signal = SIGCHLD };
	if (v2 >= 0) args.flags |= CLONE_INTO_CGROUP, args.cgroup = (uint64_t)v2;
	pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	MUST(pid);
	if (pid == 0) become_container(merged);
	if (v2 >= 0) close(v2);
	waitpid(pid, &status, 0);
	if (status) fprintf(stderr, "status %x\n", status), exit(1);

	MUST(umount2(merged, MNT_DETACH));
	snprintf(inner, sizeof inner, "%s/work", scratch);
	rmdir(inner);
	MUST(rmdir(scratch));
	MUST(rmdir(upper));
	MUST(rmdir(merged));
	for (int i = 0; i < cgroup_count; i++)
		while (rmdir(cgroups[i]) < 0 && errno == EBUSY) usleep(50);
}

int main(int argc, char **argv)
{
	if (argc < 6) return 2;
	rootfs = argv[1];
	work = argv[2];
	int count = atoi(argv[3]), gap = atoi(argv[4]);
	if (strcmp(argv[5], "-")) {
		static struct sock_filter program[4096];
		int fd = open(argv[5], O_RDONLY);
		filter = (struct sock_fprog){ (unsigned short)(read(fd, program, sizeof program) / (ssize_t)sizeof *program), program };
	}
	cgroup_count = argc - 6;
	for (int i = 0; i < cgroup_count; i++) {
		char procs[600];
		snprintf(procs, sizeof procs, "%s/tasks", argv[6 + i]);
		if (access(procs, F_OK)) born_in = i;
	}
	for (int n = 0; n < count; n++) {
		if (gap) usleep((useconds_t)gap * 1000);
		double start = now_ms();
		one(n, argv + 6);
		printf("%.3f\n", now_ms() - start);
	}
	return 0;
}
