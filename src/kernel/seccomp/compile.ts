import { BadSeccompProfile } from '#kernel/errors.ts';
import type { Arch } from '#kernel/linux/syscalls.ts';
import { AUDIT_ARCH, syscalls, X32_BIT } from '#kernel/linux/syscalls.ts';
import type { Label } from '#kernel/seccomp/bpf.ts';
import { BackwardWriter, BPF_MAXINSNS, DATA_ARCH, DATA_NR, dataHigh, dataLow } from '#kernel/seccomp/bpf.ts';
import { muxedCalls } from '#kernel/seccomp/mux.ts';
import type { SeccompProfile } from '#kernel/seccomp/profile.ts';
import {
  FLAG_NEW_LISTENER,
  RET_ALLOW,
  RET_ERRNO,
  RET_KILL_THREAD,
  RET_LOG,
  RET_TRACE,
} from '#kernel/seccomp/profile.ts';
import type { Condition, Rules } from '#kernel/seccomp/rules.ts';
import { readProfile } from '#kernel/seccomp/rules.ts';

/** What seccomp(2) takes: `SECCOMP_SET_MODE_FILTER` with `flags` and `filter`. */
export interface SeccompProgram {
  /** struct sock_filter[], 8 bytes each. */
  filter: Uint8Array;
  /** SECCOMP_FILTER_FLAG_*. */
  flags: number;
  /** True when the call returns a listener to be handed to `listenerPath`. */
  notify: boolean;
}

export interface CompileOptions {
  /** The machine's architecture; the profile's `architectures` add to it. */
  native: Arch;
  /**
   * What a call newer than every call the profile names gets. `enosys` (as runc does): C libraries try new calls first
   * and fall back on ENOSYS only; `default`: the profile's default action, as libseccomp alone does.
   */
  newCalls?: 'enosys' | 'default';
}

/** What may be called under one architecture: a number has one return, or conditional ones tried in order. */
type Verdict = { ret: number; when: readonly { conditions: readonly Condition[]; ret: number }[] };
type Section = { arch: Arch; verdicts: ReadonlyMap<number, Verdict>; newest: number };
/** All numbers from `from` up to the next range's. */
type Range = { from: number; verdict: Verdict };

const ENOSYS = 38;

/**
 * OCI profile → program. The shape of what comes out:
 *
 *     which architecture? ── none of ours ──▶ kill the thread (a call that means something else must not pass)
 *       └─ is the number x32's? ──▶ x32's own tree, or kill
 *            └─ binary search over ranges of numbers with the same answer ──▶ return
 *                                                                └─ conditional: compare arguments ──▶ return
 *
 * Only `ld nr`, `ld arch` and jumps stand before an unconditional answer: so the kernel (5.11) can find in advance that a
 * call is always allowed, and does not run the program for it at all.
 */
export function compileSeccomp(profile: SeccompProfile, options: CompileOptions): SeccompProgram {
  const rules = readProfile(profile);
  const sections = sectionsFor(rules, options);
  const writer = new BackwardWriter();
  const badArch = writer.ret(RET_KILL_THREAD);
  let entry = badArch;
  for (const section of sections.filter((s) => s.arch !== 'x32').reverse()) {
    const x32 = section.arch === 'x86_64' ? sections.find((s) => s.arch === 'x32') : undefined;
    const body = writeArch(writer, section, x32, badArch);
    entry = writer.test('eq', AUDIT_ARCH[section.arch], body, entry);
    refuseTooLong(writer);
  }
  entry = writer.load(DATA_ARCH, entry);
  refuseTooLong(writer);
  return { filter: writer.finish(entry), flags: rules.flags, notify: (rules.flags & FLAG_NEW_LISTENER) !== 0 };
}

function refuseTooLong(writer: BackwardWriter): void {
  if (writer.length >= BPF_MAXINSNS)
    throw new BadSeccompProfile({
      path: '$.linux.seccomp.syscalls',
      rule: `need a program of more than ${BPF_MAXINSNS} instructions, the kernel's bound`,
      hint: 'use fewer rules with args',
    });
}

// -- decide

/** The architectures a kernel of `native` can report, by OCI name. */
const COMPANIONS: Readonly<Record<Arch, Readonly<Record<string, Arch>>>> = {
  x86_64: { SCMP_ARCH_X86: 'i386', SCMP_ARCH_X32: 'x32' },
  aarch64: { SCMP_ARCH_ARM: 'arm' },
  i386: {},
  x32: {},
  arm: {},
  riscv64: {},
};

function sectionsFor(rules: Rules, options: CompileOptions): Section[] {
  const companions = COMPANIONS[options.native];
  const archs = new Set([options.native, ...rules.architectures.flatMap((name) => companions[name] ?? [])]);
  return [...archs].map((arch) => sectionFor(arch, rules, options.newCalls ?? 'enosys'));
}

function sectionFor(arch: Arch, rules: Rules, newCalls: 'enosys' | 'default'): Section {
  const table = syscalls(arch);
  const verdicts = new Map<number, Verdict>();
  let newest = -1;
  for (const { names, ret, conditions } of rules.rules) {
    for (const name of names) {
      const number = table.get(name);
      if (number !== undefined) newest = Math.max(newest, number);
      // What only repeats the default is not a rule: libseccomp's users drop it, and it must not shadow a later one.
      if (ret === rules.defaultReturn) continue;
      const fitting = WORDS_OF_32_BITS.has(arch) ? conditions.map(narrow) : conditions;
      if (number !== undefined) addRule(verdicts, number, { conditions: fitting, ret }, rules.defaultReturn);
      const muxed = arch === 'i386' ? muxedCalls(name, fitting) : undefined;
      const through = muxed && table.get(muxed.through);
      if (muxed && through !== undefined)
        addRule(verdicts, through, { conditions: muxed.conditions, ret }, rules.defaultReturn);
    }
  }
  const answersNew = newCalls === 'enosys' && newest >= 0 && !permissive(rules.defaultReturn);
  const section = { arch, verdicts, newest: answersNew ? newest : Number.POSITIVE_INFINITY };
  verdicts.set(-1, { ret: rules.defaultReturn, when: [] });
  return section;
}

/** What these pass is 32 bits wide; x32's registers are wider, and libseccomp looks at the lower half there too. */
const WORDS_OF_32_BITS: ReadonlySet<Arch> = new Set(['i386', 'arm', 'x32']);
const LOWER_HALF = 0xffff_ffffn;

/**
 * The condition on the lower half alone. A 64-bit program that enters by int 0x80 leaves what it likes in the upper halves:
 * the filter sees it, the call does not (`socket` with 2^32+40 is no "greater than 40" but AF_VSOCK).
 */
function narrow(condition: Condition): Condition {
  return { ...condition, value: condition.value & LOWER_HALF, mask: condition.mask & LOWER_HALF };
}

/**
 * The first unconditional rule of a call stands, also against conditional ones before it; conditional ones are tried in
 * the profile's order. So does libseccomp.
 */
function addRule(
  verdicts: Map<number, Verdict>,
  number: number,
  rule: { conditions: readonly Condition[]; ret: number },
  defaultReturn: number,
): void {
  const present = verdicts.get(number);
  if (present && present.when.length === 0) return;
  if (rule.conditions.length === 0) verdicts.set(number, { ret: rule.ret, when: [] });
  else verdicts.set(number, { ret: defaultReturn, when: [...(present?.when ?? []), rule] });
}

/** A default that lets calls through, or leaves them to a tracer who knows new calls better than the profile. */
function permissive(ret: number): boolean {
  const action = (ret & 0xffff_0000) >>> 0;
  return action === RET_ALLOW || action === RET_LOG || action === RET_TRACE;
}

/** Verdicts by number as ranges without holes, neighbours with the same unconditional answer joined. */
function rangesOf(section: Section): Range[] {
  const fallback = section.verdicts.get(-1) as Verdict;
  const ranges: Range[] = [];
  const push = (from: number, verdict: Verdict): void => {
    const last = ranges.at(-1);
    const same = last && last.verdict.when.length + verdict.when.length === 0 && last.verdict.ret === verdict.ret;
    if (!same) ranges.push({ from, verdict });
  };
  const numbers = [...section.verdicts.keys()].filter((n) => n >= 0).sort((a, b) => a - b);
  let next = 0;
  for (const number of numbers) {
    if (number > next) push(next, fallback);
    push(number, section.verdicts.get(number) as Verdict);
    next = number + 1;
  }
  if (next <= section.newest) push(next, fallback);
  if (section.newest !== Number.POSITIVE_INFINITY)
    push(section.newest + 1, { ret: (RET_ERRNO | ENOSYS) >>> 0, when: [] });
  return ranges;
}

// -- write

function writeArch(writer: BackwardWriter, section: Section, x32: Section | undefined, badArch: Label): Label {
  const own = writeSearch(writer, rangesOf(section));
  if (section.arch !== 'x86_64') return writer.load(DATA_NR, own);
  const above = x32 ? writeSearch(writer, shifted(rangesOf(x32))) : badArch;
  return writer.load(DATA_NR, writer.test('ge', X32_BIT, above, own));
}

function shifted(ranges: readonly Range[]): Range[] {
  return ranges.map((range) => ({ ...range, from: range.from + X32_BIT }));
}

function writeSearch(writer: BackwardWriter, ranges: readonly Range[]): Label {
  const middle = ranges.length >> 1;
  const pivot = ranges[middle];
  if (!pivot || middle === 0) return writeVerdict(writer, (ranges[0] as Range).verdict);
  const high = writeSearch(writer, ranges.slice(middle));
  const low = writeSearch(writer, ranges.slice(0, middle));
  return writer.test('ge', pivot.from, high, low);
}

function writeVerdict(writer: BackwardWriter, verdict: Verdict): Label {
  let no = writer.ret(verdict.ret);
  for (const { conditions, ret } of [...verdict.when].reverse()) {
    let yes = writer.ret(ret);
    for (const condition of [...conditions].reverse()) yes = writeCondition(writer, condition, yes, no);
    no = yes;
  }
  return no;
}

/** 64-bit comparison out of two 32-bit ones, high word first. */
function writeCondition(w: BackwardWriter, c: Condition, yes: Label, no: Label): Label {
  switch (c.op) {
    case 'SCMP_CMP_EQ':
    case 'SCMP_CMP_MASKED_EQ':
      return writeEqual(w, c, yes, no);
    case 'SCMP_CMP_NE':
      return writeEqual(w, c, no, yes);
    case 'SCMP_CMP_GT':
      return writeOrder(w, c, 'gt', yes, no);
    case 'SCMP_CMP_GE':
      return writeOrder(w, c, 'ge', yes, no);
    case 'SCMP_CMP_LE':
      return writeOrder(w, c, 'gt', no, yes);
    case 'SCMP_CMP_LT':
      return writeOrder(w, c, 'ge', no, yes);
  }
}

function writeEqual(w: BackwardWriter, c: Condition, yes: Label, no: Label): Label {
  const low = writeWord(w, dataLow(c.index), lowWord(c.mask), lowWord(c.value), yes, no);
  return writeWord(w, dataHigh(c.index), highWord(c.mask), highWord(c.value), low, no);
}

function writeWord(w: BackwardWriter, offset: number, mask: number, value: number, yes: Label, no: Label): Label {
  if (mask === 0) return yes;
  const test = w.test('eq', (value & mask) >>> 0, yes, no);
  return w.load(offset, mask === 0xffff_ffff ? test : w.and(mask, test));
}

function writeOrder(w: BackwardWriter, c: Condition, test: 'gt' | 'ge', yes: Label, no: Label): Label {
  const low = w.load(dataLow(c.index), w.test(test, lowWord(c.value), yes, no));
  if (highWord(c.mask) === 0) return low;
  const equal = w.test('eq', highWord(c.value), low, no);
  return w.load(dataHigh(c.index), w.test('gt', highWord(c.value), yes, equal));
}

function lowWord(value: bigint): number {
  return Number(value & 0xffff_ffffn);
}

function highWord(value: bigint): number {
  return Number(value >> 32n);
}
