import { fail } from '#base/shape.ts';
import { O_WRONLY, type PlanBuilder, utf8 } from '#runtime/builder.ts';
import { hasNamespace, type OciConfig } from '#spec/oci/config.ts';

// Which namespace a parameter belongs to. All others are the host's: a container that sets them sets everybody's.
const BY_NAMESPACE: readonly [namespace: string, matches: RegExp][] = [
  ['ipc', /^kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced|(msg|sem|shm)_next_id)$/],
  ['ipc', /^fs\.mqueue\./],
  ['network', /^net\./],
  ['uts', /^kernel\.(domainname|hostname)$/],
  ['user', /^user\./],
];

/** Every parameter must be the container's own (runc refuses the same ones). */
export function checkSysctls(config: OciConfig): void {
  for (const [name, value] of Object.entries(config.linux?.sysctl ?? {})) {
    const path = `$.linux.sysctl[${JSON.stringify(name)}]`;
    const dotted = toDotted(name);
    if (/(^|[./])\.{1,2}([./]|$)/.test(name) || dotted.includes('..')) fail(path, value, 'is not a parameter name');
    const namespace = BY_NAMESPACE.find(([, matches]) => matches.test(dotted))?.[0];
    if (namespace === undefined) fail(path, value, `is not in a separate kernel namespace: ${name} is the host's`);
    if (!hasNamespace(config, namespace))
      fail(path, value, `needs a ${namespace} namespace: ${name} is the host's without one`);
    if (dotted === 'kernel.hostname' && config.hostname)
      fail(path, value, 'says the same as $.hostname, which is set too');
  }
}

/**
 * Written through the host's /proc, before the root is changed: which namespace is meant follows the writer, and no file
 * of the image can stand in the way (CVE-2019-16884).
 */
export function planSysctls(b: PlanBuilder, config: OciConfig): void {
  for (const [name, value] of Object.entries(config.linux?.sysctl ?? {})) {
    const path = `/proc/sys/${toSlashed(name)}`;
    b.init(`$.linux.sysctl[${JSON.stringify(name)}]`, {
      op: 'write',
      path,
      data: utf8(value),
      flags: O_WRONLY,
      mode: 0,
    });
  }
}

// Both `net.ipv4.conf.eth0/100.forwarding` and `net/ipv4/conf/eth0.100/forwarding` are usual: the first separator decides.
function toSlashed(name: string): string {
  const dotsSeparate = !name.includes('/') || (name.includes('.') && name.indexOf('.') < name.indexOf('/'));
  return dotsSeparate ? name.replace(/[./]/g, (c) => (c === '.' ? '/' : '.')) : name;
}

function toDotted(name: string): string {
  return toSlashed(name).replaceAll('/', '.');
}
