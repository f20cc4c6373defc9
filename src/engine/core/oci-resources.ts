import { fail } from '#base/shape.ts';
import type { OciInputs } from '#engine/core/oci.ts';
import type { DeviceRate, ResourceSpec } from '#engine/core/spec.ts';
import { RLIMITS } from '#kernel/linux/names.ts';
import type { LinuxDeviceRule, LinuxResources } from '#spec/oci/linux.ts';

/** `linux.resources` of config.json. What is not wished stays away, so that the kernel's own default holds. */
export function ociResources({ spec, host, devices }: Pick<OciInputs, 'spec' | 'host' | 'devices'>): LinuxResources {
  return { ...limits(spec.resources, host.deviceNumbers), devices: deviceRules(spec, devices) };
}

/** Also what `docker update` sends: the same wish, without devices. */
export function limits(
  wish: ResourceSpec,
  deviceNumbers: (path: string) => { major: number; minor: number },
): LinuxResources {
  const memory = defined({
    limit: wish.memoryBytes,
    reservation: wish.memoryReservationBytes,
    // Docker: memory without a swap limit means as much swap as memory.
    swap: wish.memorySwapBytes ?? (wish.memoryBytes === undefined ? undefined : wish.memoryBytes * 2),
    swappiness: wish.memorySwappiness,
    disableOOMKiller: wish.oomKillDisable || undefined,
  });
  const cpu = defined({
    shares: wish.cpuShares,
    ...cpuTime(wish),
    realtimePeriod: wish.cpuRealtimePeriodUs,
    realtimeRuntime: wish.cpuRealtimeRuntimeUs,
    cpus: wish.cpusetCpus,
    mems: wish.cpusetMems,
  });
  const rates = (list: readonly DeviceRate[]): object[] | undefined =>
    list.length === 0 ? undefined : list.map((d) => ({ ...deviceNumbers(d.path), rate: d.rate }));
  const blockIO = defined({
    weight: wish.blkioWeight,
    weightDevice:
      wish.blkioWeightDevices.length === 0
        ? undefined
        : wish.blkioWeightDevices.map((d) => ({ ...deviceNumbers(d.path), weight: d.weight })),
    throttleReadBpsDevice: rates(wish.readBps),
    throttleWriteBpsDevice: rates(wish.writeBps),
    throttleReadIOPSDevice: rates(wish.readIops),
    throttleWriteIOPSDevice: rates(wish.writeIops),
  });
  return defined({
    memory,
    cpu,
    blockIO,
    pids: wish.pids === undefined ? undefined : { limit: wish.pids },
    hugepageLimits:
      wish.hugepages.length === 0 ? undefined : wish.hugepages.map((h) => ({ pageSize: h.pageSize, limit: h.bytes })),
  }) as LinuxResources;
}

const CPU_PERIOD_US = 100_000;

/** `--cpus 1.5` is a quota of 150 ms every 100 ms. */
function cpuTime(wish: ResourceSpec): { quota: number | undefined; period: number | undefined } {
  if (!wish.nanoCpus) return { quota: wish.cpuQuotaUs, period: wish.cpuPeriodUs };
  return { quota: Math.floor((wish.nanoCpus * CPU_PERIOD_US) / 1e9), period: CPU_PERIOD_US };
}

/** All is denied, then what every container may have, then what this one asked for. The last rule that fits decides. */
function deviceRules(spec: OciInputs['spec'], devices: OciInputs['devices']): LinuxDeviceRule[] {
  if (spec.security.privileged) return [{ allow: true, access: 'rwm' }];
  const wished = devices.map((device): LinuxDeviceRule => {
    const access = spec.devices.find((d) => d.path === device.path)?.access ?? 'rwm';
    return { allow: true, type: device.type, major: device.major ?? -1, minor: device.minor ?? -1, access };
  });
  return [
    { allow: false, access: 'rwm' },
    // Making nodes is harmless: opening them is what the other rules are about.
    { allow: true, type: 'c', access: 'm' },
    { allow: true, type: 'b', access: 'm' },
    ...wished,
    ...spec.deviceRules.map((text, i) => parseDeviceRule(text, `HostConfig.DeviceCgroupRules[${i}]`)),
  ];
}

/** `nofile`: whether setrlimit(2) knows the limit. */
export function isUlimit(name: string): boolean {
  return (RLIMITS as readonly string[]).includes(`RLIMIT_${name.toUpperCase()}`);
}

const DEVICE_RULE = /^([acb]) (\d+|\*):(\d+|\*) ([rwm]{1,3})$/;

/** `c 13:* rwm`, as the kernel's devices.allow takes it. */
export function parseDeviceRule(text: string, path: string): LinuxDeviceRule {
  const [, type = '', major = '', minor = '', access = ''] = DEVICE_RULE.exec(text) ?? [];
  if (type === '') return fail(path, text, 'is no device rule such as "c 13:* rwm"');
  const number = (part: string): number => (part === '*' ? -1 : Number(part));
  return { allow: true, type: type as 'a' | 'b' | 'c', major: number(major), minor: number(minor), access };
}

/** Without keys that are undefined, and undefined itself when nothing is left. */
function defined<T extends object>(value: T): { [K in keyof T]?: Exclude<T[K], undefined> } | undefined {
  const entries = Object.entries(value).filter(([, v]) => v !== undefined);
  return entries.length === 0
    ? undefined
    : (Object.fromEntries(entries) as { [K in keyof T]?: Exclude<T[K], undefined> });
}
