import type { Clock } from '#base/clock.ts';
import { describeChain } from '#base/errors.ts';
import type { FeedChange } from '#base/feed.ts';
import type { Logger } from '#base/log.ts';
import { DnsListener } from '#cluster/dns/listener.ts';
import { answersOf, encodeQuery, encodeReply, type Reply } from '#cluster/dns/message.ts';
import { type DnsSettings, dnsSettingsShape, serviceNamesShape } from '#cluster/dns/records.ts';
import { ClusterZone } from '#cluster/dns/zone.ts';
import { formatError, questionOf } from '#spec/dns/message.ts';

/** Asks resolvers outside; undefined when none answers. `upstreams` empty: the host's. */
export type Upstream = (
  message: Uint8Array,
  upstreams: readonly string[],
  stream: boolean,
) => Promise<Uint8Array | undefined>;

export interface DnsServerOptions {
  upstream: Upstream;
  clock: Clock;
  log: Logger;
}

/** Key of the settings in the topic; all other keys are Services, `svc/namespace/name`. */
export const SETTINGS_KEY = 'settings';
export const SERVICE_PREFIX = 'svc/';
/** An address that is not there yet (the pods' bridge is being made) is tried again. */
const LISTEN_AGAIN_MS = 500;

/**
 * The cluster's name server. What it knows comes from a feed; it answers on with the last of it when the source is gone.
 *
 *   query ─▶ zone ─┬─ records, NODATA, NXDOMAIN ─▶ answer
 *                  ├─ alias ─▶ its target, from the zone or upstream ─▶ answer
 *                  └─ not ours ─▶ upstream
 */
export class DnsServer {
  readonly #o: DnsServerOptions;
  #settings: DnsSettings = { domain: 'cluster.local', listen: [], upstreams: [] };
  #zone = new ClusterZone('cluster.local');
  readonly #names = new Map<string, unknown>();
  readonly #listeners = new Map<string, DnsListener>();
  readonly #retries = new Map<string, () => void>();
  #turn = 0;

  constructor(options: DnsServerOptions) {
    this.#o = options;
  }

  async apply({ whole, set, drop }: FeedChange): Promise<void> {
    if (whole) {
      this.#names.clear();
      this.#zone = new ClusterZone(this.#settings.domain);
    }
    const settings = set.get(SETTINGS_KEY);
    if (settings !== undefined) this.#configure(dnsSettingsShape(settings, '$'));
    for (const key of drop) {
      this.#names.delete(key);
      this.#zone.drop(key.slice(SERVICE_PREFIX.length));
    }
    for (const [key, value] of set) {
      if (!key.startsWith(SERVICE_PREFIX)) continue;
      this.#zone.set(key.slice(SERVICE_PREFIX.length), serviceNamesShape(value, '$'));
      this.#names.set(key, value);
    }
    await this.#listen();
  }

  /** The answer to one query as it came; any bytes are answered. */
  async answer(message: Uint8Array, stream: boolean): Promise<Uint8Array> {
    const question = questionOf(message);
    if (!question) return formatError(message);
    const found = this.#zone.answer(question.name, question.type);
    const reply = (r: Reply): Uint8Array => encodeReply(message, r, { stream, turn: this.#turn++ });
    const { domain } = this.#zone;
    switch (found.kind) {
      case 'records':
        return reply({ rcode: 'NOERROR', answers: found.records });
      case 'nothing':
        return reply({ rcode: 'NOERROR', answers: [], soaOf: domain });
      case 'noSuchName':
        return reply({ rcode: 'NXDOMAIN', answers: [], soaOf: domain });
      case 'alias':
        return reply({ rcode: 'NOERROR', answers: await this.#follow(found.target, question.type) });
      case 'notOurs': {
        const answer = await this.#o.upstream(message, this.#settings.upstreams, stream);
        return answer ?? reply({ rcode: 'SERVFAIL', answers: [] });
      }
    }
  }

  get size(): number {
    return this.#zone.size;
  }

  async close(): Promise<void> {
    for (const cancel of this.#retries.values()) cancel();
    this.#retries.clear();
    await Promise.all([...this.#listeners.values()].map((listener) => listener.close()));
    this.#listeners.clear();
  }

  #configure(settings: DnsSettings): void {
    if (settings.domain !== this.#settings.domain) {
      this.#zone = new ClusterZone(settings.domain);
      for (const [key, value] of this.#names)
        this.#zone.set(key.slice(SERVICE_PREFIX.length), serviceNamesShape(value, '$'));
    }
    this.#settings = settings;
  }

  /** An alias and what it leads to, so that the client need not ask again. */
  async #follow(target: string, type: string): Promise<Reply['answers']> {
    const alias = { type: 'CNAME' as const, data: target };
    if (type === 'CNAME') return [alias];
    const own = this.#zone.answer(target, type);
    if (own.kind === 'records') return [alias, ...own.records.map((data) => ({ ...data, name: target }))];
    if (own.kind !== 'notOurs') return [alias];
    const query = encodeQuery(1, target, type);
    const outside = answersOf(await this.#o.upstream(query, this.#settings.upstreams, false)) ?? [];
    return [alias, ...(outside as unknown as Reply['answers'])];
  }

  async #listen(): Promise<void> {
    const wanted = new Map(this.#settings.listen.map((at) => [`${at.ip} ${at.port}`, at]));
    for (const [name, listener] of this.#listeners) {
      if (wanted.has(name)) continue;
      this.#listeners.delete(name);
      await listener.close();
    }
    for (const [name, cancel] of this.#retries) {
      if (wanted.has(name)) continue;
      cancel();
      this.#retries.delete(name);
    }
    for (const [name, at] of wanted)
      if (!this.#listeners.has(name) && !this.#retries.has(name)) await this.#open(name, at);
  }

  async #open(name: string, at: { ip: string; port: number }): Promise<void> {
    const { log, clock } = this.#o;
    const listener = new DnsListener(at, (message, stream) => this.answer(message, stream), clock, log);
    try {
      await listener.open();
      this.#listeners.set(name, listener);
    } catch (error) {
      await listener.close();
      log.warn('not listening', { error: describeChain(error) });
      const again = clock.after(LISTEN_AGAIN_MS, () => {
        this.#retries.delete(name);
        this.#open(name, at).catch((cause: unknown) => log.error('not listening', { error: describeChain(cause) }));
      });
      this.#retries.set(name, again);
    }
  }
}
