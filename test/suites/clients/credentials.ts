import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Room } from '../room/room.ts';

const KEY = 'suite@localhost';
/** Clients prefer it to `pass` where both are, and it wants a desktop's session bus. */
const PREFERRED = '/usr/bin/docker-credential-secretservice';

/**
 * A store for `docker-credential-pass` in the room, encrypted with a key made for it: the environment that leads a client there.
 * gpg's agent is the room's own and ends with it.
 */
export function credentialStore(room: Room): Record<string, string> {
  const env = { GNUPGHOME: join(room.dir, 'gnupg'), PASSWORD_STORE_DIR: join(room.dir, 'passwords') };
  mkdirSync(env.GNUPGHOME, { mode: 0o700 });
  const must = (command: string, ...args: string[]): void => {
    const done = room.run(command, args, { env });
    if (done.code !== 0) throw new Error(`${command} ${args.join(' ')}: ${done.out}${done.err}`);
  };
  const unattended = ['--batch', '--quiet', '--pinentry-mode', 'loopback', '--passphrase', ''];
  must('gpg', ...unattended, '--quick-generate-key', KEY, 'default', 'default', 'never');
  must('pass', 'init', KEY);
  must('mount', '--bind', '/dev/null', PREFERRED); // not executable: as if it were not there, and in the room alone
  return env;
}
