/* The plan as it lies in memory. The form is drawn in src/kernel/plan/wire.ts. */
#pragma once
#include "sys.h"

/* One argument, any kind: a number is n; str and bytes are n bytes at p (a str has a NUL behind it); strs and u32s are n items
 * from p on. */
struct arg { uint64_t n; const unsigned char *p; };
#include "ops.gen.h"

#define OP_ENUM(name, code, signature) OP_##name = code,
enum { FOR_EACH_OP(OP_ENUM) };
#undef OP_ENUM

enum where { HOST, MIDDLE, INIT };

struct op { uint16_t code; uint8_t where; uint32_t step; const unsigned char *args; uint32_t size; };

#define MAX_PLAN_BYTES (16u << 20)
#define MAX_STEPS 4096u
#define MAX_UNDOS 8192u

struct plan {
	const unsigned char *bytes;
	uint32_t size, steps, undos;
	uint32_t *at; /* where each step, then each undo, begins */
};

/* Checks all of the plan before anything is done with it: lengths, codes, argument kinds, NULs, slots, who runs what.
 * NULL, or what is wrong; *step then says where. `offsets` has room for MAX_STEPS + MAX_UNDOS. */
const char *plan_check(struct plan *plan, const void *bytes, size_t size, uint32_t *offsets, uint32_t *step);
struct op plan_step(const struct plan *plan, uint32_t i);
struct op plan_undo(const struct plan *plan, uint32_t i);
/* Room that plan_check needs for the offsets of these bytes, in elements; 0 when the header is no good. */
uint32_t plan_offsets(const void *bytes, size_t size);

/* Decodes the arguments of an operation that plan_check has seen. */
void op_args(struct op op, union args *out);
const char *op_name(uint32_t code);
/* Which operations this executor has: bit CODE % 8 of byte CODE / 8. Gives how many bytes are to be told. */
#define KNOWN_SIZE (MAX_OP_CODE / 8 + 1)
uint32_t ops_known(unsigned char bits[KNOWN_SIZE]);

static inline const char *str(struct arg a) { return (const char *)a.p; }
static inline uint32_t u32_at(const unsigned char *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint32_t item(struct arg u32s, uint32_t i) { return u32_at(u32s.p + 4 * i); }
/* The next string of a strs: *at begins at a.p. */
static inline const char *next_str(const unsigned char **at)
{
	const char *s = (const char *)*at + 4;
	*at += 4 + u32_at(*at) + 1;
	return s;
}
/* A NULL-ended vector as execve wants it, with `before` free places in front; NULL when memory is out. */
const char **str_vector(struct arg strs, uint32_t before);
