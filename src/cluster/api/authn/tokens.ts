import { createHash, createPrivateKey, createPublicKey, type KeyObject, randomUUID } from 'node:crypto';
import { decodeProtectedHeader, jwtVerify, SignJWT } from 'jose';
import type { Clock } from '#base/clock.ts';
import { keyOf } from '#cluster/store/objects.ts';
import type { Cache } from '../cache/cache.ts';
import { AUTHENTICATED, type User } from './user.ts';

/**
 * Service account tokens: ES256 JWTs with Kubernetes' claims, bound to the account and, when asked for, to a pod, secret or node.
 * A token ends with its time or with the first of these objects, whichever is earlier; so each use looks at the cache.
 */
export interface TokenRequestOptions {
  namespace: string;
  name: string;
  uid: string;
  audiences: readonly string[];
  seconds: number;
  bound?: { kind: string; name: string; uid: string; node?: string };
}

export interface TokenIssuer {
  issue(request: TokenRequestOptions): Promise<{ token: string; audiences: string[]; expiresAt: string }>;
  /** The user of a token for any of `audiences` (default: this API server), or undefined. */
  verify(token: string, audiences?: readonly string[]): Promise<{ user: User; audiences: string[] } | undefined>;
  /** The public half, for `/openid/v1/jwks`. */
  jwks(): object;
  readonly issuer: string;
}

const TOKEN_MAX_BYTES = 16 * 1024;
/** Verified signatures kept: a node's kubelet or a controller sends the same token with each request. */
const MEMO_TOKENS = 1000;

interface KubernetesClaim {
  namespace?: string;
  serviceaccount?: { name?: string; uid?: string };
  pod?: { name?: string; uid?: string };
  secret?: { name?: string; uid?: string };
  node?: { name?: string; uid?: string };
}

export function tokenIssuer(options: { key: string; issuer: string; clock: Clock; cache: Cache }): TokenIssuer {
  const { issuer, clock, cache } = options;
  const privateKey = createPrivateKey(options.key);
  const publicKey = createPublicKey(privateKey);
  const keyId = keyIdOf(publicKey);
  const memo = new Map<string, { claim: KubernetesClaim; audiences: string[]; expiresMs: number; id: string }>();

  return {
    issuer,
    async issue({ namespace, name, uid, audiences, seconds, bound }) {
      const audience = audiences.length === 0 ? [issuer] : [...audiences];
      const nowSeconds = Math.floor(clock.now() / 1000);
      const claim: KubernetesClaim = { namespace, serviceaccount: { name, uid } };
      if (bound?.kind === 'Pod') claim.pod = { name: bound.name, uid: bound.uid };
      if (bound?.kind === 'Secret') claim.secret = { name: bound.name, uid: bound.uid };
      if (bound?.kind === 'Node') claim.node = { name: bound.name, uid: bound.uid };
      if (bound?.node !== undefined) claim.node = { name: bound.node };
      const token = await new SignJWT({ 'kubernetes.io': claim })
        .setProtectedHeader({ alg: 'ES256', kid: keyId })
        .setIssuer(issuer)
        .setSubject(`system:serviceaccount:${namespace}:${name}`)
        .setAudience(audience)
        .setIssuedAt(nowSeconds)
        .setNotBefore(nowSeconds)
        .setExpirationTime(nowSeconds + seconds)
        .setJti(randomUUID())
        .sign(privateKey);
      return {
        token,
        audiences: audience,
        expiresAt: `${new Date((nowSeconds + seconds) * 1000).toISOString().slice(0, 19)}Z`,
      };
    },

    async verify(token, audiences = [issuer]) {
      const known = memo.get(token) ?? (await check(token));
      if (!known || known.expiresMs <= clock.now()) return undefined;
      const matching = known.audiences.filter((a) => audiences.includes(a));
      if (matching.length === 0 || !stillStands(cache, known.claim)) return undefined;
      const { namespace = '', serviceaccount, pod, node } = known.claim;
      const extra: Record<string, string[]> = { 'authentication.kubernetes.io/credential-id': [`JTI=${known.id}`] };
      if (pod?.name) extra['authentication.kubernetes.io/pod-name'] = [pod.name];
      if (pod?.uid) extra['authentication.kubernetes.io/pod-uid'] = [pod.uid];
      if (node?.name) extra['authentication.kubernetes.io/node-name'] = [node.name];
      return {
        user: {
          username: `system:serviceaccount:${namespace}:${serviceaccount?.name ?? ''}`,
          uid: serviceaccount?.uid ?? '',
          groups: ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, AUTHENTICATED],
          extra,
        },
        audiences: matching,
      };
    },

    jwks: () => ({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid: keyId, alg: 'ES256', use: 'sig' }] }),
  };

  async function check(
    token: string,
  ): Promise<{ claim: KubernetesClaim; audiences: string[]; expiresMs: number; id: string } | undefined> {
    if (token.length > TOKEN_MAX_BYTES) return undefined;
    try {
      if (decodeProtectedHeader(token).alg !== 'ES256') return undefined;
      const { payload } = await jwtVerify(token, publicKey, {
        issuer,
        algorithms: ['ES256'],
        currentDate: new Date(clock.now()),
      });
      const audience = payload.aud === undefined ? [] : [payload.aud].flat();
      const result = {
        claim: (payload['kubernetes.io'] ?? {}) as KubernetesClaim,
        audiences: audience,
        expiresMs: (payload.exp ?? 0) * 1000,
        id: payload.jti ?? '',
      };
      if (memo.size >= MEMO_TOKENS) memo.clear();
      memo.set(token, result);
      return result;
    } catch {
      return undefined; // not a token of ours, or not any more: the caller answers 401
    }
  }
}

function stillStands(cache: Cache, claim: KubernetesClaim): boolean {
  const { namespace } = claim;
  const alive = (resource: string, ref: { name?: string; uid?: string } | undefined, namespaced = true): boolean => {
    if (!ref?.name || ref.uid === undefined) return ref === undefined || resource === 'nodes';
    const stored = cache
      .resource(resource)
      .get(keyOf(resource, { namespace: namespaced ? namespace : undefined, name: ref.name }));
    return stored?.object.metadata.uid === ref.uid;
  };
  return (
    claim.serviceaccount?.name !== undefined &&
    alive('serviceaccounts', claim.serviceaccount) &&
    alive('pods', claim.pod) &&
    alive('secrets', claim.secret) &&
    alive('nodes', claim.node, false)
  );
}

function keyIdOf(key: KeyObject): string {
  return createHash('sha256')
    .update(key.export({ type: 'spki', format: 'der' }))
    .digest('base64url');
}
