import { fail } from '#base/shape.ts';
import { NotSupported } from '#engine/api/errors.ts';
import type { ConditionalProfile, SecuritySpec } from '#engine/core/spec.ts';
import type { HostConfig } from '#spec/docker/types.gen.ts';

/** `--privileged`, `--cap-add`, `--security-opt` and their like. An option that cannot hold here is an error, never dropped. */
export function securityOf(host: HostConfig): SecuritySpec {
  const security: SecuritySpec = {
    privileged: host.Privileged ?? false,
    capAdd: host.CapAdd ?? [],
    capDrop: host.CapDrop ?? [],
    noNewPrivileges: false,
    seccomp: 'default',
    readonlyRoot: host.ReadonlyRootfs ?? false,
    ...(host.MaskedPaths ? { maskedPaths: host.MaskedPaths } : {}),
    ...(host.ReadonlyPaths ? { readonlyPaths: host.ReadonlyPaths } : {}),
  };
  for (const [index, option] of (host.SecurityOpt ?? []).entries())
    applyOption(security, option, `$.HostConfig.SecurityOpt[${index}]`);
  return security;
}

function applyOption(security: SecuritySpec, option: string, path: string): void {
  // `name=value`; Docker before 1.11 wrote `name:value`, and docker-compose still may.
  const [, name = '', value = ''] = /^([^=:]+)(?:[=:]([\s\S]*))?$/.exec(option) ?? [];
  switch (name) {
    case 'no-new-privileges':
      if (value !== '' && value !== 'true' && value !== 'false') fail(path, option, 'is neither true nor false');
      security.noNewPrivileges = value !== 'false';
      return;
    case 'seccomp':
      security.seccomp = seccompOf(value, option, path);
      return;
    case 'systempaths':
      if (value !== 'unconfined') fail(path, option, 'is not systempaths=unconfined');
      security.maskedPaths = [];
      security.readonlyPaths = [];
      return;
    case 'apparmor':
      if (value === 'unconfined' || value === '') return;
      throw new NotSupported({
        what: `AppArmor profile ${value}`,
        instead: 'this kernel has no AppArmor; use a seccomp profile, or Landlock rules by annotation',
      });
    case 'label':
      // Without SELinux nothing is labelled, so switching labels off is what holds already.
      if (value === 'disable') return;
      throw new NotSupported({
        what: `SELinux label ${value}`,
        instead: 'this kernel has no SELinux; use label=disable, or leave the option away',
      });
    default:
      fail(path, option, 'is none of no-new-privileges, seccomp=, apparmor=, label=, systempaths=unconfined');
  }
}

function seccompOf(value: string, option: string, path: string): SecuritySpec['seccomp'] {
  if (value === 'unconfined') return 'unconfined';
  if (value === '' || value === 'builtin' || value === 'default') return 'default';
  let profile: unknown;
  try {
    profile = JSON.parse(value);
  } catch {
    return fail(path, option.slice(0, 60), 'is no seccomp profile: the client sends its JSON text, not a file name');
  }
  if (typeof profile !== 'object' || profile === null || !('defaultAction' in profile)) {
    return fail(path, option.slice(0, 60), 'is no seccomp profile: it has no defaultAction');
  }
  return { profile: profile as ConditionalProfile };
}
