import type { DeviceRule } from '#kernel/cgroup/resources.ts';

/** A rule in one form: what is unset means all. */
export interface PlainDeviceRule {
  allow: boolean;
  type: 'a' | 'c' | 'b';
  major: number | '*';
  minor: number | '*';
  /** Bits of DEVICE_*. */
  access: number;
}

// bpf_cgroup_dev_ctx (linux/bpf.h): access_type = (access << 16) | type.
export const DEVICE_MKNOD = 1;
export const DEVICE_READ = 2;
export const DEVICE_WRITE = 4;
const DEVICE_BLOCK = 1;
const DEVICE_CHAR = 2;
const ALL_ACCESS = DEVICE_MKNOD | DEVICE_READ | DEVICE_WRITE;

const LETTERS: readonly (readonly [string, number])[] = [
  ['r', DEVICE_READ],
  ['w', DEVICE_WRITE],
  ['m', DEVICE_MKNOD],
];

/**
 * What every container may use, after its own rules (config-linux.md, "Default Devices"): nodes of any device may be
 * made, which gives no right to open them; the default devices and terminals may be used.
 */
export const DEFAULT_DEVICE_RULES: readonly DeviceRule[] = [
  { allow: true, type: 'c', access: 'm' },
  { allow: true, type: 'b', access: 'm' },
  { allow: true, type: 'c', major: 1, minor: 3, access: 'rwm' }, // null
  { allow: true, type: 'c', major: 1, minor: 5, access: 'rwm' }, // zero
  { allow: true, type: 'c', major: 1, minor: 7, access: 'rwm' }, // full
  { allow: true, type: 'c', major: 1, minor: 8, access: 'rwm' }, // random
  { allow: true, type: 'c', major: 1, minor: 9, access: 'rwm' }, // urandom
  { allow: true, type: 'c', major: 5, minor: 0, access: 'rwm' }, // tty
  { allow: true, type: 'c', major: 5, minor: 2, access: 'rwm' }, // ptmx
  { allow: true, type: 'c', major: 136, access: 'rwm' }, // terminals of devpts
];

export function plainRules(rules: readonly DeviceRule[]): PlainDeviceRule[] {
  return rules.flatMap((rule) => {
    if (rule.type === 'p') return []; // a FIFO is no device
    const type = rule.type === 'u' ? 'c' : rule.type || 'a';
    const all = (n: number | undefined): number | '*' => (n === undefined || n < 0 ? '*' : n);
    return [
      { allow: rule.allow, type, major: all(rule.major), minor: all(rule.minor), access: accessBits(rule.access) },
    ];
  });
}

function accessBits(access: string | undefined): number {
  if (!access) return ALL_ACCESS;
  return LETTERS.reduce((bits, [letter, bit]) => (access.includes(letter) ? bits | bit : bits), 0);
}

export interface DeviceLine {
  file: 'devices.allow' | 'devices.deny';
  value: string;
}

/**
 * v1: lines for devices.allow and devices.deny, in order. A new cgroup inherits its parent's list, so everything is taken
 * away first. The kernel knows no "a" with numbers: such a rule is written for both types.
 */
export function deviceLines(rules: readonly DeviceRule[]): DeviceLine[] {
  const lines = plainRules(rules).flatMap((rule): DeviceLine[] => {
    const file = rule.allow ? 'devices.allow' : 'devices.deny';
    if (isEverything(rule)) return [{ file, value: 'a' }];
    const letters = LETTERS.map(([letter, bit]) => (rule.access & bit ? letter : '')).join('');
    const types = rule.type === 'a' ? ['c', 'b'] : [rule.type];
    return types.map((type) => ({ file, value: `${type} ${rule.major}:${rule.minor} ${letters}` }));
  });
  const lastReset = lines.findLastIndex((line) => line.value === 'a');
  if (lastReset < 0) return withoutRepeats([{ file: 'devices.deny', value: 'a' }, ...lines]);
  const [reset, ...rest] = withoutRepeats(lines.slice(lastReset)) as [DeviceLine, ...DeviceLine[]];
  // What repeats the reset says nothing new, as long as nothing was taken from it.
  const firstChange = rest.findIndex((line) => line.file !== reset.file);
  return firstChange < 0 ? [reset] : [reset, ...rest.slice(firstChange)];
}

/** What was allowed already and not taken away since. */
function withoutRepeats(lines: readonly DeviceLine[]): DeviceLine[] {
  const allowed = new Set<string>();
  return lines.filter(({ file, value }) => {
    if (file === 'devices.deny') allowed.clear();
    else if (allowed.has(value)) return false;
    else allowed.add(value);
    return true;
  });
}

function isEverything(rule: PlainDeviceRule): boolean {
  return rule.type === 'a' && rule.major === '*' && rule.minor === '*' && rule.access === ALL_ACCESS;
}

// -- v2: an eBPF program

const REGISTER = { r0: 0, ctx: 1, type: 2, left: 3, major: 4, minor: 5, scratch: 6 } as const;
const LDX_W = 0x61;
const ALU_AND_K = 0x54;
const ALU_RSH_K = 0x74;
const ALU_MOV_X = 0xbc;
const ALU64_MOV_K = 0xb7;
const JNE_K = 0x55;
const JEQ_K = 0x15;
const EXIT = 0x95;
const INSTRUCTION_BYTES = 8;

/**
 * The rules as a BPF_PROG_TYPE_CGROUP_DEVICE program. It walks the rules from the last to the first and keeps the kinds
 * of access that nobody has decided yet: the last rule that names a device and a kind decides it, which is what "apply in
 * the listed order" comes to. So `allow r` and `allow w` together allow opening for both, and `deny m` after `allow rwm`
 * leaves rw. What no rule decides is denied.
 */
export function deviceProgram(rules: readonly DeviceRule[]): Uint8Array {
  const code: number[][] = [
    [LDX_W, REGISTER.type, REGISTER.ctx, 0, 0],
    [ALU_MOV_X, REGISTER.left, REGISTER.type, 0, 0],
    [ALU_AND_K, REGISTER.type, 0, 0, 0xffff],
    [ALU_RSH_K, REGISTER.left, 0, 0, 16],
    [LDX_W, REGISTER.major, REGISTER.ctx, 4, 0],
    [LDX_W, REGISTER.minor, REGISTER.ctx, 8, 0],
  ];
  for (const rule of plainRules(rules).reverse()) {
    const block = ruleBlock(rule);
    const tests = ruleTests(rule);
    // Each test skips what is left of the tests, and the block.
    tests.forEach(([register, value], i) => {
      code.push([JNE_K, register, 0, tests.length - 1 - i + block.length, value]);
    });
    code.push(...block);
    // Everything is decided from here on; what stands above in the list is never asked, and the verifier refuses
    // instructions that cannot be reached.
    if (tests.length === 0 && rule.access === ALL_ACCESS) return encode(code);
  }
  return encode([...code, [ALU64_MOV_K, REGISTER.r0, 0, 0, 0], [EXIT, 0, 0, 0, 0]]);
}

function ruleTests(rule: PlainDeviceRule): [register: number, value: number][] {
  return [
    ...(rule.type === 'a' ? [] : [[REGISTER.type, rule.type === 'b' ? DEVICE_BLOCK : DEVICE_CHAR] as [number, number]]),
    ...(rule.major === '*' ? [] : [[REGISTER.major, rule.major] as [number, number]]),
    ...(rule.minor === '*' ? [] : [[REGISTER.minor, rule.minor] as [number, number]]),
  ];
}

function ruleBlock(rule: PlainDeviceRule): number[][] {
  const answer = (value: 0 | 1): number[][] => [
    [ALU64_MOV_K, REGISTER.r0, 0, 0, value],
    [EXIT, 0, 0, 0, 0],
  ];
  if (rule.access === ALL_ACCESS) return answer(rule.allow ? 1 : 0);
  if (rule.allow)
    return [[ALU_AND_K, REGISTER.left, 0, 0, ALL_ACCESS & ~rule.access], [JNE_K, REGISTER.left, 0, 2, 0], ...answer(1)];
  return [
    [ALU_MOV_X, REGISTER.scratch, REGISTER.left, 0, 0],
    [ALU_AND_K, REGISTER.scratch, 0, 0, rule.access],
    [JEQ_K, REGISTER.scratch, 0, 2, 0],
    ...answer(0),
  ];
}

/** struct bpf_insn: opcode, dst:4 src:4, s16 offset, s32 immediate. */
function encode(code: readonly (readonly number[])[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(code.length * INSTRUCTION_BYTES));
  code.forEach(([opcode = 0, to = 0, from = 0, offset = 0, immediate = 0], i) => {
    view.setUint8(i * INSTRUCTION_BYTES, opcode);
    view.setUint8(i * INSTRUCTION_BYTES + 1, to | (from << 4));
    view.setInt16(i * INSTRUCTION_BYTES + 2, offset, true);
    view.setInt32(i * INSTRUCTION_BYTES + 4, immediate, true);
  });
  return new Uint8Array(view.buffer);
}
