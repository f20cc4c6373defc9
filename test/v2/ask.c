/* Sends stdin to the unix socket it is given and waits for the first result frame: what a daemon would do, where there is no Node.js. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { HEAD = 12, TELL_RESULT = 64 }; /* native/frame.h */

int main(int argc, char **argv)
{
	static unsigned char bytes[1 << 20];
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	size_t size = fread(bytes, 1, sizeof bytes, stdin), got = 0;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (argc != 2 || fd < 0 || strlen(argv[1]) >= sizeof to.sun_path) return 2;
	strcpy(to.sun_path, argv[1]);
	if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0 || write(fd, bytes, size) != (ssize_t)size) return 1;
	for (;;) {
		ssize_t n = read(fd, bytes + got, sizeof bytes - got);
		if (n <= 0) return 1;
		got += (size_t)n;
		unsigned length = 0;
		for (size_t at = 0; got - at >= HEAD; at += HEAD + length) {
			memcpy(&length, bytes + at, 4);
			if (bytes[at + 4] == TELL_RESULT) return 0;
		}
	}
}
