import type { ApiRequest } from '../http/types.ts';
import { forbidden, unauthorized } from '../status.ts';
import type { TokenIssuer } from './tokens.ts';
import { ANONYMOUS, AUTHENTICATED, type User } from './user.ts';

/** Who a request is from: a client certificate the transport has verified, or a bearer token, or nobody. A bad token is 401, not nobody. */
export async function authenticate(request: ApiRequest, tokens: TokenIssuer): Promise<User> {
  if (request.peer) return request.peer;
  const token = bearerToken(request);
  if (token === undefined) return ANONYMOUS;
  const verified = await tokens.verify(token);
  if (!verified) throw unauthorized();
  return verified.user;
}

const PROTOCOL_PREFIX = 'base64url.bearer.authorization.k8s.io.';

function bearerToken(request: ApiRequest): string | undefined {
  const [scheme = '', token] = (request.headers['authorization'] ?? '').trim().split(/\s+/);
  if (scheme.toLowerCase() === 'bearer') return token ?? '';
  if (scheme !== '') throw unauthorized();
  // Browsers cannot set headers on a WebSocket: the token travels as a protocol name.
  const protocol = (request.headers['sec-websocket-protocol'] ?? '')
    .split(',')
    .map((p) => p.trim())
    .find((p) => p.startsWith(PROTOCOL_PREFIX));
  return protocol === undefined
    ? undefined
    : Buffer.from(protocol.slice(PROTOCOL_PREFIX.length), 'base64url').toString('utf8');
}

/** A user as the subject of a verified client certificate says: CN, and O for each group. */
export function userOfSubject(subject: {
  CN?: string | string[] | undefined;
  O?: string | string[] | undefined;
}): User | undefined {
  const name = Array.isArray(subject.CN) ? subject.CN.at(-1) : subject.CN;
  if (!name) return undefined;
  return { username: name, groups: [...(subject.O === undefined ? [] : [subject.O].flat()), AUTHENTICATED] };
}

/** `--as`: headers that ask to be somebody else; the caller authorizes each before using the result. */
export interface Impersonation {
  user: User;
  /** Resource and name of every claim that needs the verb `impersonate`. */
  claims: { group: string; resource: string; name: string; namespace?: string }[];
}

export function impersonation(request: ApiRequest): Impersonation | undefined {
  const username = request.headers['impersonate-user'];
  const groups = (request.headers['impersonate-group'] ?? '')
    .split(',')
    .map((g) => g.trim())
    .filter(Boolean);
  const uid = request.headers['impersonate-uid'];
  if (username === undefined) {
    if (groups.length > 0 || uid !== undefined)
      throw forbidden({ group: '', resource: '' }, 'requested impersonation of groups or uid without a user');
    return undefined;
  }
  const account = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(username);
  const implied = account ? ['system:serviceaccounts', `system:serviceaccounts:${account[1]}`] : [];
  return {
    user: {
      username,
      ...(uid === undefined ? {} : { uid }),
      groups: [
        ...new Set([...groups, ...implied, username === ANONYMOUS.username ? 'system:unauthenticated' : AUTHENTICATED]),
      ],
    },
    claims: [
      account
        ? { group: '', resource: 'serviceaccounts', name: account[2] ?? '', namespace: account[1] ?? '' }
        : { group: '', resource: 'users', name: username },
      ...groups.map((name) => ({ group: '', resource: 'groups', name })),
      ...(uid === undefined ? [] : [{ group: 'authentication.k8s.io', resource: 'uids', name: uid }]),
    ],
  };
}
