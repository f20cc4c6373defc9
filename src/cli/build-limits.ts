import { defineError } from '#base/errors.ts';
import { parseSizeBytes } from '#base/units.ts';
import { ulimitOf } from '#cli/commands/create-body.ts';
import { type BuildLimits, buildLimits } from '#spec/estiba/build.ts';

const Refused = defineError('BUILD_FLAG', (d: { flag: string; why: string }) => ({ message: `${d.flag}: ${d.why}` }));

/** Flags that set bounds to the commands of a build, as `docker build` names them. */
export const LIMIT_OPTIONS = {
  memory: { type: 'string', short: 'm' },
  'memory-swap': { type: 'string' },
  'cpu-shares': { type: 'string', short: 'c' },
  'cpu-period': { type: 'string' },
  'cpu-quota': { type: 'string' },
  'cpuset-cpus': { type: 'string' },
  'cpuset-mems': { type: 'string' },
  'cgroup-parent': { type: 'string' },
  'shm-size': { type: 'string' },
  ulimit: { type: 'string', multiple: true },
} as const;

/** Flags of `docker build` and buildx that are not for this builder: what they would do is told, and not ignored. */
const REFUSED = {
  'cache-to': 'the cache is not exported; it stays in the daemon, for every build there',
  provenance: 'attestations are not made',
  sbom: 'attestations are not made',
  attest: 'attestations are not made',
  annotation: 'manifests are not annotated; --label says the same in the configuration',
  'security-opt': 'commands run with the default profile',
  builder: 'there is one builder, the daemon that -H or --run-root names',
  push: 'estiba push NAME sends the result',
  call: 'only --check is there',
} as const;

/** What asks for nothing that would not be so anyway: said, and the build goes on. */
const NEEDLESS = {
  'cache-from': 'steps are found by what they do and take, whatever image has them',
  compress: 'only files that changed are sent, and to a daemon nearby they are not packed',
  load: 'the result is where containers are run',
  rm: 'no intermediate containers are left',
  'force-rm': 'no intermediate containers are left',
  'disable-content-trust': 'signatures are not looked at',
} as const;

export const OTHER_OPTIONS = {
  'cache-to': { type: 'string', multiple: true },
  provenance: { type: 'string' },
  sbom: { type: 'string' },
  attest: { type: 'string', multiple: true },
  annotation: { type: 'string', multiple: true },
  'security-opt': { type: 'string', multiple: true },
  builder: { type: 'string' },
  push: { type: 'boolean' },
  call: { type: 'string' },
  isolation: { type: 'string' },
  'cache-from': { type: 'string', multiple: true },
  compress: { type: 'boolean' },
  load: { type: 'boolean' },
  rm: { type: 'boolean' },
  'force-rm': { type: 'boolean' },
  'disable-content-trust': { type: 'boolean' },
} as const;

type Values = Readonly<Record<string, string | boolean | (string | boolean)[] | undefined>>;

/** Refuses what this builder does not do; answers the notes about what it need not be told. */
export function heedOther(values: Values): string[] {
  for (const [flag, why] of Object.entries(REFUSED)) {
    const value = values[flag];
    const isOff = value === undefined || value === 'false' || value === false;
    if (!isOff) throw new Refused({ flag: `--${flag}`, why });
  }
  const isolation = values['isolation'] ?? 'default';
  if (isolation !== 'default' && isolation !== '')
    throw new Refused({ flag: `--isolation ${String(isolation)}`, why: 'Linux has one kind: default' });
  return Object.entries(NEEDLESS).flatMap(([flag, why]) =>
    values[flag] ? [`--${flag} changes nothing: ${why}\n`] : [],
  );
}

export function limitsOf(values: Values): BuildLimits {
  const text = (flag: string): string | undefined => values[flag] as string | undefined;
  const wish = {
    memoryBytes: bytesOf('memory', text('memory')),
    memorySwapBytes: text('memory-swap') === '-1' ? -1 : bytesOf('memory-swap', text('memory-swap')),
    cpuShares: numberOf('cpu-shares', text('cpu-shares')),
    cpuPeriodUs: numberOf('cpu-period', text('cpu-period')),
    cpuQuotaUs: numberOf('cpu-quota', text('cpu-quota')),
    cpusetCpus: text('cpuset-cpus'),
    cpusetMems: text('cpuset-mems'),
    cgroupParent: text('cgroup-parent'),
    shmBytes: bytesOf('shm-size', text('shm-size')),
    ulimits: ((values['ulimit'] ?? []) as string[]).map(ulimitOf).map(({ Name, Soft, Hard }) => ({
      name: Name,
      soft: Soft,
      hard: Hard,
    })),
  };
  return buildLimits(wish, 'flags');
}

function bytesOf(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const bytes = parseSizeBytes(text);
  if (bytes === undefined) throw new Refused({ flag: `--${flag} ${text}`, why: 'is no size: write 512m or 2g' });
  return bytes;
}

function numberOf(flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^-?\d{1,9}$/.test(text)) throw new Refused({ flag: `--${flag} ${text}`, why: 'is no whole number' });
  return Number(text);
}
