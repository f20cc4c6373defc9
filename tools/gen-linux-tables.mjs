// Writes src/kernel/linux/*.gen.ts from the reference data: syscall numbers of five architectures (and x32, which is
// x86_64 with the differences below), capabilities, errno values, signals.
//
//   node tools/gen-linux-tables.mjs SPECS_DIR        SPECS_DIR holds linux/{syscalls,capabilities,errno-signals}.json
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const specs = process.argv[2];
if (!specs) throw new Error('usage: node tools/gen-linux-tables.mjs SPECS_DIR');
const read = (name) => JSON.parse(readFileSync(join(specs, 'linux', name), 'utf8'));
const out = (name) => new URL(`../src/kernel/linux/${name}`, import.meta.url);

// x32 shares x86_64's numbers, with bit 30 set. Calls whose structures hold pointers or longs have numbers of their own
// from 512 on, in this order (arch/x86/entry/syscalls/syscall_64.tbl, abi column "x32").
const X32_OWN = `rt_sigaction rt_sigreturn ioctl readv writev recvfrom sendmsg recvmsg execve ptrace rt_sigpending
  rt_sigtimedwait rt_sigqueueinfo sigaltstack timer_create mq_notify kexec_load waitid set_robust_list get_robust_list
  vmsplice move_pages preadv pwritev rt_tgsigqueueinfo recvmmsg sendmmsg process_vm_readv process_vm_writev setsockopt
  getsockopt io_setup io_submit execveat preadv2 pwritev2`.split(/\s+/);
// Calls of x86_64 that x32 never had (abi column "64").
const X32_NONE = `uselib _sysctl create_module get_kernel_syms query_module nfsservctl set_thread_area get_thread_area
  epoll_ctl_old epoll_wait_old vserver uprobe uretprobe map_shadow_stack`.split(/\s+/);
// 32-bit ARM's private calls (arch/arm/include/uapi/asm/unistd.h), which Go's tables leave out, and one of its names.
const ARM_OWN = {
  breakpoint: 0xf0001,
  cacheflush: 0xf0002,
  usr26: 0xf0003,
  usr32: 0xf0004,
  set_tls: 0xf0005,
  get_tls: 0xf0006,
};
const ARM_ALIASES = { sync_file_range2: 'arm_sync_file_range' };
// Not a call but a mask in Go's table for ARM.
const NOT_CALLS = new Set(['syscall_mask']);

const tables = read('syscalls.json').syscalls;
for (const table of Object.values(tables)) for (const name of NOT_CALLS) delete table[name];
Object.assign(tables.arm, ARM_OWN);
for (const [alias, name] of Object.entries(ARM_ALIASES)) tables.arm[alias] = tables.arm[name];
tables.x32 = Object.fromEntries([
  ...Object.entries(tables.x86_64).filter(([name]) => !X32_OWN.includes(name) && !X32_NONE.includes(name)),
  ...X32_OWN.map((name, i) => [name, 512 + i]),
]);

/** `name name =24 name …`: numbers count up from 0; `=n` sets the next one. */
function compact(table) {
  const words = [];
  let next = 0;
  for (const [name, number] of Object.entries(table).sort((a, b) => a[1] - b[1] || a[0].localeCompare(b[0]))) {
    if (number !== next) words.push(`=${number}`);
    words.push(name);
    next = number + 1;
  }
  return wrap(words);
}

function wrap(words) {
  const lines = [''];
  for (const word of words) {
    if (lines.at(-1).length + word.length > 116) lines.push('');
    lines[lines.length - 1] += (lines.at(-1) === '' ? '' : ' ') + word;
  }
  return lines.join('\n');
}

const head = (source) => `// Written by tools/gen-linux-tables.mjs from numbers alone (${source}). Do not edit.\n`;

writeFileSync(
  out('syscalls.gen.ts'),
  `${head('golang/sys, moby/profiles')}
/** Per architecture: names in the order of their numbers, which count up from 0; \`=n\` sets the next number. */
export const SYSCALL_TABLES = {\n${Object.entries(tables)
    .map(([arch, table]) => `  ${arch}: \`${compact(table)}\`,\n`)
    .join('')}} as const;
`,
);

const { capabilities } = read('capabilities.json');
const { errno, signals } = read('errno-signals.json');
const byNumber = Object.entries(capabilities).sort((a, b) => a[1] - b[1]);
byNumber.forEach(([name, number], i) => {
  if (number !== i) throw new Error(`hole before ${name}`);
});
const numbers = (table) =>
  wrap(
    Object.entries(table)
      .sort((a, b) => a[1] - b[1] || a[0].localeCompare(b[0]))
      .map(([name, number]) => `${name}=${number}`),
  );
writeFileSync(
  out('numbers.gen.ts'),
  `${head('moby/sys, golang/sys; errno and signals: x86_64, aarch64, i386, arm, riscv64')}
/** In the order of their bits: capability n is the n-th word. */
export const CAPABILITY_NAMES = \`${wrap(byNumber.map(([name]) => name))}\`;

/** \`name=number\`; several names may share a number. */
export const ERRNO_NUMBERS = \`${numbers(errno)}\`;

export const SIGNAL_NUMBERS = \`${numbers(signals)}\`;
`,
);
