import type { Clock } from '#base/clock.ts';
import { describeChain, isCode } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import type { KubeClient } from '#cluster/client/client.ts';
import { keyIn, LEASES, type Live, microTimestamp, NODES } from '#cluster/client/resources.ts';
import { newNode, nodeLabels, nodeStatus, relabelled } from '#cluster/node/node-object.ts';
import type { NodeHost, NodeImages, NodeSettings } from '#cluster/node/seams.ts';
import type { Node } from '#spec/kubernetes/types.gen.ts';

const LEASES_NAMESPACE = 'kube-node-lease';
const RENEW_MS = 10_000;
const LEASE_SECONDS = 40;
/** The status is written when something changed, and this often all the same. */
const STATUS_MS = 300_000;
const RETRY_MS = 500;

export interface RegistrationOptions {
  client: KubeClient;
  clock: Clock;
  log: Logger;
  host: NodeHost;
  images: Pick<NodeImages, 'list'>;
  settings: NodeSettings;
}

/** The node's own object and lease: made at start, renewed every ten seconds, the status every five minutes. */
export class Registration {
  readonly #o: RegistrationOptions;
  #cancel: () => void = () => undefined;
  #stopped = false;
  #statusAtMs = 0;

  constructor(options: RegistrationOptions) {
    this.#o = options;
  }

  /** Resolves when the node is Ready. */
  async start(): Promise<void> {
    await this.#writeStatus(await this.#register());
    await this.#renew();
    this.#schedule(RENEW_MS);
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel();
  }

  async #register(): Promise<Live<Node>> {
    const { client, settings, host } = this.#o;
    const facts = host.facts();
    try {
      return await client.create(NODES, newNode(settings, facts));
    } catch (error) {
      if (!isCode(error, 'KUBE_ALREADY_EXISTS')) throw error;
    }
    const known = await client.get(NODES, settings.name);
    const labelled = relabelled(known, nodeLabels(settings, facts));
    return labelled ? client.update(NODES, labelled) : known;
  }

  async #writeStatus(node: Live<Node>): Promise<void> {
    const { client, clock, host, images, settings } = this.#o;
    const status = nodeStatus(node.status, settings, host.facts(), await images.list(), clock.now());
    await client.patch(NODES, settings.name, { status }, { type: 'strategic', sub: 'status' });
    this.#statusAtMs = clock.monotonic();
  }

  #schedule(delayMs: number): void {
    if (this.#stopped) return;
    this.#cancel = this.#o.clock.after(delayMs, () => void this.#tick());
  }

  async #tick(): Promise<void> {
    const { client, clock, log, settings } = this.#o;
    try {
      await this.#renew();
      const node = await client.find(NODES, settings.name);
      const ready = node?.status?.conditions?.find((c) => c.type === 'Ready')?.status === 'True';
      // Somebody deleted it, or gave it up while we were silent.
      if (!node) await this.#writeStatus(await this.#register());
      else if (!ready || clock.monotonic() - this.#statusAtMs >= STATUS_MS) await this.#writeStatus(node);
      this.#schedule(RENEW_MS);
    } catch (error) {
      log.warn('the node could not report', { error: describeChain(error) });
      this.#schedule(RETRY_MS);
    }
  }

  async #renew(): Promise<void> {
    const { client, clock, settings } = this.#o;
    const key = keyIn(LEASES_NAMESPACE, settings.name);
    const spec = {
      holderIdentity: settings.name,
      leaseDurationSeconds: LEASE_SECONDS,
      renewTime: microTimestamp(clock.now()),
    };
    const held = await client.find(LEASES, key);
    if (held) await client.update(LEASES, { ...held, spec: { ...held.spec, ...spec } });
    else await client.create(LEASES, { metadata: { namespace: LEASES_NAMESPACE, name: settings.name }, spec });
  }
}
