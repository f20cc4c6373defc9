import { fail } from '#base/shape.ts';
import { restartOf } from '#engine/api/docker/create.ts';
import type { ResourceSpec, RestartPolicy } from '#engine/core/spec.ts';
import type { Bodies } from '#spec/docker/types.gen.ts';

/** `POST /containers/{id}/update`: what is 0, empty or absent stays as it is. */
export function updateRequest(body: Bodies['ContainerUpdate']): {
  resources: Partial<ResourceSpec>;
  restart?: Omit<RestartPolicy, 'onUnhealthy'>;
} {
  refuseFixed(body);
  if (body.KernelMemory || body.KernelMemoryTCP)
    fail('$.KernelMemory', body.KernelMemory, 'is gone from Linux: leave it away');
  const wish = {
    memoryBytes: body.Memory || undefined,
    memoryReservationBytes: body.MemoryReservation || undefined,
    memorySwapBytes: body.MemorySwap || undefined,
    nanoCpus: body.NanoCpus || undefined,
    cpuShares: body.CpuShares || undefined,
    cpuPeriodUs: body.CpuPeriod || undefined,
    cpuQuotaUs: body.CpuQuota || undefined,
    cpuRealtimePeriodUs: body.CpuRealtimePeriod || undefined,
    cpuRealtimeRuntimeUs: body.CpuRealtimeRuntime || undefined,
    cpusetCpus: body.CpusetCpus || undefined,
    cpusetMems: body.CpusetMems || undefined,
    blkioWeight: body.BlkioWeight || undefined,
    pids: body.PidsLimit === undefined || body.PidsLimit === null || body.PidsLimit === 0 ? undefined : body.PidsLimit,
  };
  const resources = Object.fromEntries(
    Object.entries(wish).filter(([, v]) => v !== undefined),
  ) as Partial<ResourceSpec>;
  const { RestartPolicy: policy } = body;
  if (!policy?.Name && !policy?.MaximumRetryCount) return { resources };
  const { name, maxRetries } = restartOf(policy, {}, '$.RestartPolicy');
  return { resources, restart: { name, maxRetries } };
}

/** What Docker's own daemon takes and forgets: limits that are set when a container is made, and stay. */
const FIXED = [
  'BlkioDeviceReadBps',
  'BlkioDeviceReadIOps',
  'BlkioDeviceWriteBps',
  'BlkioDeviceWriteIOps',
  'BlkioWeightDevice',
  'CgroupParent',
  'CpuCount',
  'CpuPercent',
  'DeviceCgroupRules',
  'DeviceRequests',
  'Devices',
  'DiskQuota',
  'IOMaximumBandwidth',
  'IOMaximumIOps',
  'Init',
  'MemorySwappiness',
  'OomKillDisable',
  'Ulimits',
] as const;

function refuseFixed(body: Bodies['ContainerUpdate']): void {
  for (const name of FIXED) {
    const value = body[name];
    const wished = Array.isArray(value) ? value.length > 0 : Boolean(value);
    if (wished) fail(`$.${name}`, value, 'cannot change while a container lives: make it anew');
  }
}
