/* Exchanges two names in a directory as fast as it can, until it is killed: the other side of every race between a check of a path and
 * its use. Prints one line when it has begun.
 *
 *   cc -O2 -o swap test/runtime/swap.c && swap DIRECTORY NAME OTHER
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 4 || chdir(argv[1]) < 0) return 2;
	for (unsigned long n = 0;; n++) {
		if (renameat2(AT_FDCWD, argv[2], AT_FDCWD, argv[3], RENAME_EXCHANGE) < 0) return 1;
		if (n == 100 && (puts("swapping"), fflush(stdout)) != 0) return 1;
	}
}
