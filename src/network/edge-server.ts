import { rename, writeFile } from 'node:fs/promises';
import type { Clock } from '#base/clock.ts';
import { describeChain, isCode } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { KeyedSerial, Serial } from '#base/queue.ts';
import { array, object } from '#base/shape.ts';
import type { DnsQuery, NetHand } from '#kernel/netlink/hand.ts';
import type { Forwarder } from '#network/dns/forward.ts';
import { replyTo, serverFailure } from '#network/dns/reply.ts';
import { Zone } from '#network/dns/zone.ts';
import { DNS_ADDRESS, DNS_PORT, type Edge, type EdgeEntry, edgeEntryShape, type Hold } from '#network/edge.ts';
import { PortTaken } from '#network/errors.ts';
import { formatError, questionOf } from '#spec/dns/message.ts';

/** Several changes in a row are written once. */
const SAVE_AFTER_MS = 30;

/**
 * The edge itself: names and host ports, by sandbox. What it was told last is on disk, so that it serves again by itself
 * after its own death; what the daemon tells it replaces that.
 *
 *   query in a namespace ─▶ estiba-net ─▶ zone ─┬─ ours ─▶ answer
 *                                               └─ not ours ─▶ forwarder ─▶ upstream
 */
export class EdgeServer implements Edge {
  readonly #hand: NetHand;
  readonly #forwarder: Forwarder;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #stateFile: string;
  readonly #zone = new Zone();
  /** What is open for each sandbox: keys of the helper's sockets. */
  readonly #open = new Map<
    string,
    { dns: number | undefined; netns: string | undefined; holds: Map<string, number> }
  >();
  readonly #byKey = new Map<number, string>();
  readonly #serial = new KeyedSerial<string>('edge');
  readonly #saving = new Serial('edge state');
  #nextKey = 1;
  #turn = 0;
  #saveSoon: (() => void) | undefined;

  constructor(options: { hand: NetHand; forwarder: Forwarder; clock: Clock; log: Logger; stateFile: string }) {
    this.#hand = options.hand;
    this.#forwarder = options.forwarder;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#stateFile = options.stateFile;
    this.#hand.onQuery((query) => {
      this.#onQuery(query).catch((error) => this.#log.warn('query not answered', { error: describeChain(error) }));
    });
  }

  /** Serves what was served before; what cannot be (a namespace that is gone) is said and left out. */
  async restore(state: unknown): Promise<void> {
    const { entries } = object({ entries: array(edgeEntryShape) })(state, '$');
    for (const entry of entries) {
      try {
        await this.put(entry);
      } catch (error) {
        this.#log.warn('entry not restored', { id: entry.id, error: describeChain(error) });
      }
    }
  }

  put(entry: EdgeEntry): Promise<void> {
    return this.#serial.run(entry.id, async () => {
      const open = this.#open.get(entry.id) ?? { dns: undefined, netns: undefined, holds: new Map<string, number>() };
      this.#open.set(entry.id, open);
      const wanted = new Map(entry.holds.map((hold) => [JSON.stringify(hold), hold]));
      const added: string[] = [];
      try {
        // A new place for an old name: those that go make room first.
        for (const [name, key] of open.holds) if (!wanted.has(name)) await this.#releaseHold(open.holds, name, key);
        for (const [name, hold] of wanted) {
          if (open.holds.has(name)) continue;
          open.holds.set(name, await this.#hold(hold));
          added.push(name);
        }
        if (open.dns !== undefined && open.netns !== entry.netns) await this.#closeDns(open);
        if (entry.netns !== undefined && open.dns === undefined) {
          const key = this.#nextKey++;
          await this.#hand.openDns(key, entry.netns, { ip: DNS_ADDRESS, port: DNS_PORT });
          open.dns = key;
          open.netns = entry.netns;
          this.#byKey.set(key, entry.id);
        }
      } catch (error) {
        for (const name of added) await this.#releaseHold(open.holds, name, open.holds.get(name));
        if (this.#zone.get(entry.id) === undefined) this.#open.delete(entry.id);
        throw error;
      }
      this.#zone.put(entry);
      this.#save();
    });
  }

  drop(id: string): Promise<void> {
    return this.#serial.run(id, async () => {
      const open = this.#open.get(id);
      this.#zone.drop(id);
      this.#open.delete(id);
      if (!open) return;
      await this.#closeDns(open);
      for (const [name, key] of open.holds) await this.#releaseHold(open.holds, name, key);
      this.#save();
    });
  }

  async list(): Promise<string[]> {
    return this.#zone.entries().map((entry) => entry.id);
  }

  /** Writes what is pending. */
  async flush(): Promise<void> {
    this.#saveSoon?.();
    this.#saveSoon = undefined;
    await this.#write();
  }

  async #onQuery(query: DnsQuery): Promise<void> {
    const id = this.#byKey.get(query.key);
    const question = questionOf(query.message);
    if (id === undefined || !question) return this.#hand.answerDns(query.handle, formatError(query.message));
    const answer = this.#zone.answer(id, question.name, question.type);
    if (answer.kind !== 'forward') {
      const reply = replyTo(query.message, answer, { stream: query.stream, turn: this.#turn++ });
      return this.#hand.answerDns(query.handle, reply);
    }
    const reply = await this.#forwarder.ask(query.message, answer.upstreams, query.stream);
    this.#hand.answerDns(query.handle, reply ?? serverFailure(query.message));
  }

  async #hold(hold: Hold): Promise<number> {
    const key = this.#nextKey++;
    const at = { ip: hold.ip, port: hold.port };
    try {
      if (hold.relayTo && hold.protocol === 'udp') await this.#hand.relayDatagrams(key, at, hold.relayTo);
      else if (hold.relayTo) await this.#hand.relay(key, at, hold.relayTo);
      else await this.#hand.hold(key, hold.protocol === 'udp' ? 'datagram' : 'stream', at);
    } catch (error) {
      if (isCode(error, 'NETWORK_STEP_FAILED') && error.data['errno'] === 'EADDRINUSE')
        throw new PortTaken({ ...at, protocol: hold.protocol, holder: undefined }, { cause: error });
      throw error;
    }
    return key;
  }

  async #releaseHold(holds: Map<string, number>, name: string, key: number | undefined): Promise<void> {
    holds.delete(name);
    if (key !== undefined) await this.#hand.release(key);
  }

  async #closeDns(open: { dns: number | undefined; netns: string | undefined }): Promise<void> {
    if (open.dns === undefined) return;
    this.#byKey.delete(open.dns);
    await this.#hand.closeDns(open.dns);
    open.dns = undefined;
    open.netns = undefined;
  }

  #save(): void {
    this.#saveSoon ??= this.#clock.after(SAVE_AFTER_MS, () => {
      this.#saveSoon = undefined;
      this.#write().catch((error) => this.#log.error('state not written', { error: describeChain(error) }));
    });
  }

  #write(): Promise<void> {
    return this.#saving.run(async () => {
      const next = `${this.#stateFile}.new`;
      await writeFile(next, JSON.stringify({ entries: this.#zone.entries() }), { mode: 0o600 });
      await rename(next, this.#stateFile); // whole or not at all, for whoever reads it after our death
    });
  }
}
