/* Answers every connection with one page. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static const char page[] = "HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\nhello c";
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argc > 1 ? argv[1] : "8080")) };
	int on = 1, server = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(server, (struct sockaddr *)&address, sizeof address) < 0 || listen(server, 8) < 0) return 1;
	for (;;) {
		char request[1024];
		int client = accept(server, NULL, NULL);
		if (client < 0) return 1;
		if (read(client, request, sizeof request) > 0) (void)!write(client, page, strlen(page));
		close(client);
	}
}
