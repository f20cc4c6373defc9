/* The fuzz target without libFuzzer, for machines that have only a C compiler: mutates the seeds it is given, the same way every time.
 *
 *   mutate ROUNDS SEED…
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t state = 0x9e3779b97f4a7c15u;

static uint32_t chance(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 32) % below;
}

static void mutate(uint8_t *bytes, size_t size)
{
	static const uint8_t EDGES[] = { 0, 1, 0x7f, 0x80, 0xff };
	for (uint32_t n = 1 + chance(4); n > 0; n--) {
		size_t at = chance((uint32_t)size);
		if (chance(2)) bytes[at] = EDGES[chance(sizeof EDGES)];
		else bytes[at] ^= (uint8_t)(1u << chance(8));
	}
}

int main(int argc, char **argv)
{
	static uint8_t seed[1 << 16];
	for (int i = 2; i < argc; i++) {
		FILE *f = fopen(argv[i], "rb");
		size_t size = f ? fread(seed, 1, sizeof seed, f) : 0;
		if (!size) return 2;
		fclose(f);
		LLVMFuzzerTestOneInput(seed, size);
		for (int round = atoi(argv[1]); round > 0; round--) {
			/* Exactly as long as it is, so that the sanitizer sees the first byte too many. */
			size_t cut = chance(8) ? size : 1 + chance((uint32_t)size);
			uint8_t *copy = malloc(cut);
			memcpy(copy, seed, cut);
			mutate(copy, cut);
			LLVMFuzzerTestOneInput(copy, cut);
			free(copy);
		}
	}
	return 0;
}
