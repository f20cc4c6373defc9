import { posix } from 'node:path';
import type { Host } from '#runtime/host.ts';
import type { OciProcess } from '#spec/oci/config.ts';

/** The process's environment; HOME is the user's of the container's /etc/passwd when nobody set it, as runc has it. */
export function environmentOf(process: OciProcess, host: Host, root: string): string[] {
  const env = process.env ?? [];
  if (namesHome(process)) return env;
  return [
    ...env.filter((entry) => entry !== 'HOME='),
    `HOME=${homeOf(host.readInside(root, '/etc/passwd'), process.user.uid)}`,
  ];
}

/** Then nobody has to look into the container for it. */
export function namesHome({ env }: OciProcess): boolean {
  return env?.some((entry) => entry.startsWith('HOME=') && entry !== 'HOME=') === true;
}

export function homeOf(passwd: string | undefined, uid: number): string {
  for (const line of (passwd ?? '').split('\n')) {
    const fields = line.split(':');
    if (fields[2] === String(uid) && fields[5]) return posix.normalize(fields[5]);
  }
  return '/';
}
