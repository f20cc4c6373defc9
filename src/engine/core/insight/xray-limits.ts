import type { KernelView } from '#engine/core/insight/kernel-view.ts';
import { compared, type XrayLine } from '#engine/core/insight/xray-line.ts';
import type { ContainerRecord } from '#engine/core/record.ts';

/** Limits beside present use. */
export function limitLines({ spec, state }: ContainerRecord, kernel: KernelView | undefined): XrayLine[] {
  const { resources } = spec;
  const { memory, cpu, pids } = kernel?.use ?? {};
  const lines: XrayLine[] = [
    compared(
      { topic: 'limit.memory', because: resources.memoryBytes === undefined ? 'default' : '--memory' },
      bytes(resources.memoryBytes),
      memory && bytes(memory.limitBytes),
    ),
    compared(
      { topic: 'limit.pids', because: resources.pids === undefined ? 'default' : '--pids-limit' },
      count(resources.pids !== undefined && resources.pids > 0 ? resources.pids : undefined),
      pids && count(pids.limit),
    ),
    { topic: 'limit.cpu', value: cpuWish(resources), because: cpuFlag(resources) },
  ];
  if (resources.cpusetCpus || resources.cpusetMems) {
    const wished = resources.cpusetCpus ?? '';
    lines.push(compared({ topic: 'limit.cpuset', because: '--cpuset-cpus' }, wished, kernel?.status.cpusAllowed));
  }
  for (const { name, soft, hard } of spec.ulimits)
    lines.push({ topic: 'limit.ulimit', name, value: `${soft}, at most ${hard}`, because: '--ulimit' });
  lines.push({ topic: 'limit.shm', value: bytes(spec.shmBytes), because: '--shm-size, or its default' });
  if (memory)
    lines.push(
      use(
        'memory',
        `${bytes(memory.usageBytes)}, ${bytes(memory.inactiveFileBytes)} of it cache the kernel can take back`,
      ),
      ...(memory.maxBytes === undefined ? [] : [use('memory-peak', bytes(memory.maxBytes))]),
      ...(memory.failures > 0 ? [use('memory-limit-hits', String(memory.failures))] : []),
      ...(memory.oomKills > 0 ? [use('oom-kills', String(memory.oomKills))] : []),
    );
  if (cpu)
    lines.push(
      use('cpu', `${(cpu.usageNs / 1e9).toFixed(2)} s since ${new Date(state.startedAtMs).toISOString()}`),
      ...(cpu.throttledPeriods > 0
        ? [
            use(
              'cpu-throttled',
              `${cpu.throttledPeriods} of ${cpu.periods} periods, ${(cpu.throttledNs / 1e9).toFixed(2)} s`,
            ),
          ]
        : []),
    );
  if (pids) lines.push(use('pids', String(pids.current)));
  return lines;
}

function use(what: string, value: string): XrayLine {
  return { topic: `use.${what}`, value, because: 'its cgroup now' };
}

function cpuWish({ nanoCpus, cpuQuotaUs, cpuPeriodUs, cpuShares }: ContainerRecord['spec']['resources']): string {
  if (nanoCpus) return `${nanoCpus / 1e9} CPUs`;
  if (cpuQuotaUs !== undefined && cpuQuotaUs > 0) return `${cpuQuotaUs / (cpuPeriodUs ?? 100_000)} CPUs`;
  return cpuShares ? `no limit, ${cpuShares} shares when others want them too` : 'no limit';
}

function cpuFlag({ nanoCpus, cpuQuotaUs, cpuShares }: ContainerRecord['spec']['resources']): string {
  return nanoCpus ? '--cpus' : cpuQuotaUs ? '--cpu-quota' : cpuShares ? '--cpu-shares' : 'default';
}

export function bytes(value: number | undefined): string {
  if (value === undefined) return 'no limit';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let amount = value;
  let unit = 0;
  while (amount >= 1024 && unit < units.length - 1) {
    amount /= 1024;
    unit++;
  }
  return `${Number(amount.toFixed(1))} ${units[unit]}`;
}

function count(value: number | undefined): string {
  return value === undefined ? 'no limit' : String(value);
}
