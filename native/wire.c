#include "wire.h"

/* Every byte of a plan may be hostile: a length is compared with what is left before it is used, and nothing is read twice
 * from memory that another process could change (plans are copied into private memory before they come here). */

enum { HEADER = 20, STEP_HEAD = 8, UNDO_HEAD = 12 };
#define MAGIC 0x50545345u
#define VERSION 1u

struct row { const char *name, *signature; };
#define ROW(name, code, signature) [code] = { #name, signature },
static const struct row ROWS[MAX_OP_CODE + 1] = { FOR_EACH_OP(ROW) };
#undef ROW

/* Tests of an upgrade build an executor as one was before (Makefile): LACKS=OP_a,OP_b without these operations, TELLS=0 one that does not
 * say which it has. */
#ifndef LACKS
#define LACKS 0
#endif
#ifndef TELLS
#define TELLS KNOWN_SIZE
#endif

static const struct row *row_of(uint32_t code)
{
	static const uint16_t LACKING[] = { LACKS };
	for (size_t i = 0; i < LENGTH(LACKING); i++)
		if (LACKING[i] == code) return NULL;
	return code <= MAX_OP_CODE && ROWS[code].name ? &ROWS[code] : NULL;
}

const char *op_name(uint32_t code) { return row_of(code) ? ROWS[code].name : "?"; }

uint32_t ops_known(unsigned char bits[KNOWN_SIZE])
{
	memset(bits, 0, KNOWN_SIZE);
	for (uint32_t code = 0; code <= MAX_OP_CODE; code++)
		if (row_of(code)) bits[code / 8] |= (unsigned char)(1u << code % 8);
	return TELLS;
}

struct cursor { const unsigned char *p, *end; bool bad; };

static size_t left(const struct cursor *c) { return (size_t)(c->end - c->p); }

static const unsigned char *get(struct cursor *c, size_t n)
{
	if (c->bad || n > left(c)) {
		c->bad = true;
		return NULL;
	}
	const unsigned char *p = c->p;
	c->p += n;
	return p;
}

static uint32_t get_u32(struct cursor *c)
{
	const unsigned char *p = get(c, 4);
	return p ? u32_at(p) : 0;
}

static const char *check_str(struct cursor *c, struct arg *out)
{
	out->n = get_u32(c);
	if (c->bad || out->n >= left(c)) return "a string is longer than its operation";
	out->p = get(c, out->n + 1);
	if (!out->p || memchr(out->p, 0, out->n + 1) != out->p + out->n) return "a string has a NUL inside, or none at its end";
	return NULL;
}

/* One argument of this kind; NULL or what is wrong with it. */
static const char *check_arg(struct cursor *c, char kind, struct arg *out)
{
	*out = (struct arg){ 0 };
	switch (kind) {
	case 's':
		return check_str(c, out);
	case 'S':
		out->n = get_u32(c);
		out->p = c->p;
		/* An empty string takes five bytes: a larger count cannot be true, and must not make us loop. */
		if (c->bad || out->n > left(c) / 5) return "a list is longer than its operation";
		for (uint64_t i = 0; i < out->n; i++) {
			struct arg one;
			const char *wrong = check_str(c, &one);
			if (wrong) return wrong;
		}
		return NULL;
	case 'u':
		out->n = get_u32(c);
		return c->bad ? "a number is cut off" : NULL;
	case 'f':
		out->n = get_u32(c);
		return c->bad ? "a slot is cut off" : out->n >= SLOTS && out->n != NO_SLOT ? "a slot is out of range" : NULL;
	case 'U':
		out->n = get_u32(c);
		out->n |= (uint64_t)get_u32(c) << 32;
		return c->bad ? "a number is cut off" : NULL;
	case 'V':
		out->n = get_u32(c);
		if (c->bad || out->n > left(c) / 4) return "a list of numbers is longer than its operation";
		out->p = get(c, out->n * 4);
		return NULL;
	default: /* 'b' */
		out->n = get_u32(c);
		out->p = get(c, out->n);
		return c->bad ? "bytes are longer than their operation" : NULL;
	}
}

static const char *check_args(const struct row *row, struct cursor c)
{
	for (const char *kind = row->signature; *kind; kind++) {
		struct arg ignored;
		const char *wrong = check_arg(&c, *kind, &ignored);
		if (wrong) return wrong;
	}
	return c.p == c.end ? NULL : "an operation has more bytes than arguments";
}

/* op u16, where u8, 0 u8, size u32, arguments */
static const char *check_op(struct cursor *c, uint32_t *code, uint32_t *where)
{
	const unsigned char *head = get(c, STEP_HEAD);
	if (!head) return "an operation is cut off";
	*code = (uint32_t)head[0] | (uint32_t)head[1] << 8;
	*where = head[2];
	const struct row *row = row_of(*code);
	if (!row) return "there is no such operation";
	if (*where > INIT || head[3] != 0) return "there is no such actor";
	uint32_t size = u32_at(head + 4);
	const unsigned char *args = get(c, size);
	if (!args) return "an operation is longer than the plan";
	return check_args(row, (struct cursor){ args, args + size, false });
}

struct actors { bool forked, cloned, execed; };

static const char *check_actor(struct actors *a, uint32_t code, uint32_t where)
{
	if (where == MIDDLE && !a->forked) return "middle acts before a fork";
	if (where == INIT && !a->cloned) return "init acts before a clone";
	if (where == INIT && a->execed) return "init acts after exec";
	if (code == OP_fork) {
		if (where != HOST || a->forked || a->cloned) return "fork belongs to the host, once, before the clone";
		a->forked = true;
	}
	if (code == OP_clone || code == OP_cloneInto) {
		if (a->cloned || where != (a->forked ? MIDDLE : HOST)) return "clone happens once, in middle when there is one";
		if (code == OP_cloneInto && where != HOST) return "the host alone clones into a process's namespaces";
		a->cloned = true;
	}
	if (code == OP_exec) {
		if (where != INIT) return "only init may exec";
		a->execed = true;
	}
	if (code == OP_ready && where != HOST) return "only the host may answer";
	return NULL;
}

uint32_t plan_offsets(const void *bytes, size_t size)
{
	const unsigned char *p = bytes;
	if (size < HEADER) return 0;
	uint32_t steps = u32_at(p + 12), undos = u32_at(p + 16);
	return steps > MAX_STEPS || undos > MAX_UNDOS ? 0 : steps + undos + 1;
}

const char *plan_check(struct plan *plan, const void *bytes, size_t size, uint32_t *offsets, uint32_t *step)
{
	*step = 0;
	struct cursor c = { bytes, (const unsigned char *)bytes + size, false };
	uint32_t magic = get_u32(&c), version = get_u32(&c), total = get_u32(&c), steps = get_u32(&c), undos = get_u32(&c);
	if (c.bad || magic != MAGIC) return "these bytes are no plan";
	if (version != VERSION) return "the plan has another version than this executor";
	if (total != size || size > MAX_PLAN_BYTES) return "the plan has another length than it says";
	if (steps > MAX_STEPS || undos > MAX_UNDOS) return "the plan has too many steps";

	struct actors actors = { 0 };
	for (uint32_t i = 0; i < steps; i++) {
		uint32_t code, where;
		*step = i;
		offsets[i] = (uint32_t)(c.p - (const unsigned char *)bytes);
		const char *wrong = check_op(&c, &code, &where);
		if (!wrong) wrong = check_actor(&actors, code, where);
		if (wrong) return wrong;
	}
	uint32_t last = 0;
	for (uint32_t i = 0; i < undos; i++) {
		uint32_t of = get_u32(&c), code, where;
		*step = of < steps ? of : 0;
		offsets[steps + i] = (uint32_t)(c.p - (const unsigned char *)bytes);
		if (c.bad || of >= steps || of < last) return "an undo belongs to no step";
		last = of;
		const char *wrong = check_op(&c, &code, &where);
		if (wrong) return wrong;
		if (where != HOST) return "an undo runs on the host";
		if (code == OP_fork || code == OP_clone || code == OP_cloneInto || code == OP_exec || code == OP_ready || code == OP_awaitStart)
			return "this cannot be an undo";
	}
	if (c.p != c.end) return "the plan has more bytes than steps";
	*plan = (struct plan){ bytes, (uint32_t)size, steps, undos, offsets };
	return NULL;
}

static struct op op_at(const struct plan *plan, uint32_t offset)
{
	const unsigned char *p = plan->bytes + offset;
	return (struct op){ .code = (uint16_t)(p[0] | p[1] << 8), .where = p[2], .args = p + STEP_HEAD, .size = u32_at(p + 4) };
}

struct op plan_step(const struct plan *plan, uint32_t i)
{
	struct op op = op_at(plan, plan->at[i]);
	op.step = i;
	return op;
}

struct op plan_undo(const struct plan *plan, uint32_t i)
{
	uint32_t offset = plan->at[plan->steps + i];
	struct op op = op_at(plan, offset);
	op.step = u32_at(plan->bytes + offset - 4);
	return op;
}

void op_args(struct op op, union args *out)
{
	struct cursor c = { op.args, op.args + op.size, false };
	const char *kind = ROWS[op.code].signature;
	for (int i = 0; kind[i]; i++) check_arg(&c, kind[i], &out->all[i]);
}

const char **str_vector(struct arg strs, uint32_t before)
{
	const char **vector = take((strs.n + before + 1) * sizeof *vector);
	const unsigned char *at = strs.p;
	for (uint64_t i = 0; vector && i < strs.n; i++) vector[before + i] = next_str(&at);
	return vector;
}
