import type { Clock } from '#base/clock.ts';
import { isCode } from '#base/errors.ts';
import { array, object, oneOf, optional, string } from '#base/shape.ts';
import { formatChallenge } from '#registry/http/challenge.ts';
import type { Grant, Principal } from '#registry/server/access.ts';
import type { LiveAccess } from '#registry/server/access-file.ts';
import { refuse } from '#registry/server/errors.ts';
import type { Exchange } from '#registry/server/exchange.ts';
import { type Action, isRepository } from '#registry/server/route.ts';

/**
 * Bearer tokens as Docker's registries use them (distribution: "Token Authentication Specification"):
 *
 *     client                                 registry
 *       ── GET /v2/app/manifests/1 ────────────▶
 *       ◀── 401, Bearer realm=…/auth/token,service=…,scope=repository:app:pull
 *       ── GET /auth/token?service=…&scope=…, Basic alice:… ──▶
 *       ◀── {"token": …, "expires_in": 300}
 *       ── GET /v2/app/manifests/1, Bearer … ──▶
 *
 * Basic credentials are taken on every request as well. A token is a JWT signed with this registry's own key; it names an
 * account and what it was asked for. Rights are looked up when it is used, so that taking them away acts at once.
 */
export class Tokens {
  readonly #key: Uint8Array;
  readonly #access: LiveAccess;
  readonly #clock: Clock;
  readonly service: string;

  constructor(options: { key: Uint8Array; access: LiveAccess; clock: Clock; service: string }) {
    this.#key = options.key;
    this.#access = options.access;
    this.#clock = options.clock;
    this.service = options.service;
  }

  /** Who sent the request. Credentials that are wrong are refused, even where anonymous would do: a typo should be heard of. */
  async identify(x: Exchange): Promise<Principal> {
    const [, scheme = '', credentials = ''] = /^(\w+)\s+(.+)$/.exec(x.header('authorization') ?? '') ?? [];
    switch (scheme.toLowerCase()) {
      case '':
        return this.#access.current.anonymous();
      case 'basic': {
        const { name, password } = parseBasic(credentials);
        const principal = await this.#access.current.authenticate(name, password, this.#clock.now());
        return principal ?? this.demandLogin(x, 'wrong user name or password');
      }
      case 'bearer':
        return (
          (await this.#verify(credentials)) ?? this.demandLogin(x, 'the token is not valid (any more)', 'invalid_token')
        );
      default:
        return this.demandLogin(x, 'Basic and Bearer are the ways to log in');
    }
  }

  /**
   * Lets pass or refuses: 401 where logging in or another token would help, 403 where this account has no such right.
   */
  demand(x: Exchange, principal: Principal, action: Action, repository: string): void {
    if (principal.may(action, repository)) return;
    const scope = `repository:${repository}:${action === 'push' ? 'pull,push' : action}${mountScope(x)}`;
    if (principal.couldGet(action, repository)) this.demandLogin(x, undefined, 'insufficient_scope', scope);
    if (principal.name === undefined) this.demandLogin(x, undefined, undefined, scope);
    refuse('DENIED', `${principal.name} may not ${action} in ${repository}`, { detail: { repository, action } });
  }

  /** The token at hand does not reach to the source of a mount. */
  demandMount(x: Exchange, to: string): never {
    return this.demandLogin(x, undefined, 'insufficient_scope', `repository:${to}:pull,push${mountScope(x)}`);
  }

  demandLogin(x: Exchange, says?: string, error?: string, scope?: string): never {
    const challenge = formatChallenge('Bearer', {
      realm: `${originOf(x)}/auth/token`,
      service: this.service,
      ...(scope ? { scope } : {}),
      ...(error ? { error } : {}),
    });
    return refuse('UNAUTHORIZED', says, { headers: { 'www-authenticate': challenge } });
  }

  /** GET or POST /auth/token. Rights that the account lacks are left out of the token; the request that needs them then fails. */
  async issue(x: Exchange): Promise<void> {
    const { principal, scopes } = x.method === 'POST' ? await this.#fromForm(x) : await this.#fromQuery(x);
    const grants = parseScopes(scopes)
      .map((g) => ({ ...g, actions: g.actions.filter((action) => principal.couldGet(action, g.repository)) }))
      .filter((g) => g.actions.length > 0);
    const nowMs = this.#clock.now();
    const issuedAt = Math.floor(nowMs / 1000);
    const { SignJWT } = await jose();
    const token = await new SignJWT({ access: grants })
      .setProtectedHeader({ alg: 'HS256' })
      .setIssuer(this.service)
      .setAudience(this.service)
      .setSubject(principal.name ?? '')
      .setIssuedAt(issuedAt)
      .setExpirationTime(issuedAt + TOKEN_SECONDS)
      .sign(this.#key);
    x.json(
      { token, access_token: token, expires_in: TOKEN_SECONDS, issued_at: new Date(nowMs).toISOString() },
      { 'cache-control': 'no-store' },
    );
  }

  async #fromQuery(x: Exchange): Promise<{ principal: Principal; scopes: string[] }> {
    if (/^bearer\s/i.test(x.header('authorization') ?? ''))
      return refuse('UNAUTHORIZED', 'tokens are given for a password');
    return { principal: await this.identify(x), scopes: x.query.getAll('scope') };
  }

  /** OAuth 2 form of the same (containerd asks this way first): `grant_type=password`. */
  async #fromForm(x: Exchange): Promise<{ principal: Principal; scopes: string[] }> {
    const form = new URLSearchParams((await x.readAll(FORM_MAX_BYTES)).toString('utf8'));
    if (form.get('grant_type') !== 'password')
      refuse('UNSUPPORTED', 'only grant_type=password is known', { status: 400 });
    const [name, password] = [form.get('username') ?? '', form.get('password') ?? ''];
    const principal = await this.#access.current.authenticate(name, password, this.#clock.now());
    return {
      principal: principal ?? refuse('UNAUTHORIZED', 'wrong user name or password'),
      scopes: form.getAll('scope'),
    };
  }

  async #verify(token: string): Promise<Principal | undefined> {
    const nowMs = this.#clock.now();
    try {
      const { jwtVerify } = await jose();
      const { payload } = await jwtVerify(token, this.#key, {
        issuer: this.service,
        audience: this.service,
        algorithms: ['HS256'],
        currentDate: new Date(nowMs),
        clockTolerance: 5,
      });
      const { access } = claims(payload, 'token');
      return this.#access.current.holder(payload.sub || undefined, access ?? [], nowMs);
    } catch (error) {
      if (isCode(error, 'INVALID_VALUE') || (error instanceof Error && 'code' in error)) return undefined;
      throw error;
    }
  }
}

/** A mount will need the right to pull from its source: asked for in the first challenge, it spares the client a second. */
function mountScope(x: Exchange): string {
  const from = x.query.get('mount') === null ? null : x.query.get('from');
  return from !== null && isRepository(from) ? ` repository:${from}:pull` : '';
}

/** Docker asks anew for each push; clients that keep one have five minutes, as with Docker Hub. */
/** Read with the first token: it takes the start of a daemon 30 ms. */
const jose = (): Promise<typeof import('jose')> => import('jose');

const TOKEN_SECONDS = 300;
const FORM_MAX_BYTES = 16_384;
const SCOPES_MAX = 32;

const claims = object({
  access: optional(array(object({ repository: string(), actions: array(oneOf('pull', 'push', 'delete')) }))),
});

/** `repository:team/app:pull,push`, several in one string or one each. Others (`registry:catalog:*`) need no token here. */
export function parseScopes(texts: readonly string[]): Grant[] {
  return texts
    .flatMap((text) => text.split(' '))
    .slice(0, SCOPES_MAX)
    .flatMap((text) => {
      const [type = '', ...rest] = text.split(':');
      const actions = (rest.pop() ?? '').split(',');
      const repository = rest.join(':');
      if (type.replace(/\(.*\)$/, '') !== 'repository' || !isRepository(repository)) return [];
      const all = actions.includes('*');
      const known = (['pull', 'push', 'delete'] as const).filter((action) => all || actions.includes(action));
      return [{ repository, actions: known }];
    });
}

function parseBasic(credentials: string): { name: string; password: string } {
  const text = Buffer.from(credentials, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  return colon < 0 ? { name: text, password: '' } : { name: text.slice(0, colon), password: text.slice(colon + 1) };
}

/** The URL the client knows us by; behind a proxy that ends TLS, what the proxy says. */
function originOf(x: Exchange): string {
  const encrypted = 'encrypted' in x.request.socket;
  const proto = x.header('x-forwarded-proto') === 'https' || encrypted ? 'https' : 'http';
  return `${proto}://${x.header('host') ?? 'localhost'}`;
}
