import { statSync } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { defineError, messageOf } from '#base/errors.ts';
import type { ContainerSpec } from '#engine/core/spec.ts';
import type { LinuxDevice } from '#spec/oci/linux.ts';

export const NoSuchDevice = defineError('INVALID_ARGUMENT', (d: { path: string; why: string }) => ({
  message: `error gathering device information while adding custom device "${d.path}": ${d.why}`,
}));

/** Not devices of the host but file systems that every container has of its own. */
const OWN_OF_CONTAINERS = new Set([
  'pts',
  'shm',
  'mqueue',
  'hugepages',
  'fd',
  'console',
  'ptmx',
  '.lxc',
  '.lxd-mounts',
]);

/** Devices a container gets beside the default ones: those it asked for; all of the host's when it is privileged. */
export async function devicesOf(spec: ContainerSpec): Promise<LinuxDevice[]> {
  const wished = await Promise.all(spec.devices.map((d) => deviceAt(d.hostPath, d.path)));
  const everything = spec.security.privileged ? await devicesBelow('/dev', '/dev') : [];
  const own = new Set(wished.flat().map((d) => d.path));
  return [...wished.flat(), ...everything.filter((d) => !own.has(d.path))];
}

/** A directory stands for the devices below it. */
async function deviceAt(hostPath: string, path: string): Promise<LinuxDevice[]> {
  try {
    const found = await stat(hostPath);
    if (found.isDirectory()) return await devicesBelow(hostPath, path);
    if (found.isBlockDevice() || found.isCharacterDevice()) return [device(path, found)];
  } catch (cause) {
    throw new NoSuchDevice({ path: hostPath, why: messageOf(cause) }, { cause });
  }
  throw new NoSuchDevice({ path: hostPath, why: 'not a device node' });
}

async function devicesBelow(directory: string, path: string): Promise<LinuxDevice[]> {
  const list: LinuxDevice[] = [];
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    if (OWN_OF_CONTAINERS.has(entry.name)) continue;
    const [hostPath, inside] = [join(directory, entry.name), join(path, entry.name)];
    if (entry.isDirectory()) list.push(...(await devicesBelow(hostPath, inside)));
    else if (entry.isBlockDevice() || entry.isCharacterDevice()) list.push(device(inside, await stat(hostPath)));
  }
  return list;
}

function device(path: string, found: Awaited<ReturnType<typeof stat>>): LinuxDevice {
  return {
    type: found.isBlockDevice() ? 'b' : 'c',
    path,
    ...deviceNumbers(Number(found.rdev)),
    fileMode: Number(found.mode) & 0o7777,
    uid: Number(found.uid),
    gid: Number(found.gid),
  };
}

/** Of a block device that is to be throttled. */
export function blockDeviceNumbers(path: string): { major: number; minor: number } {
  try {
    return deviceNumbers(statSync(path).rdev);
  } catch (cause) {
    throw new NoSuchDevice({ path, why: messageOf(cause) }, { cause });
  }
}

/** glibc's major() and minor(): 12 bits of each in the low word, the rest above (makedev(3)). */
export function deviceNumbers(rdev: number): { major: number; minor: number } {
  const low = rdev % 2 ** 32;
  const high = Math.floor(rdev / 2 ** 32);
  return {
    major: ((low >>> 8) & 0xfff) | (high & ~0xfff),
    minor: (low & 0xff) | ((low >>> 12) & ~0xff),
  };
}
