import { execFile } from 'node:child_process';
import { chmod, chown, mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { errnoOf, messageOf } from '#base/errors.ts';
import { VolumeMountFailed } from '#volume/errors.ts';

export interface TopOwner {
  uid?: number;
  gid?: number;
  mode?: number;
}

/** The volume's directory and the one for its files. There already is fine: so a crash between record and directory heals at start. */
export async function makeDirectory(directory: string, owner: TopOwner): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o711 });
  const data = join(directory, '_data');
  const made = await mkdir(data, { recursive: true, mode: 0o755 });
  if (made === undefined) return;
  if (owner.uid !== undefined || owner.gid !== undefined) await chown(data, owner.uid ?? 0, owner.gid ?? 0);
  await chmod(data, owner.mode ?? 0o755); // mkdir(2) subtracts the umask
}

/** An ext4 image with holes: it takes the space that is written to it. */
export async function makeDisk(name: string, file: string, bytes: number, owner: TopOwner): Promise<void> {
  const handle = await open(file, 'wx', 0o600);
  try {
    await handle.truncate(bytes);
  } finally {
    await handle.close();
  }
  const root = `root_owner=${owner.uid ?? 0}:${owner.gid ?? 0}`;
  try {
    await promisify(execFile)('mkfs.ext4', ['-q', '-F', '-m', '0', '-E', `lazy_itable_init=1,${root}`, file]);
  } catch (error) {
    const missing = errnoOf(error) === 'ENOENT';
    throw new VolumeMountFailed(
      {
        name,
        type: 'ext4',
        device: file,
        reason: missing ? 'mkfs.ext4 is not installed' : messageOf(error),
        ...(missing ? { hint: 'install e2fsprogs' } : {}),
      },
      { cause: error },
    );
  }
}
