#include "sys.h"
#include <poll.h>
#include <sys/mman.h>
#include <time.h>

size_t vtext(char *out, size_t size, const char *format, va_list args)
{
	size_t at = 0;
#define PUT(c) do { if (at + 1 < size) out[at++] = (c); } while (0)
	for (; *format; format++) {
		if (*format != '%') { PUT(*format); continue; }
		char digits[24];
		const char *s = digits;
		size_t end = sizeof digits;
		unsigned long n;
		switch (*++format) {
		case 's':
			for (s = va_arg(args, const char *); *s; s++) PUT(*s);
			continue;
		case 'c':
			PUT((char)va_arg(args, int));
			continue;
		case 'd': {
			int d = va_arg(args, int);
			if (d < 0) PUT('-');
			n = d < 0 ? 0ul - (unsigned long)d : (unsigned long)d;
			break;
		}
		case 'o':
		case 'u':
			n = va_arg(args, unsigned);
			break;
		case 'l': /* %lu */
			format++;
			n = va_arg(args, unsigned long);
			break;
		default:
			PUT('%');
			if (!*format) format--;
			continue;
		}
		unsigned base = *format == 'o' ? 8 : 10;
		digits[--end] = 0;
		do digits[--end] = (char)('0' + n % base); while (n /= base);
		for (s = digits + end; *s; s++) PUT(*s);
	}
#undef PUT
	if (size) out[at] = 0;
	return at;
}

size_t text(char *out, size_t size, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	size_t n = vtext(out, size, format, args);
	va_end(args);
	return n;
}

bool starts(const char *s, const char *prefix) { return strncmp(s, prefix, strlen(prefix)) == 0; }

bool parse_u64(const char *s, uint64_t *out)
{
	uint64_t n = 0;
	if (!*s) return false;
	for (; *s; s++) {
		if (*s < '0' || *s > '9' || n > (UINT64_MAX - 9) / 10) return false;
		n = n * 10 + (uint64_t)(*s - '0');
	}
	*out = n;
	return true;
}

int write_all(int fd, const void *data, size_t size)
{
	const char *p = data;
	while (size) {
		ssize_t n = write(fd, p, size);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return -errno;
		p += n;
		size -= (size_t)n;
	}
	return 0;
}

int read_full(int fd, void *data, size_t size)
{
	size_t got = 0;
	while (got < size) {
		ssize_t n = read(fd, (char *)data + got, size - got);
		if (n < 0 && errno == EINTR) continue;
		if (n < 0) return -errno;
		if (n == 0) break;
		got += (size_t)n;
	}
	return (int)got;
}

int read_file(const char *path, char *out, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) return -errno;
	int n = read_full(fd, out, size - 1);
	close(fd);
	if (n >= 0) out[n] = 0;
	return n;
}

int write_file(const char *path, const void *data, size_t size, int flags)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0644);
	if (fd < 0) return -errno;
	int rc = write_all(fd, data, size);
	close(fd);
	return rc;
}

int start_time(pid_t pid, uint64_t *out)
{
	char path[64], stat[1024];
	text(path, sizeof path, "/proc/%d/stat", pid);
	int rc = read_file(path, stat, sizeof stat);
	if (rc < 0) return rc == -ENOENT ? -ESRCH : rc;
	/* The name in field 2 may hold spaces and brackets: count from the last ')'. */
	char *p = strrchr(stat, ')');
	for (int field = 2; p && field < 22; field++) p = strchr(p + 1, ' ');
	if (!p) return -EINVAL;
	char *end = strchr(++p, ' ');
	if (end) *end = 0;
	return parse_u64(p, out) ? 0 : -EINVAL;
}

int pidfd_of(pid_t pid, uint64_t start)
{
	int fd = pidfd_open_(pid);
	if (fd < 0 || !start) return fd == -EINVAL ? -ESRCH : fd;
	/* Opened first, compared after: from here on the pid cannot pass to another process unseen. */
	uint64_t found = 0;
	int rc = start_time(pid, &found);
	if (rc < 0 || found != start) {
		close(fd);
		return -ESRCH;
	}
	return fd;
}

int wait_pidfd(int pidfd, int timeout_ms)
{
	uint64_t end = timeout_ms < 0 ? 0 : now_ms() + (uint64_t)timeout_ms;
	for (;;) {
		struct pollfd p = { .fd = pidfd, .events = POLLIN };
		uint64_t now = now_ms();
		int n = poll(&p, 1, timeout_ms < 0 ? -1 : end > now ? (int)(end - now) : 0);
		if (n < 0 && errno == EINTR) continue;
		return n < 0 ? -errno : n == 0 ? -ETIMEDOUT : 0;
	}
}

void *take(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

void give_back(void *memory, size_t size)
{
	if (memory) munmap(memory, size);
}

uint64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* sun_path holds 108 bytes and real paths are longer: the directory is opened and the name reached through /proc/self/fd. */
int connect_unix(const char *path, int type)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int dir = -1;
	if (strlen(path) < sizeof to.sun_path) {
		strcpy(to.sun_path, path);
	} else {
		const char *slash = strrchr(path, '/');
		char parent[PATH_SIZE];
		if (!slash || (size_t)(slash - path) >= sizeof parent || strlen(slash) > 64) return -ENAMETOOLONG;
		memcpy(parent, path, (size_t)(slash - path));
		parent[slash - path] = 0;
		dir = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dir < 0) return -errno;
		text(to.sun_path, sizeof to.sun_path, "/proc/self/fd/%d%s", dir, slash);
	}
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	int rc = fd < 0 ? -errno : negative(connect(fd, (struct sockaddr *)&to, sizeof to));
	if (dir >= 0) close(dir);
	if (rc < 0) {
		if (fd >= 0) close(fd);
		return rc;
	}
	return fd;
}

int send_fd(int sock, int fd, const void *data, size_t size)
{
	union { struct cmsghdr head; char room[CMSG_SPACE(sizeof(int))]; } control = { 0 };
	struct iovec part = { (void *)(uintptr_t)data, size };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
	if (fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof control.room;
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
	}
	ssize_t n;
	do n = sendmsg(sock, &message, MSG_NOSIGNAL); while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : (size_t)n == size ? 0 : -EMSGSIZE;
}
