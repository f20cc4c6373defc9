import { createHash, timingSafeEqual } from 'node:crypto';
import type { Clock } from '#base/clock.ts';
import type { Random } from '#base/random.ts';

/**
 * Who may use the dashboard. A link made by somebody who may use the daemon's socket is good once, for a minute, and is exchanged for
 * two secrets that a browser must show together:
 *
 *     session   an HttpOnly cookie, which scripts cannot read. Cookies know no ports: whatever else serves this host gets it, too
 *     key       kept by the page under its origin, port included, and sent in a header: others on this host never see it
 *
 * Nothing is on disk: a daemon's restart logs everybody out.
 */
export interface Admission {
  session: string;
  key: string;
}

export interface LoginLink {
  token: string;
  expiresAtMs: number;
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

export class Sessions {
  readonly #clock: Clock;
  readonly #random: Random;
  #links: { token: Buffer; expiresAtMs: number }[] = [];
  #sessions: Session[] = [];

  constructor({ clock, random }: { clock: Clock; random: Random }) {
    this.#clock = clock;
    this.#random = random;
  }

  newLink(): LoginLink {
    const token = this.#secret();
    const expiresAtMs = this.#clock.now() + LINK_MS;
    this.#links = [...this.#links, { token: digest(token), expiresAtMs }].slice(-LINKS_MAX);
    return { token, expiresAtMs };
  }

  /** Undefined: there is no such link, or no more. */
  enter(token: string): Admission | undefined {
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

  leave(session: string | undefined): void {
    const found = this.#find(session);
    this.#sessions = this.#sessions.filter((s) => s !== found);
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

function digest(secret: string): Buffer {
  return createHash('sha256').update(secret).digest();
}

function same(a: Buffer, b: Buffer): boolean {
  return timingSafeEqual(a, b);
}
