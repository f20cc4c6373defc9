import type { PlanBuilder } from '#runtime/builder.ts';
import { Unsupported } from '#runtime/errors.ts';
import type { OciConfig } from '#spec/oci/config.ts';

export function planNetDevices(_b: PlanBuilder, config: OciConfig): void {
  if (Object.keys(config.linux?.netDevices ?? {}).length > 0)
    throw new Unsupported({ path: '$.linux.netDevices', what: 'moving network devices is not built in' });
}
