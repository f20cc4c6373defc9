import { readFile, stat } from 'node:fs/promises';
import { defineError, describeChain, errnoOf, messageOf } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { Access, accessFileShape } from '#registry/server/access.ts';

export const AccountsMissing = defineError('REGISTRY_ACCOUNTS_MISSING', (d: { path: string }) => ({
  message: `${d.path} does not exist, and the registry is to listen on more than loopback`,
  hint: 'make accounts with "estiba registry user add", or let everybody in with --open',
}));

export const AccessFileInvalid = defineError('REGISTRY_ACCESS_FILE', (d: { path: string; why: string }) => ({
  message: `${d.path}: ${d.why}`,
}));

/**
 * Accounts and rights as `access.json` has them now. Every request looks whether the file is another one, so an account that is
 * taken away is out at once; a file that cannot be read, or has gone, leaves things as they were and says so in the log.
 */
export class LiveAccess {
  readonly #path: string;
  readonly #log: Logger;
  #access: Access;
  #seen: string;
  #reading: Promise<void> | undefined;

  private constructor(path: string, log: Logger, access: Access, seen: string) {
    this.#path = path;
    this.#log = log;
    this.#access = access;
    this.#seen = seen;
  }

  /** Without a file: everybody may do everything, or REGISTRY_ACCOUNTS_MISSING. */
  static async open(path: string, o: { openWithoutAccounts: boolean; log: Logger }): Promise<LiveAccess> {
    const seen = await stampOf(path);
    if (seen !== ABSENT) return new LiveAccess(path, o.log, await read(path), seen);
    if (!o.openWithoutAccounts) throw new AccountsMissing({ path });
    return new LiveAccess(path, o.log, Access.everyone(), seen);
  }

  get current(): Access {
    return this.#access;
  }

  /** Reads the file if it changed. Never fails. */
  async refresh(): Promise<void> {
    if ((await stampOf(this.#path)) === this.#seen) return;
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined;
    });
    await this.#reading;
  }

  /** What cannot be read is told once, and tried again when it has changed. */
  async #read(): Promise<void> {
    this.#seen = await stampOf(this.#path); // before the bytes: of a change in between the next request hears
    try {
      this.#access = await read(this.#path);
      this.#log.info('accounts and rights have been read anew', { path: this.#path });
    } catch (error) {
      this.#log.error('accounts and rights stay as they were: their file cannot be used', {
        error: describeChain(error),
      });
    }
  }
}

const ABSENT = 'absent';

/** Changes with the file and with its bytes; why it cannot be looked at, where it cannot. */
async function stampOf(path: string): Promise<string> {
  try {
    const { ino, mtimeMs, ctimeMs, size } = await stat(path);
    return `${ino} ${mtimeMs} ${ctimeMs} ${size}`;
  } catch (error) {
    return errnoOf(error) === 'ENOENT' ? ABSENT : messageOf(error);
  }
}

async function read(path: string): Promise<Access> {
  const text = await readFile(path, 'utf8');
  try {
    return Access.fromFile(accessFileShape(JSON.parse(text), '$'));
  } catch (cause) {
    throw new AccessFileInvalid({ path, why: messageOf(cause) }, { cause });
  }
}
