import { createHash } from 'node:crypto';
import type { Clock } from '#base/clock.ts';
import { describeChain } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { Serial } from '#base/queue.ts';
import type { NetKernel } from '#kernel/netlink/hand.ts';
import { dumpLinks, parseLinks } from '#kernel/netlink/link.ts';
import { encode, type Message, NETLINK_NETFILTER, NETLINK_ROUTE, type Received } from '#kernel/netlink/wire.ts';
import {
  batch,
  dumpChains,
  dumpElements,
  dumpRules,
  dumpSets,
  dumpTables,
  getGeneration,
} from '#kernel/nft/message.ts';
import {
  parseChains,
  parseElements,
  parseGeneration,
  parseRules,
  parseSets,
  parseTables,
  type Ruleset,
} from '#kernel/nft/ruleset.ts';
import { compileHostGate, type FirewallNote, type HostGate } from '#network/firewall.ts';
import { type Reach, type ReachTarget, reachOf } from '#network/reach.ts';

/** How long a change of the host's firewall may go unnoticed by ports that are published already. */
const LOOK_EVERY_MS = 2_000;

/** Keeps the gate (firewall.ts) equal to the host's input rules: looked at before each publish, and every two seconds after. */
export class GateKeeper {
  readonly #daemon: string;
  readonly #kernel: NetKernel;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #serial = new Serial('host firewall');
  #generation = -1;
  #hash = '';
  #made: HostGate['made'] = { chains: [], sets: [] };
  #notes: FirewallNote[] = [];
  #cancel: (() => void) | undefined;

  constructor(options: { daemon: string; kernel: NetKernel; clock: Clock; log: Logger }) {
    this.#daemon = options.daemon;
    this.#kernel = options.kernel;
    this.#clock = options.clock;
    this.#log = options.log;
  }

  /** What `doctor` and `why` tell about the host's firewall. */
  get notes(): readonly FirewallNote[] {
    return this.#notes;
  }

  refresh(): Promise<void> {
    return this.#serial.run(async () => {
      const generation = parseGeneration(await this.#ask([getGeneration()]));
      if (generation === this.#generation) return;
      const gate = compileHostGate(this.#daemon, await this.#read(), this.#made);
      // Names are numbered from nought each time, so equal rulesets give equal messages once something was made.
      const hash = createHash('sha256').update(encode(gate.messages)).digest('hex');
      if (hash !== this.#hash) {
        await this.#kernel.netlink({
          what: 'copy the host’s input rules',
          protocol: NETLINK_NETFILTER,
          messages: batch(gate.messages),
        });
        // What is sent next time also takes this away, so the next hash is compared with that form.
        this.#made = gate.made;
        this.#hash = createHash('sha256')
          .update(encode(compileHostGate(this.#daemon, await this.#read(), this.#made).messages))
          .digest('hex');
        this.#notes = gate.notes;
        for (const note of gate.notes) this.#log.warn('host firewall', { where: note.where, says: note.says });
      }
      this.#generation = parseGeneration(await this.#ask([getGeneration()]));
    });
  }

  /** Who reaches these ports, by link and source; undefined for one whose rules cut the sources into too many pieces. */
  async reach(targets: readonly ReachTarget[]): Promise<(Reach[] | undefined)[]> {
    if (targets.length === 0) return [];
    const ruleset = await this.#read();
    const links = parseLinks(
      await this.#kernel.netlink({ what: 'read links', protocol: NETLINK_ROUTE, messages: [dumpLinks()] }),
    );
    // What stands in a bridge brings nothing in by its own name.
    const ways = links.filter(({ master }) => master === undefined);
    return targets.map((target) => reachOf(this.#daemon, ruleset, target, ways));
  }

  watch(needed: () => boolean): void {
    this.#cancel = this.#clock.after(LOOK_EVERY_MS, () => {
      const looked = needed() ? this.refresh() : Promise.resolve();
      looked
        .catch((error) => {
          // Closed meanwhile: its helper has ended with it.
          if (this.#cancel) this.#log.warn('host firewall not read', { error: describeChain(error) });
        })
        .finally(() => {
          if (this.#cancel) this.watch(needed);
        });
    });
  }

  close(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  async #read(): Promise<Ruleset> {
    const tables = parseTables(await this.#ask([dumpTables()]));
    const chains = parseChains(await this.#ask([dumpChains()]));
    const rules = parseRules(await this.#ask([dumpRules()]));
    const sets = parseSets(await this.#ask([dumpSets()]));
    for (const set of sets)
      if (set.table !== this.#daemon)
        set.elements = parseElements(
          await this.#ask([dumpElements({ family: set.family, table: set.table }, set.name)]),
        );
    return { tables, chains, rules, sets };
  }

  #ask(messages: Message[]): Promise<Received[]> {
    return this.#kernel.netlink({ what: 'read the host’s firewall', protocol: NETLINK_NETFILTER, messages });
  }
}
