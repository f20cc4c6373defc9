/*
 * Stands in for any server program, in an image of its name. It listens on the ports of STAND_IN_PORTS and answers each connection in
 * the protocol it is asked in: 200 to HTTP/1, SERVING to a gRPC health check, nothing but an open connection otherwise.
 *
 * It ends at once, with 0, where a program that does one thing would: when its name is in STAND_IN_ENDS, and when another of it serves in
 * this container already (then it is a probe, a hook, or a client).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { MAX_PORTS = 16, MAX_FDS = 256, REQUEST_BYTES = 4096 };

static const char HTTP_ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
static const char PREFACE[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/* HTTP/2 frames: our settings and the acknowledgement of theirs; then, on stream 1, headers, the message {status: SERVING}, trailers. */
static const char SETTINGS[] = "\0\0\0\4\0\0\0\0\0\0\0\0\4\1\0\0\0\0";
static const char SERVING[] =
    "\0\0\40\1\4\0\0\0\1\210\0\14content-type\20application/grpc"
    "\0\0\7\0\0\0\0\0\1\0\0\0\0\2\10\1"
    "\0\0\17\1\5\0\0\0\1\0\13grpc-status\0010";

static int among(const char *list, const char *name) {
	char copy[1024];
	snprintf(copy, sizeof copy, "%s", list ? list : "");
	for (char *each = strtok(copy, " "); each; each = strtok(NULL, " "))
		if (strcmp(each, name) == 0) return 1;
	return 0;
}

/* One name a mount namespace, in the abstract space of the pod's network: containers of a pod do not meet. */
static int first_here(void) {
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	char mounts[64] = "";
	if (readlink("/proc/self/ns/mnt", mounts, sizeof mounts - 1) < 0) perror("/proc/self/ns/mnt");
	int length = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "stand-in %s", mounts);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	return bind(fd, (struct sockaddr *)&name, offsetof(struct sockaddr_un, sun_path) + 1 + length) == 0;
}

static int listen_on(int port) {
	struct sockaddr_in6 place = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_ANY_INIT};
	struct sockaddr_in place4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	int yes = 1, fd = socket(AF_INET6, SOCK_STREAM, 0);
	if (fd >= 0 && bind(fd, (struct sockaddr *)&place, sizeof place) < 0) close(fd), fd = -1;
	if (fd < 0) {
		fd = socket(AF_INET, SOCK_STREAM, 0);
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
		if (bind(fd, (struct sockaddr *)&place4, sizeof place4) < 0) return perror("bind"), -1;
	}
	return listen(fd, 64) < 0 ? -1 : fd;
}

/* Whether a request's headers begin in these frames. */
static int asks(const unsigned char *frames, ssize_t length) {
	for (ssize_t at = 0; at + 9 <= length; at += 9 + (frames[at] << 16 | frames[at + 1] << 8 | frames[at + 2]))
		if (frames[at + 3] == 1) return 1;
	return 0;
}

/* Whether the connection is done with. */
static int answer(int fd) {
	static char speaks_http2[MAX_FDS * 2];
	unsigned char request[REQUEST_BYTES], *frames = request;
	ssize_t n = read(fd, request, sizeof request), preface = sizeof PREFACE - 1;
	if (n >= preface && memcmp(request, PREFACE, preface) == 0) {
		speaks_http2[fd] = 1;
		if (write(fd, SETTINGS, sizeof SETTINGS - 1) < 0) return 1;
		frames += preface, n -= preface;
	} else if (n <= 0) {
		speaks_http2[fd] = 0;
		return 1;
	}
	if (speaks_http2[fd]) return asks(frames, n) && write(fd, SERVING, sizeof SERVING - 1) < 0;
	if (n > 4 && memmem(request, n, " HTTP/1.", 8)) return write(fd, HTTP_ANSWER, sizeof HTTP_ANSWER - 1), 1;
	return 0;
}

static void leave(int signal) {
	(void)signal;
	_exit(0);
}

int main(int argc, char **argv) {
	const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
	(void)argc;
	if (among(getenv("STAND_IN_ENDS"), name) || !first_here()) return 0;
	signal(SIGTERM, leave);
	signal(SIGQUIT, leave);
	signal(SIGINT, leave);
	signal(SIGPIPE, SIG_IGN);
	struct pollfd fds[MAX_FDS];
	int listeners = 0, count;
	char ports[1024];
	snprintf(ports, sizeof ports, "%s", getenv("STAND_IN_PORTS") ? getenv("STAND_IN_PORTS") : "");
	for (char *each = strtok(ports, " "); each && listeners < MAX_PORTS; each = strtok(NULL, " ")) {
		int fd = listen_on(atoi(each));
		if (fd < 0) return fprintf(stderr, "%s: port %s is taken\n", name, each), 1;
		fds[listeners++] = (struct pollfd){.fd = fd, .events = POLLIN};
	}
	printf("%s stands in, %d ports\n", name, listeners);
	fflush(stdout);
	for (count = listeners;;) {
		if (poll(fds, count, -1) < 0) continue;
		for (int i = count - 1; i >= listeners; i--)
			if (fds[i].revents && answer(fds[i].fd)) close(fds[i].fd), fds[i] = fds[--count];
		for (int i = 0; i < listeners; i++)
			if (fds[i].revents && count < MAX_FDS)
				fds[count++] = (struct pollfd){.fd = accept(fds[i].fd, NULL, NULL), .events = POLLIN};
	}
}
