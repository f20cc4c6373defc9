/* Everything an executor reads before it acts: plans as they come on a pipe, and requests (options, then a plan) as they come in a
 * frame. After a plan is accepted every argument of every operation is read as operations read it. */
#include "frame.h"

static volatile unsigned sum;

static void touch(struct arg a, char kind)
{
	const unsigned char *at = a.p;
	switch (kind) {
	case 's': sum += (unsigned)strlen(str(a)); break;
	case 'S': for (uint64_t i = 0; i < a.n; i++) sum += (unsigned)strlen(next_str(&at)); break;
	case 'V': for (uint32_t i = 0; i < a.n; i++) sum += item(a, i); break;
	case 'b': for (uint64_t i = 0; i < a.n; i++) sum += a.p[i]; break;
	default: sum += (unsigned)a.n;
	}
}

static void touch_op(struct op op)
{
	static const char *const SIGNATURES[MAX_OP_CODE + 1] = {
#define SIGNATURE(name, code, signature) [code] = signature,
		FOR_EACH_OP(SIGNATURE)
	};
	union args args;
	op_args(op, &args);
	for (int i = 0; SIGNATURES[op.code][i]; i++) touch(args.all[i], SIGNATURES[op.code][i]);
	sum += op.step + op.where + (unsigned)strlen(op_name(op.code));
}

static void touch_plan(const struct plan *plan)
{
	for (uint32_t i = 0; i < plan->steps; i++) touch_op(plan_step(plan, i));
	for (uint32_t i = 0; i < plan->undos; i++) touch_op(plan_undo(plan, i));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const KNOWN[] = { "dir", "log", NULL };
	struct plan plan;
	uint32_t step, room = plan_offsets(data, size);
	if (room) {
		uint32_t *offsets = take(room * sizeof *offsets);
		if (!plan_check(&plan, data, size, offsets, &step)) touch_plan(&plan);
		give_back(offsets, room * sizeof *offsets);
	}
	struct request request;
	struct frame frame = { (uint32_t)size, 1, ASK_SHIM, data };
	if (!read_request(frame, true, &request)) {
		touch_plan(&request.plan);
		const char *dir = option(request.options, "dir");
		sum += (unsigned)(dir ? strlen(dir) : 0) + (unknown_option(request.options, KNOWN) != NULL);
	}
	request_done(&request);
	return 0;
}

/* frame.c also sends records; the fuzzer runs no plan. */
void record_head(const struct record *record, unsigned char out[RECORD_HEAD]) { (void)record, memset(out, 0, RECORD_HEAD); }
