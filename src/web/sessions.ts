import { createHash, timingSafeEqual } from 'node:crypto';
import type { Clock } from '#base/clock.ts';
import { describeChain } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import type { Random } from '#base/random.ts';
import { array, integer, object, string } from '#base/shape.ts';

/**
 * Who may use the dashboard. A link made by somebody who may use the daemon's socket is good once, for a minute, and is exchanged for
 * two secrets that a browser must show together:
 *
 *     session   an HttpOnly cookie, which scripts cannot read. Cookies know no ports: whatever else serves this host gets it, too
 *     key       kept by the page under its origin, port included, and sent in a header: others on this host never see it
 *
 * What is kept is digests of both, never the secrets: a daemon that is upgraded knows its visitors again, and who reads the file
 * cannot be one. It lies where a boot takes it away (the run root). Links live in memory alone.
 */
export interface Admission {
  session: string;
  key: string;
}

export interface LoginLink {
  token: string;
  expiresAtMs: number;
}

/** Where sessions outlive the daemon. `write` replaces all of it, or nothing. */
export interface SessionsKept {
  /** Undefined: nothing was kept. */
  read(): Promise<string | undefined>;
  write(text: string): Promise<void>;
}

const LINK_MS = 60_000;
const SESSION_MS = 12 * 3_600_000;
/** The oldest goes when one more comes: who can make links can do everything else as well. */
const LINKS_MAX = 64;
const SESSIONS_MAX = 64;
const SECRET_BYTES = 32;

interface Session {
  session: Buffer;
  key: Buffer;
  expiresAtMs: number;
}

interface SessionsOptions {
  clock: Clock;
  random: Random;
  kept: SessionsKept;
}

const DIGEST = string({ match: /^[0-9a-f]{64}$/ });
const KEPT = array(object({ session: DIGEST, key: DIGEST, expiresAtMs: integer() }), { max: SESSIONS_MAX });

export class Sessions {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #kept: SessionsKept;
  #links: { token: Buffer; expiresAtMs: number }[] = [];
  #sessions: Session[];
  #writes: Promise<void> = Promise.resolve();

  private constructor({ clock, random, kept }: SessionsOptions, sessions: Session[]) {
    this.#clock = clock;
    this.#random = random;
    this.#kept = kept;
    this.#sessions = sessions;
  }

  /** With those that an earlier daemon admitted. What cannot be read admits nobody. */
  static async open(options: SessionsOptions, log: Logger): Promise<Sessions> {
    try {
      return new Sessions(options, sessionsIn(await options.kept.read()));
    } catch (error) {
      log.warn('the sessions of the dashboard cannot be read: everybody has to log in again', {
        error: describeChain(error),
      });
      return new Sessions(options, []);
    }
  }

  newLink(): LoginLink {
    const token = this.#secret();
    const expiresAtMs = this.#clock.now() + LINK_MS;
    this.#links = [...this.#links, { token: digest(token), expiresAtMs }].slice(-LINKS_MAX);
    return { token, expiresAtMs };
  }

  /** Undefined: there is no such link, or no more. Kept before it is told. */
  async enter(token: string): Promise<Admission | undefined> {
    const nowMs = this.#clock.now();
    const wanted = digest(token);
    const found = this.#links.filter((link) => same(link.token, wanted));
    this.#links = this.#links.filter((link) => !found.includes(link) && link.expiresAtMs > nowMs);
    if (!found.some((link) => link.expiresAtMs > nowMs)) return undefined;
    const admission = { session: this.#secret(), key: this.#secret() };
    const kept = {
      session: digest(admission.session),
      key: digest(admission.key),
      expiresAtMs: nowMs + SESSION_MS,
    };
    this.#sessions = [...this.#sessions.filter((s) => s.expiresAtMs > nowMs), kept].slice(-SESSIONS_MAX);
    await this.#keep();
    return admission;
  }

  /** The cookie alone: for the page itself, which a browser asks for before any script of it runs. */
  hasSession(session: string | undefined): boolean {
    return this.#find(session) !== undefined;
  }

  /** Both: for everything that tells or does something. */
  admits({ session, key }: Partial<Admission>): boolean {
    const found = this.#find(session);
    return found !== undefined && key !== undefined && same(found.key, digest(key));
  }

  async leave(session: string | undefined): Promise<void> {
    const found = this.#find(session);
    this.#sessions = this.#sessions.filter((s) => s !== found);
    await this.#keep();
  }

  /** Written one after the other: the last that changed is the last that stands there. */
  #keep(): Promise<void> {
    // Whoever asked for an earlier write has heard of its failure; this one writes all that there is.
    this.#writes = this.#writes.catch(() => undefined).then(() => this.#kept.write(textOf(this.#sessions)));
    return this.#writes;
  }

  /** All are looked at, whichever matches: the time an answer takes says nothing. */
  #find(session: string | undefined): Session | undefined {
    if (session === undefined) return undefined;
    const nowMs = this.#clock.now();
    const wanted = digest(session);
    return this.#sessions.filter((s) => same(s.session, wanted) && s.expiresAtMs > nowMs)[0];
  }

  #secret(): string {
    return Buffer.from(this.#random.bytes(SECRET_BYTES)).toString('base64url');
  }
}

function sessionsIn(text: string | undefined): Session[] {
  if (text === undefined) return [];
  return KEPT(JSON.parse(text), '$').map(({ session, key, expiresAtMs }) => ({
    session: Buffer.from(session, 'hex'),
    key: Buffer.from(key, 'hex'),
    expiresAtMs,
  }));
}

function textOf(sessions: readonly Session[]): string {
  return JSON.stringify(
    sessions.map(({ session, key, expiresAtMs }) => ({
      session: session.toString('hex'),
      key: key.toString('hex'),
      expiresAtMs,
    })),
  );
}

function digest(secret: string): Buffer {
  return createHash('sha256').update(secret).digest();
}

function same(a: Buffer, b: Buffer): boolean {
  return timingSafeEqual(a, b);
}
