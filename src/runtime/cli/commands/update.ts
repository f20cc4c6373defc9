import { posix } from 'node:path';
import { planUpdate } from '#kernel/cgroup/plan.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import { O_CREAT, O_TRUNC, O_WRONLY, utf8 } from '#runtime/builder.ts';
import type { Command, Outcome } from '#runtime/cli/context.ts';
import { BadUsage, type FlagValues, text } from '#runtime/cli/flags.ts';
import { locked } from '#runtime/cli/identity.ts';
import { carryOut, showPlan, wrongState } from '#runtime/cli/plans.ts';
import { Unsupported } from '#runtime/errors.ts';
import { type ContainerRecord, paths } from '#runtime/state.ts';
import { loadContainer } from '#runtime/store.ts';
import { type Int64, parseJson, stringifyJson } from '#spec/oci/json.ts';
import { type LinuxResources, Resources } from '#spec/oci/linux.ts';

/** Changes the limits of a running container, and its record, so that a later update starts from what holds. */
export async function update(c: Command): Promise<Outcome> {
  const [id = ''] = c.args;
  loadContainer(c.root, id, c.files);
  if (c.plan !== 'run') return showPlan(c, await planFor(c, id));
  return await locked(c, id, async () => {
    await carryOut(c, 'update', await planFor(c, id));
    return 0;
  });
}

async function planFor(c: Command, id: string): Promise<Plan> {
  const { record, config, status } = loadContainer(c.root, id, c.files);
  if (status === 'stopped') throw wrongState(id, 'cannot update a container that has stopped');
  const file = text(c.flags, 'resources');
  const wished = file === undefined ? fromFlags(c.flags) : await fromFile(c, file);
  const { source } = wished;
  const resources = withMemoryPair(wished.resources, config.linux?.resources);
  const steps = planUpdate(record.cgroups, resources, c.files, source);
  const merged = mergeResources(config.linux?.resources ?? {}, resources);
  const changed: ContainerRecord = { ...record, config: { ...config, linux: { ...config.linux, resources: merged } } };
  return { steps: [...steps, ...writeRecord(c.root, id, changed)] };
}

/** Written aside and renamed: whoever reads meanwhile sees the one or the other. */
function writeRecord(root: string, id: string, record: ContainerRecord): Plan['steps'] {
  const { record: to } = paths(root, id);
  const from = `${to}.new`;
  const data = utf8(stringifyJson(record));
  const because = 'default';
  return [
    { op: 'write', path: from, data, flags: O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600, where: 'host', because },
    { op: 'renameFile', from, to, where: 'host', because },
  ];
}

/** What is not said stays; a 0 in the file means "not said", as runc's own format has it. */
async function fromFile(c: Command, file: string): Promise<{ resources: LinuxResources; source: string }> {
  const source = file === '-' ? await c.readStdin() : await c.readFile(posix.resolve(c.cwd, file));
  return { resources: Resources(parseJson(source), '$'), source: '$' };
}

type Setter = (resources: LinuxResources, value: Int64, words: string) => void;
const cpu =
  (key: keyof NonNullable<LinuxResources['cpu']>): Setter =>
  (r, value) => {
    r.cpu = { ...r.cpu, [key]: value };
  };
const memory =
  (key: keyof NonNullable<LinuxResources['memory']>): Setter =>
  (r, value) => {
    r.memory = { ...r.memory, [key]: value };
  };

const NUMBER_FLAGS: Readonly<Record<string, Setter>> = {
  'blkio-weight': (r, value) => {
    r.blockIO = { ...r.blockIO, weight: Number(value) };
  },
  'cpu-period': cpu('period'),
  'cpu-quota': cpu('quota'),
  'cpu-burst': cpu('burst'),
  'cpu-share': cpu('shares'),
  'cpu-rt-period': cpu('realtimePeriod'),
  'cpu-rt-runtime': cpu('realtimeRuntime'),
  'cpu-idle': cpu('idle'),
  memory: memory('limit'),
  'memory-reservation': memory('reservation'),
  'memory-swap': memory('swap'),
  'kernel-memory-tcp': memory('kernelTCP'),
  'pids-limit': (r, value) => {
    r.pids = { limit: value };
  },
};

const BINARY_UNITS = 'kmgtp';

/** A number; for memory also `50M` or `1.5GiB`, binary whichever way it is written, as Docker counts. */
function sizeOf(words: string, flag: string): bigint | undefined {
  if (/^-?\d+$/.test(words)) return BigInt(words);
  const size = /^(\d+(?:\.\d+)?) ?([kmgtp])?i?b?$/i.exec(words);
  if (!size || !flag.includes('memory')) return undefined;
  const power = size[2] === undefined ? 0 : BINARY_UNITS.indexOf(size[2].toLowerCase()) + 1;
  return BigInt(Math.trunc(Number(size[1]) * 1024 ** power));
}

function fromFlags(flags: FlagValues): { resources: LinuxResources; source: string } {
  const resources: LinuxResources = {};
  for (const [name, set] of Object.entries(NUMBER_FLAGS)) {
    const words = text(flags, name);
    if (words === undefined || words === '') continue;
    const big = sizeOf(words, name);
    if (big === undefined) throw new BadUsage({ message: `invalid value for ${name}: ${words}`, command: 'update' });
    set(resources, Number.isSafeInteger(Number(big)) ? Number(big) : big, words);
  }
  for (const [name, key] of [
    ['cpuset-cpus', 'cpus'],
    ['cpuset-mems', 'mems'],
  ] as const) {
    const words = text(flags, name);
    if (words) resources.cpu = { ...resources.cpu, [key]: words };
  }
  for (const name of ['l3-cache-schema', 'mem-bw-schema'])
    if (text(flags, name)) throw new Unsupported({ path: `--${name}`, what: 'Intel RDT is not built in' });
  return { resources: Resources(resources, 'flags'), source: 'flags' };
}

/** v1 refuses a memory limit above memory+swap and the other way round: the one that is not said is the one that holds. */
function withMemoryPair(wished: LinuxResources, now: LinuxResources | undefined): LinuxResources {
  const memory = wished.memory;
  if (!memory) return wished;
  const { limit, swap } = memory;
  // -1 for the limit alone lifts both, as runc does.
  if (limit !== undefined && BigInt(limit) === -1n && swap === undefined)
    return { ...wished, memory: { ...memory, swap: -1 } };
  if (swap !== undefined && limit === undefined && now?.memory?.limit !== undefined && BigInt(swap) !== 0n)
    return { ...wished, memory: { ...memory, limit: now.memory.limit } };
  return wished;
}

function mergeResources(now: LinuxResources, wished: LinuxResources): LinuxResources {
  const memory = { ...now.memory, ...wished.memory };
  return {
    ...now,
    ...wished,
    cpu: { ...now.cpu, ...wished.cpu },
    memory,
    blockIO: { ...now.blockIO, ...wished.blockIO },
  };
}
