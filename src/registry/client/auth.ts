import type { Clock } from '#base/clock.ts';
import { integer, object, optional, string } from '#base/shape.ts';
import type { CredentialSource, Credentials } from '#registry/client/credentials.ts';
import { RegistryMisbehaved, RegistryUnauthorized } from '#registry/client/errors.ts';
import { type Answer, readBody, type Transport } from '#registry/client/transport.ts';
import { type Challenge, parseChallenges } from '#registry/http/challenge.ts';

/** What a request is for, in the words of token scopes. */
export interface Scope {
  repository: string;
  actions: 'pull' | 'pull,push' | 'delete' | 'pull,push,delete';
}

const TOKEN_ANSWER_MAX_BYTES = 1 << 20;
/** "If not given, a token is valid for 60 seconds" (distribution, token specification). */
const DEFAULT_LIFE_S = 60;
/** Tokens are renewed so long before their end: the request that uses one has a way to go. */
const EARLY_MS = 10_000;

const TokenAnswer = object({
  token: optional(string({ maxLength: 65_536 })),
  access_token: optional(string({ maxLength: 65_536 })),
  expires_in: optional(integer({ min: 0, max: 10 * 365 * 86_400 })),
});

/**
 * The `Authorization` header for one registry host: none until the host asks, then what its challenge wants. Tokens are kept
 * for each set of scopes until they run out.
 */
export class Authorizer {
  readonly #host: string;
  readonly #transport: Transport;
  readonly #source: CredentialSource;
  readonly #clock: Clock;
  readonly #tokens = new Map<string, { header: string; untilMs: number }>();
  #challenge: Challenge | undefined;
  #credentials: Promise<Credentials | undefined> | undefined;

  constructor(options: { host: string; transport: Transport; source: CredentialSource; clock: Clock }) {
    this.#host = options.host;
    this.#transport = options.transport;
    this.#source = options.source;
    this.#clock = options.clock;
  }

  /** What to send along, as far as is known without asking the host. */
  async header(scopes: readonly Scope[]): Promise<string | undefined> {
    const challenge = this.#challenge;
    return challenge && this.#answer(challenge, scopes);
  }

  /** After a 401: learns what the host wants. False when there is nothing (more) to try. */
  async learn(answer: Answer, scopes: readonly Scope[]): Promise<boolean> {
    const challenges = parseChallenges(answer.headers['www-authenticate'] ?? '');
    // Bearer first: it is what lets an anonymous client in where both are offered.
    const challenge = challenges.find((c) => c.scheme === 'bearer') ?? challenges.find((c) => c.scheme === 'basic');
    if (!challenge) return false;
    const refused =
      this.#tokens.delete(keyOf(scopes)) || (this.#challenge?.scheme === 'basic' && challenge.scheme === 'basic');
    this.#challenge = challenge;
    // With a token just made and refused, another one will not help; one that had been lying here might have been revoked.
    return !refused || challenge.scheme === 'bearer';
  }

  /** Whether anything but "anonymous" is known of the user. */
  async loggedIn(): Promise<boolean> {
    return (await this.#user()) !== undefined;
  }

  async #answer(challenge: Challenge, scopes: readonly Scope[]): Promise<string | undefined> {
    const user = await this.#user();
    if (user && 'registryToken' in user) return `Bearer ${user.registryToken}`;
    if (challenge.scheme === 'basic') return user && 'name' in user ? basic(user.name, user.password) : undefined;
    const key = keyOf(scopes);
    const known = this.#tokens.get(key);
    if (known && known.untilMs > this.#clock.now()) return known.header;
    const { token, lifeSeconds } = await this.#fetchToken(challenge, scopes, user);
    const nowMs = this.#clock.now();
    for (const [old, { untilMs }] of this.#tokens) if (untilMs <= nowMs) this.#tokens.delete(old);
    const header = `Bearer ${token}`;
    this.#tokens.set(key, { header, untilMs: nowMs + Math.max(lifeSeconds * 1000 - EARLY_MS, 1000) });
    return header;
  }

  async #fetchToken(
    challenge: Challenge,
    scopes: readonly Scope[],
    user: Credentials | undefined,
  ): Promise<{ token: string; lifeSeconds: number }> {
    const { realm = '', service } = challenge.parameters;
    const url = this.#realm(realm);
    const parameters = new URLSearchParams(service === undefined ? {} : { service });
    for (const scope of scopes) parameters.append('scope', `repository:${scope.repository}:${scope.actions}`);
    const answer = await this.#ask(url, parameters, user);
    const request = 'token request';
    const body = await readBody(answer, TOKEN_ANSWER_MAX_BYTES, request);
    if (answer.status === 401 || answer.status === 403 || answer.status === 400) {
      throw new RegistryUnauthorized({
        host: this.#host,
        repository: scopes.map((s) => s.repository).join(', ') || 'the registry',
        action: scopes.map((s) => s.actions).join(', ') || 'login',
        says: user ? 'the user name, password or token is not accepted' : 'no token is given to anonymous clients',
        loggedIn: user !== undefined,
      });
    }
    if (answer.status !== 200)
      throw new RegistryMisbehaved({ host: url.host, request, why: `status ${answer.status}` });
    const parsed = TokenAnswer(JSON.parse(body.toString('utf8')), request);
    const token = parsed.token || parsed.access_token;
    if (!token) throw new RegistryMisbehaved({ host: url.host, request, why: 'the answer holds no token' });
    return { token, lifeSeconds: parsed.expires_in ?? DEFAULT_LIFE_S };
  }

  #ask(url: URL, parameters: URLSearchParams, user: Credentials | undefined): Promise<Answer> {
    if (user && 'identityToken' in user) {
      const form = new URLSearchParams(parameters);
      form.set('grant_type', 'refresh_token');
      form.set('refresh_token', user.identityToken);
      form.set('client_id', 'estiba');
      // OAuth 2 wants all scopes in one parameter.
      form.set('scope', parameters.getAll('scope').join(' '));
      const body = Buffer.from(form.toString());
      const headers = { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json' };
      return this.#transport.send({ method: 'POST', url, headers, body: { bytes: body.byteLength, stream: body } });
    }
    const target = new URL(url);
    for (const [name, value] of parameters) target.searchParams.append(name, value);
    const headers = user && 'name' in user ? { authorization: basic(user.name, user.password) } : {};
    return this.#transport.send({ method: 'GET', url: target, headers: { accept: 'application/json', ...headers } });
  }

  #realm(realm: string): URL {
    const why = !URL.canParse(realm)
      ? `its challenge names no token server: ${JSON.stringify(realm.slice(0, 200))}`
      : /^https?:$/.test(new URL(realm).protocol)
        ? undefined
        : `its token server is ${realm.slice(0, 200)}`;
    if (why !== undefined) throw new RegistryMisbehaved({ host: this.#host, request: 'token request', why });
    return new URL(realm);
  }

  #user(): Promise<Credentials | undefined> {
    this.#credentials ??= this.#source(this.#host);
    return this.#credentials;
  }
}

function keyOf(scopes: readonly Scope[]): string {
  return scopes.map((s) => `${s.repository}:${s.actions}`).join(' ');
}

function basic(name: string, password: string): string {
  return `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`;
}
