import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { OciConfig } from '#spec/oci/config.ts';
import { type Bundle, makeBundle } from './bundle.ts';

// config-linux.md, "Network Devices". A network namespace of the test's own plays the host: its links are nobody else's. Nor are the
// names in /run/netns: for a veth whose peer is elsewhere (as long as the container's namespace takes to go) `ip` looks there for the
// peer's, and a name that was made after our mount namespace, or is left over, is a plain file to it: "Peer netns reference is invalid".

const OCI = fileURLToPath(new URL('../../bin/estiba-oci', import.meta.url));
const ID = `estiba-netdev-${process.pid}`;
const LINKS = `
  mount -t tmpfs tmpfs /run
  ip link set lo up
  ip link add host0 type veth peer name other0
  ip address add 10.77.0.1/24 dev host0
  ip address add fd77::1/64 dev host0 nodad
  ip address add 10.77.1.1/24 dev host0 valid_lft 60 preferred_lft 60
  ip link set host0 mtu 1400 up
  ip link set other0 up`;

let bundle: Bundle;
beforeEach(() => {
  bundle = makeBundle('netdev');
});
afterEach(() => bundle[Symbol.dispose]());

/** Runs a container on that host, then `after` there. */
function run(
  netDevices: NonNullable<OciConfig['linux']>['netDevices'],
  { before = '', after = '', change }: { before?: string; after?: string; change?: (config: OciConfig) => void } = {},
): { code: number | null; out: string; err: string } {
  const args = ['sh', '-c', 'ip -o address show; ip -o link show'];
  bundle.write(
    bundle.config((config) => {
      if (config.process) Object.assign(config.process, { args });
      if (config.linux && netDevices) config.linux.netDevices = netDevices;
      change?.(config);
    }),
  );
  const oci = `${OCI} --root ${join(bundle.dir, 'state')} run --bundle ${bundle.dir} ${ID}`;
  const script = `set -e; ${LINKS}\n${before}\ncode=0; ${oci} || code=$?; echo; echo HOST; ${after || 'ip -o link show'}; exit $code`;
  const { status, stdout, stderr } = spawnSync('unshare', ['--net', '--mount', 'sh', '-c', script], {
    encoding: 'utf8',
  });
  return { code: status, out: stdout, err: stderr };
}

describe('network devices', () => {
  it('move into the container with their lasting addresses and their MTU, under a new name, and are up', () => {
    const { code, out, err } = run({ host0: { name: 'inside0' } });
    expect({ code, err }).toEqual({ code: 0, err: '' });
    const [inside = '', host = ''] = out.split('HOST');
    expect(inside).toMatch(/inside0\s+inet 10\.77\.0\.1\/24/);
    expect(inside).toMatch(/inside0\s+inet6 fd77::1\/64/);
    expect(inside).not.toContain('10.77.1.1');
    expect(inside).toMatch(/inside0.*<[A-Z,_]*UP.* mtu 1400/);
    // Virtual devices die with the namespace they are in, and a veth takes its peer with it.
    expect(host).not.toMatch(/host0|inside0/);
  });

  it('take a number from the kernel for a template, and keep their name without a wish', () => {
    expect(run({ host0: { name: 'eth%d' } }).out).toMatch(/eth0\s+inet 10\.77\.0\.1/);
    expect(run({ host0: {} }).out).toMatch(/host0\s+inet 10\.77\.0\.1/);
  });

  it('are refused by path where they are not there, cannot be, or have nowhere to go, and stay as they were', () => {
    const refused = (result: ReturnType<typeof run>, words: string): void => {
      expect({ code: result.code, err: result.err }).toMatchObject({ code: 1, err: expect.stringContaining(words) });
      expect(result.out.split('HOST')[1]).toContain('host0');
    };
    refused(run({ nonesuch0: {} }), '$.linux.netDevices.nonesuch0');
    refused(run({ lo: {} }), 'which every network namespace has of its own');
    refused(run({ host0: { name: 'lo' } }), 'exists in the container already');
    const shared = (config: OciConfig): void => {
      if (config.linux) config.linux.namespaces = config.linux.namespaces?.filter((ns) => ns.type !== 'network') ?? [];
    };
    refused(run({ host0: {} }, { change: shared }), 'the container has no network namespace');
  });

  it('are refused where the namespace to join has the name, before anything moves', () => {
    const space = join(bundle.dir, 'netns');
    const before = `touch ${space}; unshare --net=${space} sh -c 'ip link add host0 type bridge'`;
    const join_ = (config: OciConfig): void => {
      const network = config.linux?.namespaces?.find((ns) => ns.type === 'network');
      if (network) network.path = space;
    };
    const after = `ip -o link show; nsenter --net=${space} ip -o link show; umount ${space}`;
    const taken = run({ host0: {} }, { before, after, change: join_ });
    expect(taken).toMatchObject({ code: 1, err: expect.stringContaining('exists in the container already') });
    expect(taken.out.split('HOST')[1]).toContain('host0@other0');
    const moved = run({ host0: { name: 'free0' } }, { before, after, change: join_ });
    expect({ code: moved.code, err: moved.err }).toEqual({ code: 0, err: '' });
    expect(moved.out).toMatch(/free0\s+inet 10\.77\.0\.1/);
    // The namespace outlives the container, and keeps what has been moved there.
    expect(moved.out.split('HOST')[1]).toContain('free0');
  });
});
