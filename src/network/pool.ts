import { join } from 'node:path';
import { describeChain } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import type { Random } from '#base/random.ts';
import type { NetKernel } from '#kernel/netlink/hand.ts';
import { redirectDns } from '#network/dns/redirect.ts';
import { planNamespace } from '#network/plan.ts';
import { streamSteps } from '#network/steps.ts';

/**
 * Network namespaces made ahead: making one costs a container's start 0.5–1 ms, taking one nothing. They lie in the same
 * directory as those in use, under names that say nothing; whatever is there without a sandbox's record is swept at start.
 */
export class NamespacePool {
  readonly #kernel: NetKernel;
  readonly #dir: string;
  readonly #random: Random;
  readonly #log: Logger;
  readonly #size: number;
  readonly #later: (work: () => Promise<void>) => void;
  readonly #redirect = redirectDns();
  readonly #ready: string[] = [];
  /** The one being made ahead; never rejects. */
  #making: Promise<void> | undefined;
  #closed = false;

  constructor(options: {
    kernel: NetKernel;
    dir: string;
    random: Random;
    log: Logger;
    size: number;
    /** Does what nobody waits for. */
    later: (work: () => Promise<void>) => void;
  }) {
    this.#kernel = options.kernel;
    this.#dir = options.dir;
    this.#random = options.random;
    this.#log = options.log;
    this.#size = options.size;
    this.#later = options.later;
  }

  get ready(): readonly string[] {
    return this.#ready;
  }

  /** Whoever takes one calls `fill` when he is done: the helper that makes the next one is the same that plugs this one. */
  async take(): Promise<string> {
    return this.#ready.shift() ?? (await this.#make());
  }

  /** In a user namespace with that map of ids, which belongs to nobody else: never made ahead. */
  async makeOwned(map: string): Promise<{ netns: string; userns: string }> {
    const netns = this.#newPath();
    const userns = `${netns}.user`;
    await streamSteps(this.#kernel, planNamespace(netns, 'flag --userns', this.#redirect, { path: userns, map }));
    return { netns, userns };
  }

  /** Makes what is missing, one at a time and behind everybody's back: later, as long as half of them are left. */
  fill(): void {
    if (!this.#isWanted) return;
    if (this.#ready.length < this.#size / 2) setImmediate(() => void this.#makeAhead());
    else this.#later(() => this.#makeAhead());
  }

  /** None that was made ahead is left, nor one that is being made. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#making;
    for (const path of this.#ready.splice(0)) await this.#drop(path);
  }

  get #isWanted(): boolean {
    return !this.#closed && !this.#making && this.#ready.length < this.#size;
  }

  async #makeAhead(): Promise<void> {
    if (!this.#isWanted) return;
    this.#making = this.#makeOne();
    await this.#making;
    this.#making = undefined;
    if (this.#ready.length > 0) this.fill(); // after a failure the next take tries again
  }

  async #makeOne(): Promise<void> {
    try {
      this.#ready.push(await this.#make());
    } catch (error) {
      this.#log.warn('no namespace made ahead', { error: describeChain(error) });
    }
  }

  /** One that cannot be dropped must not keep the others; the next start sweeps it. */
  async #drop(path: string): Promise<void> {
    try {
      await this.#kernel.dropNetns(path);
    } catch (error) {
      this.#log.warn('a namespace made ahead stays', { path, error: describeChain(error) });
    }
  }

  async #make(): Promise<string> {
    const path = this.#newPath();
    await streamSteps(this.#kernel, planNamespace(path, 'default', this.#redirect));
    return path;
  }

  #newPath(): string {
    return join(this.#dir, Buffer.from(this.#random.bytes(8)).toString('hex'));
  }
}
