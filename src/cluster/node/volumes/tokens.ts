import type { Clock } from '#base/clock.ts';
import { assert } from '#base/errors.ts';
import type { KubeClient } from '#cluster/client/client.ts';
import type { Live } from '#cluster/client/resources.ts';
import type { Pod, ServiceAccountTokenProjection, TokenRequest, Volume } from '#spec/kubernetes/types.gen.ts';

interface Held {
  token: string;
  renewAtMs: number;
}

const DEFAULT_SECONDS = 3607;
const MAX_AGE_MS = 86_400_000;

/** Service account tokens of this node's pods, bound to them, renewed when four fifths of their life are over or after a day. */
export class PodTokens {
  readonly #client: KubeClient;
  readonly #clock: Clock;
  readonly #held = new Map<string, Map<string, Held>>();

  constructor(client: KubeClient, clock: Clock) {
    this.#client = client;
    this.#clock = clock;
  }

  /** Asks for the tokens of a volume that are missing or due. */
  async renew(pod: Live<Pod>, volume: Volume): Promise<void> {
    const held = this.#held.get(pod.metadata.uid) ?? new Map<string, Held>();
    this.#held.set(pod.metadata.uid, held);
    for (const { serviceAccountToken } of volume.projected?.sources ?? []) {
      if (!serviceAccountToken) continue;
      const key = keyFor(serviceAccountToken);
      if ((held.get(key)?.renewAtMs ?? 0) > this.#clock.now()) continue;
      held.set(key, await this.#request(pod, serviceAccountToken));
    }
  }

  current(uid: string, projection: ServiceAccountTokenProjection): string {
    const held = this.#held.get(uid)?.get(keyFor(projection));
    assert(held, 'a token is written after it was asked for');
    return held.token;
  }

  renewInMs(uid: string): number | undefined {
    const times = [...(this.#held.get(uid)?.values() ?? [])].map((held) => held.renewAtMs);
    return times.length === 0 ? undefined : Math.max(0, Math.min(...times) - this.#clock.now());
  }

  forget(uid: string): void {
    this.#held.delete(uid);
  }

  async #request(pod: Live<Pod>, projection: ServiceAccountTokenProjection): Promise<Held> {
    const { namespace = '', name, uid } = pod.metadata;
    const account = pod.spec.serviceAccountName || 'default';
    const body: TokenRequest = {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      metadata: {},
      spec: {
        audiences: projection.audience ? [projection.audience] : [],
        expirationSeconds: projection.expirationSeconds ?? DEFAULT_SECONDS,
        boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name, uid },
      },
    };
    const path = `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`;
    const { status } = await this.#client.raw<TokenRequest>({ method: 'POST', path, body });
    const lifeMs = Date.parse(status?.expirationTimestamp ?? '') - this.#clock.now();
    return { token: status?.token ?? '', renewAtMs: this.#clock.now() + Math.min(lifeMs * 0.8, MAX_AGE_MS) };
  }
}

function keyFor({ audience = '', expirationSeconds = DEFAULT_SECONDS }: ServiceAccountTokenProjection): string {
  return `${audience} ${expirationSeconds}`;
}
