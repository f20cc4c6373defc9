import { createHash, createHmac, randomBytes, scrypt, timingSafeEqual } from 'node:crypto';
import { array, integer, type Out, object, oneOf, optional, string } from '#base/shape.ts';
import type { Action } from '#registry/server/route.ts';

/**
 * Who may do what in which repository. Read from `access.json`:
 *
 *     { "anonymous": [{ "repositories": ["public/**"], "actions": ["pull"] }],
 *       "accounts": [
 *         { "name": "alice", "password": "scrypt:…", "rules": [{ "repositories": ["**"], "actions": ["pull", "push", "delete"] }] },
 *         { "name": "robot$ci", "secret": "sha256:…", "expiresAtMs": 1798761600000, "rules": [{ "repositories": ["team/*"], "actions": ["pull", "push"] }] }
 *       ] }
 *
 * `*` stands for one part of a repository's name, `**` for any number of them. Rules only add.
 */
const Rule = object(
  {
    repositories: array(string({ nonEmpty: true, maxLength: 255 }), { max: 1000 }),
    actions: array(oneOf('pull', 'push', 'delete')),
  },
  { unknown: 'reject' },
);
const Account = object(
  {
    name: string({ match: /^[\w$@.+-]{1,128}$/, says: 'is not an account name' }),
    /** A person's: slow to verify, since people choose weak ones. */
    password: optional(string({ match: /^scrypt:/ })),
    /** A robot's: 32 random bytes need no slow hash. */
    secret: optional(string({ match: /^sha256:/ })),
    expiresAtMs: optional(integer({ min: 0 })),
    rules: array(Rule, { max: 1000 }),
  },
  { unknown: 'reject' },
);
export const accessFileShape = object(
  { anonymous: optional(array(Rule, { max: 1000 })), accounts: optional(array(Account, { max: 10_000 })) },
  { unknown: 'reject' },
);
export type AccessFile = Out<typeof accessFileShape>;
type RuleOf = Out<typeof Rule>;
type AccountOf = Out<typeof Account>;

/** Rights that a token was issued for; it never gives more than its account has now. */
export interface Grant {
  repository: string;
  actions: Action[];
}

/** Who sent a request, as far as is known, and what follows from it. */
export interface Principal {
  /** Undefined: anonymous. */
  name: string | undefined;
  may(action: Action, repository: string): boolean;
  /** The account's right, when the token at hand was issued for less: the client should ask for another token. */
  couldGet(action: Action, repository: string): boolean;
}

export class Access {
  readonly #anonymous: readonly Compiled[];
  readonly #accounts: ReadonlyMap<string, AccountOf & { compiled: readonly Compiled[] }>;
  /** Right passwords under a key that only this process has: what leaks from memory opens nothing. */
  readonly #verified = new Map<string, number>();
  readonly #cacheKey = randomBytes(32);
  /** With no accounts and everything allowed to everyone nobody is asked to log in. */
  readonly open: boolean;

  private constructor(file: AccessFile, open: boolean) {
    this.#anonymous = compile(file.anonymous ?? []);
    this.#accounts = new Map((file.accounts ?? []).map((a) => [a.name, { ...a, compiled: compile(a.rules) }]));
    this.open = open;
  }

  static fromFile(file: AccessFile): Access {
    return new Access(file, false);
  }

  /** Everyone may do everything: for a registry on loopback. */
  static everyone(): Access {
    return new Access({ anonymous: [{ repositories: ['**'], actions: ['pull', 'push', 'delete'] }] }, true);
  }

  anonymous(): Principal {
    return this.#principal(undefined, this.#anonymous, undefined);
  }

  /** The account with that password or secret, or undefined. Takes as long for a name that does not exist. */
  async authenticate(name: string, password: string, nowMs: number): Promise<Principal | undefined> {
    const account = this.#accounts.get(name);
    const fits =
      account?.secret !== undefined
        ? verifySecret(account.secret, password)
        : await this.#passwordFits(name, account?.password ?? NOBODY, password, nowMs);
    if (!account || !fits || (account.expiresAtMs ?? Number.POSITIVE_INFINITY) <= nowMs) return undefined;
    return this.#principal(name, [...account.compiled, ...this.#anonymous], undefined);
  }

  /** A password that was right a moment ago need not cost 50 ms again: a push asks for a token a dozen times. */
  async #passwordFits(name: string, stored: string, password: string, nowMs: number): Promise<boolean> {
    const key = createHmac('sha256', this.#cacheKey).update(`${name}\0${password}`).digest('base64');
    if ((this.#verified.get(key) ?? 0) > nowMs) return true;
    if (!(await verifyPassword(stored, password))) return false;
    if (this.#verified.size >= VERIFIED_MAX) this.#verified.clear();
    this.#verified.set(key, nowMs + VERIFIED_FOR_MS);
    return true;
  }

  /** The holder of a token we issued: its account's rights of today, within what the token was issued for. */
  holder(name: string | undefined, grants: readonly Grant[], nowMs: number): Principal | undefined {
    if (name === undefined) return this.#principal(undefined, this.#anonymous, grants);
    const account = this.#accounts.get(name);
    if (!account || (account.expiresAtMs ?? Number.POSITIVE_INFINITY) <= nowMs) return undefined;
    return this.#principal(name, [...account.compiled, ...this.#anonymous], grants);
  }

  #principal(name: string | undefined, rules: readonly Compiled[], grants: readonly Grant[] | undefined): Principal {
    const couldGet = (action: Action, repository: string): boolean =>
      rules.some((rule) => rule.actions.has(action) && rule.pattern.test(repository));
    const granted = (action: Action, repository: string): boolean =>
      !grants || grants.some((g) => g.repository === repository && g.actions.includes(action));
    return { name, couldGet, may: (action, repository) => granted(action, repository) && couldGet(action, repository) };
  }
}

interface Compiled {
  pattern: RegExp;
  actions: ReadonlySet<Action>;
}

function compile(rules: readonly RuleOf[]): Compiled[] {
  return rules.flatMap((rule) =>
    rule.repositories.map((text) => ({ pattern: patternOf(text), actions: new Set<Action>(rule.actions) })),
  );
}

/** `team/*` is `team/a` but not `team/a/b`; `team/**` is both. */
export function patternOf(text: string): RegExp {
  const source = text
    .split(/(\*\*|\*)/)
    .map((part) => (part === '**' ? '.*' : part === '*' ? '[^/]*' : part.replace(/[\\^$.|?+()[\]{}]/g, '\\$&')))
    .join('');
  return new RegExp(`^${source}$`);
}

/** RFC 7914's interactive parameters, 16 MiB and about 50 ms a try. */
const SCRYPT = { N: 16_384, r: 8, p: 1 };
const KEY_BYTES = 32;
const NOBODY = `scrypt:${'00'.repeat(16)}:${'00'.repeat(KEY_BYTES)}`;

const VERIFIED_FOR_MS = 60_000;
const VERIFIED_MAX = 1000;

export async function hashPassword(password: string, salt: Uint8Array = randomBytes(16)): Promise<string> {
  return `scrypt:${Buffer.from(salt).toString('hex')}:${(await derive(password, salt)).toString('hex')}`;
}

export function hashSecret(secret: string): string {
  return `sha256:${createHash('sha256').update(secret).digest('hex')}`;
}

async function verifyPassword(stored: string, password: string): Promise<boolean> {
  const [, salt = '', key = ''] = stored.split(':');
  return sameBytes(Buffer.from(key, 'hex'), await derive(password, Buffer.from(salt, 'hex')));
}

function verifySecret(stored: string, secret: string): boolean {
  return sameBytes(Buffer.from(stored), Buffer.from(hashSecret(secret)));
}

function sameBytes(a: Buffer, b: Buffer): boolean {
  return a.byteLength === b.byteLength && timingSafeEqual(a, b);
}

function derive(password: string, salt: Uint8Array): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    scrypt(password, salt, KEY_BYTES, SCRYPT, (error, key) => (error ? reject(error) : resolve(key)));
  });
}
