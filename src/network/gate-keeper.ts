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
import { withoutCompat } from '#kernel/xtables/compat.ts';
import { compileHostGate, type FirewallNote, type HostGate } from '#network/firewall.ts';
import { type LegacyTables, readLegacy, withLegacy } from '#network/legacy.ts';
import { type Reach, type ReachTarget, reachOf } from '#network/reach.ts';
import { forwardNotes } from '#network/transit.ts';

/** How long a change of the host's firewall may go unnoticed by ports that are published already. */
const LOOK_EVERY_MS = 2_000;

/** Keeps the gate (firewall.ts) equal to the host's input rules: looked at before each publish, and every two seconds after. */
export class GateKeeper {
  readonly #daemon: string;
  readonly #kernel: NetKernel;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #bridges: () => readonly string[];
  readonly #serial = new Serial('host firewall');
  #generation = -1;
  #legacy = '';
  #hash = '';
  #made: HostGate['made'] = { chains: [], sets: [] };
  #notes: FirewallNote[] = [];
  #cancel: (() => void) | undefined;

  /** `bridges`: those of our networks, whose traffic others' forward rules may stop. */
  constructor(options: {
    daemon: string;
    kernel: NetKernel;
    clock: Clock;
    log: Logger;
    bridges: () => readonly string[];
  }) {
    this.#daemon = options.daemon;
    this.#kernel = options.kernel;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#bridges = options.bridges;
  }

  /** What `doctor` and `why` tell about the host's firewall. */
  get notes(): readonly FirewallNote[] {
    return this.#notes;
  }

  refresh(): Promise<void> {
    return this.#serial.run(async () => {
      const [said, legacy] = await Promise.all([this.#ask([getGeneration()]), readLegacy(this.#kernel)]);
      if (parseGeneration(said) === this.#generation && legacy.mark === this.#legacy) return;
      const ruleset = await this.#read(legacy);
      const gate = compileHostGate(this.#daemon, ruleset, this.#made);
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
          .update(encode(compileHostGate(this.#daemon, await this.#read(legacy), this.#made).messages))
          .digest('hex');
      }
      this.#note(gate, ruleset);
      this.#generation = parseGeneration(await this.#ask([getGeneration()]));
      this.#legacy = legacy.mark;
    });
  }

  /** What `refresh` would note of the host's firewall; nothing is changed. */
  async look(): Promise<FirewallNote[]> {
    const ruleset = await this.#read();
    return this.#notesOf(compileHostGate(this.#daemon, ruleset, this.#made), ruleset);
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

  #note(gate: HostGate, ruleset: Ruleset): void {
    const before = new Set(this.#notes.map(({ where }) => where));
    this.#notes = this.#notesOf(gate, ruleset);
    for (const { where, says } of this.#notes) if (!before.has(where)) this.#log.warn('host firewall', { where, says });
  }

  #notesOf(gate: HostGate, ruleset: Ruleset): FirewallNote[] {
    return [...gate.notes, ...forwardNotes(this.#daemon, ruleset, this.#bridges())];
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

  #read(legacy?: LegacyTables): Promise<Ruleset> {
    return readRuleset(this.#kernel, { daemon: this.#daemon, legacy });
  }

  #ask(messages: Message[]): Promise<Received[]> {
    return ask(this.#kernel, messages);
  }
}

/** What nftables and iptables-legacy hold, the elements of sets too but for those of `daemon`, which are many and its own. */
export async function readRuleset(
  kernel: NetKernel,
  { daemon, legacy }: { daemon?: string; legacy?: LegacyTables | undefined } = {},
): Promise<Ruleset> {
  const tables = parseTables(await ask(kernel, [dumpTables()]));
  const chains = parseChains(await ask(kernel, [dumpChains()]));
  const rules = parseRules(await ask(kernel, [dumpRules()]));
  const sets = parseSets(await ask(kernel, [dumpSets()]));
  for (const set of sets)
    if (set.table !== daemon)
      set.elements = parseElements(
        await ask(kernel, [dumpElements({ family: set.family, table: set.table }, set.name)]),
      );
  return withLegacy(withoutCompat({ tables, chains, rules, sets }), legacy ?? (await readLegacy(kernel)));
}

function ask(kernel: NetKernel, messages: Message[]): Promise<Received[]> {
  return kernel.netlink({ what: 'read the host’s firewall', protocol: NETLINK_NETFILTER, messages });
}
