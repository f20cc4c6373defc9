/* Reads "STREAM SIZE\n" and SIZE bytes again and again from standard input, and logs them: log FORMAT PATH MAX_BYTES MAX_FILES. */
#include "../log.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	static char data[LOG_CHUNK];
	struct log log = { 0 };
	unsigned stream, size;
	int error;

	if (argc != 5)
		return 2;
	log.format = strcmp(argv[1], "json") == 0 ? LOG_JSON : LOG_CRI;
	log.path = argv[2];
	log.max_bytes = strtoull(argv[3], NULL, 10);
	log.max_files = (uint32_t)strtoul(argv[4], NULL, 10);
	error = log_open(&log);
	while (!error && scanf("%u %u", &stream, &size) == 2 && getchar() == '\n' && size <= sizeof data && fread(data, 1, size, stdin) == size)
		error = log_put(&log, (int)stream, data, size);
	for (int i = 0; !error && i < LOG_STREAMS; i++)
		error = log_end(&log, i);
	log_close(&log);
	return error ? 1 : 0;
}
