import { SYSCALL_TABLES } from '#kernel/linux/syscalls.gen.ts';

export type Arch = keyof typeof SYSCALL_TABLES;

/** AUDIT_ARCH_* (linux/audit.h): what seccomp_data.arch holds. x32 reports x86_64 and sets bit 30 of the number. */
export const AUDIT_ARCH: Readonly<Record<Arch, number>> = {
  x86_64: 0xc000_003e,
  x32: 0xc000_003e,
  i386: 0x4000_0003,
  aarch64: 0xc000_00b7,
  arm: 0x4000_0028,
  riscv64: 0xc000_00f3,
};
export const X32_BIT = 0x4000_0000;

const parsed = new Map<Arch, ReadonlyMap<string, number>>();

/** Name → number. x32's numbers come without X32_BIT. Parsed once an architecture: what is kept is a constant. */
export function syscalls(arch: Arch): ReadonlyMap<string, number> {
  const present = parsed.get(arch);
  if (present) return present;
  const table = parse(SYSCALL_TABLES[arch]);
  parsed.set(arch, table);
  return table;
}

function parse(text: string): Map<string, number> {
  const table = new Map<string, number>();
  let next = 0;
  for (const word of text.split(/\s+/)) {
    if (word.startsWith('=')) next = Number(word.slice(1));
    else table.set(word, next++);
  }
  return table;
}

/** The name of a call as the kernel of `arch` numbers it, for logs and the X-ray. */
export function syscallName(arch: Arch, number: number): string | undefined {
  for (const [name, n] of syscalls(arch)) if (n === number) return name;
  return undefined;
}

/** What `process.arch` of Node stands for, or undefined where there are no tables. */
export function archOfNode(nodeArch: string): Arch | undefined {
  const names: Partial<Record<string, Arch>> = {
    x64: 'x86_64',
    arm64: 'aarch64',
    ia32: 'i386',
    arm: 'arm',
    riscv64: 'riscv64',
  };
  return names[nodeArch];
}
