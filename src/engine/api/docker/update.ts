import { fail } from '#base/shape.ts';
import type { ResourceSpec, RestartPolicy } from '#engine/core/spec.ts';
import type { Bodies } from '#spec/docker/types.gen.ts';

/** `POST /containers/{id}/update`: what is 0, empty or absent stays as it is. */
export function updateRequest(body: Bodies['ContainerUpdate']): {
  resources: Partial<ResourceSpec>;
  restart?: Omit<RestartPolicy, 'onUnhealthy'>;
} {
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
  const name = body.RestartPolicy?.Name || undefined;
  if (name === undefined) return { resources };
  if (name !== 'no' && name !== 'always' && name !== 'unless-stopped' && name !== 'on-failure') {
    return fail('$.RestartPolicy.Name', name, 'is none of no, always, unless-stopped, on-failure');
  }
  return { resources, restart: { name, maxRetries: body.RestartPolicy?.MaximumRetryCount ?? 0 } };
}
