import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseConfig, parseProcess } from '#spec/oci/config.ts';
import { parseFeatures } from '#spec/oci/features.ts';
import { parseJson, stringifyJson } from '#spec/oci/json.ts';
import { parseState } from '#spec/oci/state.ts';

const minimal = {
  ociVersion: '1.3.0',
  root: { path: 'rootfs' },
  process: { cwd: '/', args: ['true'], user: { uid: 0, gid: 0 } },
};

/** The minimal configuration with one thing changed, as text. */
function withChange(patch: object): string {
  return JSON.stringify(merge(structuredClone(minimal), patch));
}

function merge(into: unknown, patch: unknown): unknown {
  if (!isObject(into) || !isObject(patch)) return patch;
  for (const [key, value] of Object.entries(patch)) into[key] = merge(into[key], value);
  return into;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const newUser = { namespaces: [{ type: 'user' }] };
const map = { containerID: 0, hostID: 1000, size: 10 };

// One row per rule: the change, and what the error must say: path, value and rule.
const BAD: readonly [change: object, says: string][] = [
  [{ ociVersion: null }, '$.ociVersion: null is not a string'],
  [{ ociVersion: '1.0' }, '$.ociVersion: "1.0" is not a SemVer version such as 1.3.0'],
  [{ ociVersion: '2.0.0' }, '$.ociVersion: "2.0.0" is of a later major version than 1'],
  [{ root: null }, '$.root: is missing and is required on Linux'],
  [{ root: { path: '' } }, '$.root.path: "" must not be empty'],
  [{ root: { path: 'a\0b' } }, '$.root.path: "a\\u0000b" contains a NUL byte'],
  [{ process: { cwd: 'tmp' } }, '$.process.cwd: "tmp" must be an absolute path'],
  [{ process: { args: [] } }, '$.process.args: [] must have at least one entry'],
  [{ process: { args: [1] } }, '$.process.args[0]: 1 is not a string'],
  [{ process: { user: { uid: -1 } } }, '$.process.user.uid: -1 is not an integer between 0 and 4294967294'],
  [{ process: { oomScoreAdj: 1001 } }, '$.process.oomScoreAdj: 1001 is not an integer between -1000 and 1000'],
  [
    {
      process: {
        rlimits: [
          { type: 'RLIMIT_CPU', soft: 1, hard: 1 },
          { type: 'RLIMIT_CPU', soft: 1, hard: 1 },
        ],
      },
    },
    '$.process.rlimits[1].type: "RLIMIT_CPU" is there twice, first at $.process.rlimits[0]',
  ],
  [{ process: { rlimits: [{ type: 'RLIMIT_CPU', soft: 2, hard: 1 }] } }, '$.process.rlimits[0].soft: 2 is above hard'],
  [{ mounts: [{ source: 'x' }] }, '$.mounts[0].destination: is missing and is not a string'],
  [{ mounts: [{ destination: '/x', uidMappings: [map] }] }, '$.mounts[0].gidMappings: is missing and is required'],
  [{ hooks: { poststop: [{ path: 'x' }] } }, '$.hooks.poststop[0].path: "x" must be an absolute path'],
  [{ hooks: { prestart: [{ path: '/x', timeout: 0 }] } }, '$.hooks.prestart[0].timeout: 0 is not an integer between 1'],
  [{ hostname: 'web' }, '$.hostname: "web" needs a uts namespace'],
  [{ linux: { namespaces: [{ type: 'net' }] } }, '$.linux.namespaces[0].type: "net" is none of pid, network'],
  [{ linux: { namespaces: [{ type: 'pid', path: 'x' }] } }, '$.linux.namespaces[0].path: "x" must be an absolute path'],
  [{ linux: { namespaces: [{ type: 'pid' }, { type: 'pid' }] } }, '$.linux.namespaces[1].type: "pid" is there twice'],
  [{ linux: { uidMappings: [map] } }, '$.linux.uidMappings'],
  [{ linux: newUser }, '$.linux.uidMappings: is missing and is required for a new user namespace'],
  [{ linux: { ...newUser, uidMappings: [map, map] } }, '$.linux.uidMappings[1].containerID: 0 overlaps'],
  [{ linux: { ...newUser, uidMappings: [{ ...map, size: 0 }] } }, '$.linux.uidMappings[0].size: 0 is not an integer'],
  [{ linux: { timeOffsets: { monotonic: { secs: 1 } } } }, '$.linux.timeOffsets'],
  [{ linux: { devices: [{ type: 'c', path: '/dev/x', major: 1 }] } }, '$.linux.devices[0].minor: is missing'],
  [{ linux: { resources: { devices: [{ allow: true, access: 'x' }] } } }, '$.linux.resources.devices[0].access: "x"'],
  [{ linux: { resources: { unified: { '../x': '1' } } } }, '$.linux.resources.unified key: "../x" must be a file name'],
  [
    { linux: { resources: { hugepageLimits: [{ pageSize: '64kB', limit: 1 }] } } },
    '.pageSize: "64kB" is not a page size',
  ],
  [{ linux: { resources: { cpu: { cpus: '3-1' } } } }, '$.linux.resources.cpu.cpus: "3-1" has the range 3-1'],
  [
    { linux: { resources: { rdma: { mlx5_1: { hcaHandles: 'x' } } } } },
    '$.linux.resources.rdma.mlx5_1.hcaHandles: "x"',
  ],
  [{ linux: { netDevices: { eth0: { name: 23 } } } }, '$.linux.netDevices.eth0.name: 23 is not a string'],
  [{ linux: { seccomp: { defaultAction: 'ALLOW' } } }, '$.linux.seccomp.defaultAction: "ALLOW" is none of'],
  [
    { linux: { seccomp: { defaultAction: 'SCMP_ACT_ALLOW', listenerMetadata: 'x' } } },
    '$.linux.seccomp.listenerMetadata: "x" needs listenerPath',
  ],
  [{ linux: { maskedPaths: ['proc/kcore'] } }, '$.linux.maskedPaths[0]: "proc/kcore" must be an absolute path'],
  [{ linux: { personality: { domain: 'LINUX', flags: ['X'] } } }, '$.linux.personality.flags: ["X"] must be empty'],
  [{ linux: { memoryPolicy: { mode: 'MPOL_BIND' } } }, '$.linux.memoryPolicy.nodes: is missing and is required'],
  [{ linux: { intelRdt: { memBwSchema: 'L3:0=f' } } }, '$.linux.intelRdt.memBwSchema: "L3:0=f" must start with MB:'],
  [{ linux: { intelRdt: { closID: '../x' } } }, '$.linux.intelRdt.closID: "../x" must be "/" or one directory name'],
];

describe('config.json', () => {
  it.each(BAD)('refuses %j', (change, says) => {
    expect(() => parseConfig(withChange(change))).toThrow(says);
  });

  it('says where text stops being JSON', () => {
    expect(() => parseConfig('{"ociVersion":')).toThrow('$: "{\\"ociVersion\\":" is not JSON');
  });

  it('takes null for missing, as encoders in Go write it, and drops what it does not know', () => {
    const config = parseConfig(withChange({ mounts: null, annotations: null, solaris: { milestone: 'x' } }));
    expect(config).toEqual(minimal);
  });

  it('keeps an unlimited rlimit unlimited, where JSON.parse would round it', () => {
    const text = withChange({ process: { rlimits: [{ type: 'RLIMIT_CORE', soft: 0, hard: 'HARD' }] } });
    const config = parseConfig(text.replace('"HARD"', '18446744073709551615'));
    expect(config.process?.rlimits?.[0]?.hard).toBe(2n ** 64n - 1n);
  });

  it('refuses a process without a working directory in `exec --process` too', () => {
    expect(() => parseProcess('{"args":["sh"]}')).toThrow('$.cwd: is missing');
  });
});

describe('state and features', () => {
  it('reads the states of the specification and runc’s paused', () => {
    const state = { ociVersion: '1.3.0', id: 'a', status: 'paused', pid: 7, bundle: '/b', annotations: { k: 'v' } };
    expect(parseState(JSON.stringify(state))).toEqual(state);
    expect(() => parseState('{"ociVersion":"1.0.0","id":"a","status":"dead","bundle":"/"}')).toThrow(
      '$.status: "dead"',
    );
  });

  it('wants both versions in features', () => {
    expect(() => parseFeatures('{"ociVersionMin":"1.0.0"}')).toThrow('$.ociVersionMax: is missing');
  });
});

describe('JSON with 64-bit integers', () => {
  it('comes back as it went, whatever the numbers and strings', () => {
    const leaf = fc.oneof(
      fc.maxSafeInteger(),
      fc.string(),
      fc.bigInt({ min: 2n ** 53n, max: 2n ** 64n }),
      fc.boolean(),
    );
    const value = fc.dictionary(fc.string(), fc.array(leaf));
    fc.assert(
      fc.property(value, (v) => {
        expect(parseJson(stringifyJson(v))).toEqual({ ...v });
      }),
    );
  });

  it('does not take digits inside strings for numbers', () => {
    const text = '{"a":"\\"12345678901234567890,","b":12345678901234567890}';
    expect(parseJson(text)).toEqual({ a: '"12345678901234567890,', b: 12345678901234567890n });
  });
});
