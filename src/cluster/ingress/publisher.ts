import type { Clock } from '#base/clock.ts';
import { describeChain, isCode } from '#base/errors.ts';
import type { FeedTopic } from '#base/feed.ts';
import type { Logger } from '#base/log.ts';
import type { EventRecorder } from '#cluster/client/events.ts';
import { DONE, type Requeue, WorkQueue } from '#cluster/client/queue.ts';
import {
  ENDPOINT_SLICES,
  INGRESS_CLASSES,
  INGRESSES,
  keyIn,
  keyOf,
  type Live,
  type ObjectKey,
  SECRETS,
  SERVICES,
} from '#cluster/client/resources.ts';
import type { ClusterView } from '#cluster/client/view.ts';
import { type CertificateEntry, FALLBACK_HOST, KEY, type SettingsEntry } from '#cluster/ingress/model.ts';
import { OwnCertificates } from '#cluster/ingress/own-certificates.ts';
import {
  backendKey,
  certificateOf,
  type IngressPlan,
  isOurs,
  planBackend,
  planIngress,
} from '#cluster/ingress/plan.ts';
import { SERVICE_NAME_LABEL } from '#spec/kubernetes/endpoints.ts';
import type { Ingress } from '#spec/kubernetes/types.gen.ts';

/** The node has not said yet where it is. */
const ADDRESS_AGAIN_MS = 1_000;

export interface IngressPublisherOptions {
  view: ClusterView;
  topic: FeedTopic;
  clock: Clock;
  log: Logger;
  events: EventRecorder;
  settings: SettingsEntry;
  /** Addresses at which clients reach the proxy: what `kubectl get ingress` shows. */
  addresses: () => readonly string[];
  /** Signs for a host by the cluster's own ingress authority. */
  issue: (host: string) => CertificateEntry;
}

/** Tells the proxy what the API knows, and the API where the proxy is. */
export class IngressPublisher {
  readonly #o: IngressPublisherOptions;
  readonly #queue: WorkQueue;
  readonly #plans = new Map<ObjectKey, IngressPlan>();
  /** Backend → addresses it leads to, those left out that serve only because nobody else does. */
  readonly #led = new Map<string, ReadonlySet<string>>();
  #drains: { ip: string; done: () => void }[] = [];
  readonly #own: OwnCertificates;
  #stopRenewing: () => void = () => undefined;

  /** Before the view starts. */
  constructor(options: IngressPublisherOptions) {
    this.#o = options;
    this.#own = new OwnCertificates(options.clock, options.issue);
    const { view, clock, log } = options;
    const slices = view.of(ENDPOINT_SLICES);
    slices.informer.addIndex('service', (s) => [
      keyIn(s.metadata.namespace, s.metadata.labels?.[SERVICE_NAME_LABEL] ?? ''),
    ]);
    this.#queue = new WorkQueue({
      name: 'ingress',
      clock,
      work: (key) => this.#reconcile(key),
      onError: (key, error) => log.warn('ingress failed', { key, error: describeChain(error) }),
    });
    view.of(INGRESSES).informer.onChange((now, before) => {
      const ingress = now ?? before;
      if (ingress) this.#queue.add(keyOf(ingress));
    });
    view.of(INGRESS_CLASSES).informer.onChange(() => {
      for (const ingress of view.of(INGRESSES).list()) this.#queue.add(keyOf(ingress));
    });
    // Endpoints do not wait in the queue: a pod that ends waits for them.
    view.of(SERVICES).informer.onChange((now, before) => {
      const service = now ?? before;
      if (service) this.#sayBackendsOf(keyOf(service));
    });
    slices.informer.onChange((now, before) => {
      for (const slice of [now, before])
        if (slice)
          this.#sayBackendsOf(keyIn(slice.metadata.namespace, slice.metadata.labels?.[SERVICE_NAME_LABEL] ?? ''));
    });
    view.of(SECRETS).informer.onChange((now, before) => {
      const secret = now ?? before;
      const key = secret ? keyOf(secret) : '';
      for (const [ingress, plan] of this.#plans) if (plan.secrets.includes(key)) this.#queue.add(ingress);
    });
    options.topic.set(KEY.settings, options.settings);
    options.topic.set(`${KEY.own}${FALLBACK_HOST}`, this.#own.of(FALLBACK_HOST));
  }

  /** After the view's first lists: from here on the proxy is told. */
  start(): void {
    for (const ingress of this.#o.view.of(INGRESSES).list()) this.#note(ingress);
    this.#o.topic.declare();
    this.#stopRenewing = this.#own.keepFresh((host, entry) => this.#o.topic.set(`${KEY.own}${host}`, entry));
    this.#queue.start();
  }

  async stop(): Promise<void> {
    this.#stopRenewing();
    await this.#queue.stop();
  }

  /** Resolves when the proxy has confirmed that it sends no new request to this address (unless nobody else is left). */
  async drained(ip: string): Promise<void> {
    if (this.#leadsTo(ip)) await new Promise<void>((done) => this.#drains.push({ ip, done }));
    await this.#o.topic.confirmed();
  }

  #leadsTo(ip: string): boolean {
    return [...this.#led.values()].some((ips) => ips.has(ip));
  }

  async #reconcile(key: ObjectKey): Promise<Requeue> {
    const { view, topic, events } = this.#o;
    const ingress = view.of(INGRESSES).get(key);
    if (!ingress || !this.#isOurs(ingress)) {
      this.#plans.delete(key);
      topic.drop(`${KEY.ingress}${key}`);
      this.#sweep();
      return DONE;
    }
    const plan = this.#note(ingress);
    this.#sweep();
    for (const { reason, message } of [...plan.complaints, ...this.#secretComplaints(plan)])
      events.record(INGRESSES, ingress, { type: 'Warning', reason, message });
    return this.#writeStatus(ingress);
  }

  #isOurs(ingress: Ingress): boolean {
    return isOurs(ingress, (name) => this.#o.view.of(INGRESS_CLASSES).get(name));
  }

  #note(ingress: Live<Ingress>): IngressPlan {
    const { topic, view } = this.#o;
    const plan = planIngress(ingress);
    if (!this.#isOurs(ingress)) return plan;
    const key = keyOf(ingress);
    this.#plans.set(key, plan);
    for (const backend of plan.backends) this.#sayBackend(backend);
    for (const secret of plan.secrets) {
      const certificate = certificateOf(view.of(SECRETS).get(secret));
      if (certificate) topic.set(`${KEY.secret}${secret}`, certificate);
      else topic.drop(`${KEY.secret}${secret}`);
    }
    for (const { host } of plan.tlsHosts) topic.set(`${KEY.own}${host}`, this.#own.of(host));
    topic.set(`${KEY.ingress}${key}`, plan.entry);
    return plan;
  }

  /** What no Ingress names any more goes. */
  #sweep(): void {
    const { topic } = this.#o;
    const plans = [...this.#plans.values()];
    const used = new Set([
      KEY.settings,
      `${KEY.own}${FALLBACK_HOST}`,
      ...[...this.#plans.keys()].map((key) => `${KEY.ingress}${key}`),
      ...plans.flatMap((p) => p.backends.map(backendKey)),
      ...plans.flatMap((p) => p.secrets.map((s) => `${KEY.secret}${s}`)),
      ...plans.flatMap((p) => p.tlsHosts.map(({ host }) => `${KEY.own}${host}`)),
    ]);
    for (const key of topic.keys()) if (!used.has(key)) topic.drop(key);
    this.#own.keepOnly((host) => used.has(`${KEY.own}${host}`));
    for (const key of this.#led.keys()) if (!used.has(backendKey(key))) this.#led.delete(key);
    this.#settleDrains();
  }

  #sayBackendsOf(service: ObjectKey): void {
    for (const plan of this.#plans.values())
      for (const backend of plan.backends) if (backend.startsWith(`${service}:`)) this.#sayBackend(backend);
  }

  #sayBackend(key: string): void {
    const { view, topic } = this.#o;
    const service = key.slice(0, key.lastIndexOf(':'));
    const slices = view.of(ENDPOINT_SLICES).informer.by('service', service);
    const { entry, leaving } = planBackend(key, view.of(SERVICES).get(service), slices);
    topic.set(backendKey(key), entry);
    this.#led.set(key, new Set(leaving ? [] : entry.targets.map((target) => target.ip)));
    this.#settleDrains();
  }

  #settleDrains(): void {
    const waiting = this.#drains;
    this.#drains = waiting.filter(({ ip }) => this.#leadsTo(ip));
    for (const { ip, done } of waiting) if (!this.#leadsTo(ip)) done();
  }

  #secretComplaints(plan: IngressPlan): { reason: string; message: string }[] {
    return plan.secrets
      .filter((secret) => !certificateOf(this.#o.view.of(SECRETS).get(secret)))
      .map((secret) => ({
        reason: 'CertificateMissing',
        message: `secret ${secret} has no tls.crt and tls.key; clients are shown a certificate of the cluster's own authority`,
      }));
  }

  async #writeStatus(ingress: Live<Ingress>): Promise<Requeue> {
    const wanted = this.#o.addresses().map((ip) => ({ ip }));
    if (wanted.length === 0) return { afterMs: ADDRESS_AGAIN_MS };
    const present = (ingress.status?.loadBalancer?.ingress ?? []).map(({ ip }) => ({ ip }));
    if (JSON.stringify(present) === JSON.stringify(wanted)) return DONE;
    try {
      const status = { loadBalancer: { ingress: wanted } };
      await this.#o.view.of(INGRESSES).updateStatus({ ...ingress, status });
    } catch (error) {
      if (!isCode(error, 'KUBE_NOT_FOUND')) throw error; // it went meanwhile
    }
    return DONE;
  }
}
