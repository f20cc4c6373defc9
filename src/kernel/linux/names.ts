import { UnknownKernelName } from '#kernel/errors.ts';
import { CAPABILITY_NAMES, ERRNO_NUMBERS, SIGNAL_NUMBERS } from '#kernel/linux/numbers.gen.ts';

// Names and numbers of the kernel's small sets. The texts in *.gen.ts are split when first asked for: most commands need
// none of them.

const words = (text: string): readonly string[] => text.split(/\s+/);
const lazy = <T>(make: () => T): (() => T) => {
  let made: T | undefined;
  return () => (made ??= make());
};
const numberTable = (text: string): ReadonlyMap<string, number> =>
  new Map(words(text).map((word) => [word.slice(0, word.indexOf('=')), Number(word.slice(word.indexOf('=') + 1))]));
/** The first name of each number: SIGABRT, not SIGIOT. */
const firstNames = (table: ReadonlyMap<string, number>): ReadonlyMap<number, string> =>
  new Map([...table].reverse().map(([name, number]) => [number, name]));

// -- capabilities

/** All capabilities this code knows, in the order of their bits: `CAPABILITIES()[21]` is `CAP_SYS_ADMIN`. */
export const CAPABILITIES = lazy(() => words(CAPABILITY_NAMES));

/** The bit set of capability names (`CAP_CHOWN`, also `chown`); a name the tables lack is an error. */
export function capabilityMask(names: readonly string[]): bigint {
  let mask = 0n;
  for (const name of names) mask |= 1n << BigInt(capabilityNumber(name));
  return mask;
}

export function capabilityNumber(name: string): number {
  const upper = name.toUpperCase();
  const number = CAPABILITIES().indexOf(upper.startsWith('CAP_') ? upper : `CAP_${upper}`);
  if (number < 0) throw new UnknownKernelName({ kind: 'capability', name, hint: 'see capabilities(7)' });
  return number;
}

/** The names of a bit set, lowest bit first. Bits the tables lack print as `CAP_n`, so that nothing set stays unseen. */
export function capabilityNames(mask: bigint): string[] {
  const names: string[] = [];
  for (let bit = 0; bit < 64; bit++) if ((mask >> BigInt(bit)) & 1n) names.push(CAPABILITIES()[bit] ?? `CAP_${bit}`);
  return names;
}

// -- signals

const signals = lazy(() => numberTable(SIGNAL_NUMBERS));
const signalNames = lazy(() => firstNames(signals()));
/** glibc and musl keep the first real-time signals for themselves; programs count from 34 (signal(7)). */
const SIGRTMIN = 34;
const SIGRTMAX = 64;

/** `TERM`, `SIGTERM`, `15`, `RTMIN+3`, `RTMAX-1` as kill(1) takes them. */
export function signalNumber(text: string): number {
  const number = /^\d+$/.test(text) ? Number(text) : namedSignal(text.toUpperCase().replace(/^SIG/, ''));
  if (number === undefined || number > SIGRTMAX)
    throw new UnknownKernelName({ kind: 'signal', name: text, hint: 'use a name such as TERM or a number up to 64' });
  return number;
}

function namedSignal(name: string): number | undefined {
  const realTime = /^RT(MIN|MAX)(?:([+-])(\d+))?$/.exec(name);
  if (!realTime) return signals().get(`SIG${name}`);
  const offset = Number(`${realTime[2] ?? '+'}${realTime[3] ?? 0}`);
  const number = (realTime[1] === 'MIN' ? SIGRTMIN : SIGRTMAX) + offset;
  return number >= SIGRTMIN && number <= SIGRTMAX ? number : undefined;
}

export function signalName(number: number): string {
  if (number >= SIGRTMIN && number <= SIGRTMAX)
    return number === SIGRTMIN ? 'SIGRTMIN' : `SIGRTMIN+${number - SIGRTMIN}`;
  return signalNames().get(number) ?? String(number);
}

// -- errno

const errnos = lazy(() => numberTable(ERRNO_NUMBERS));
const errnoNames = lazy(() => firstNames(errnos()));

/** `ENOENT` for 2; the number itself when the tables lack it. */
export function errnoName(number: number): string {
  return errnoNames().get(number) ?? `errno ${number}`;
}

// -- resource limits (asm-generic/resource.h; the same on every architecture we know)

export const RLIMITS = [
  'RLIMIT_CPU',
  'RLIMIT_FSIZE',
  'RLIMIT_DATA',
  'RLIMIT_STACK',
  'RLIMIT_CORE',
  'RLIMIT_RSS',
  'RLIMIT_NPROC',
  'RLIMIT_NOFILE',
  'RLIMIT_MEMLOCK',
  'RLIMIT_AS',
  'RLIMIT_LOCKS',
  'RLIMIT_SIGPENDING',
  'RLIMIT_MSGQUEUE',
  'RLIMIT_NICE',
  'RLIMIT_RTPRIO',
  'RLIMIT_RTTIME',
] as const;
export const RLIM_INFINITY = 0xffff_ffff_ffff_ffffn;

/** `RLIMIT_NOFILE`, also `nofile`. */
export function rlimitNumber(name: string): number {
  const upper = name.toUpperCase();
  const number = (RLIMITS as readonly string[]).indexOf(upper.startsWith('RLIMIT_') ? upper : `RLIMIT_${upper}`);
  if (number < 0) throw new UnknownKernelName({ kind: 'resource limit', name, hint: `one of ${RLIMITS.join(', ')}` });
  return number;
}
