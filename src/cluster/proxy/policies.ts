import type { Clock } from '#base/clock.ts';
import { describeChain } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { Serial } from '#base/queue.ts';
import { NAMESPACES, NETWORK_POLICIES, PODS } from '#cluster/client/resources.ts';
import type { ClusterView } from '#cluster/client/view.ts';
import { type PolicyPlan, planPolicies } from '#cluster/proxy/policy.ts';
import { createPolicies, type MadePolicies, removePolicies } from '#cluster/proxy/policy-table.ts';
import type { TablePart } from '#cluster/proxy/proxy.ts';
import type { NetKernel } from '#kernel/netlink/hand.ts';
import { type Message, NETLINK_NETFILTER } from '#kernel/netlink/wire.ts';
import { batch } from '#kernel/nft/message.ts';

export interface PoliciesOptions {
  view: ClusterView;
  kernel: NetKernel;
  clock: Clock;
  log: Logger;
  daemon: string;
  netns?: string;
}

const RETRY_MS = 1_000;

/**
 * Keeps the policies' part of the table. What changes is planned whole and compared with what is there; a plan is a few hundred
 * elements, and one transaction leaves no moment without policies.
 */
export class Policies implements TablePart {
  readonly #o: PoliciesOptions;
  readonly #serial = new Serial('policies');
  #made: MadePolicies = { chains: [], sets: [] };
  #applied = '';
  #generation = 0;
  #started = false;
  #queued = false;
  #stopped = false;

  /** Before the view starts. */
  constructor(options: PoliciesOptions) {
    this.#o = options;
    const touch = (): void => this.#touch();
    options.view.of(NETWORK_POLICIES).informer.onChange(touch);
    options.view.of(NAMESPACES).informer.onChange(touch);
    // Most of what happens to pods says nothing about who and where they are.
    options.view.of(PODS).informer.onChange((now, before) => {
      const place = (pod: typeof now): string =>
        pod ? JSON.stringify([pod.metadata.labels, pod.status?.podIP, pod.status?.podIPs, pod.status?.phase]) : '';
      if (place(now) !== place(before)) this.#touch();
    });
  }

  /** For a table that was made anew: all that is known now. */
  rebuild(): Message[] {
    this.#started = true;
    const plan = this.#plan();
    const { messages, made } = createPolicies(this.#o.daemon, plan, ++this.#generation);
    this.#made = made;
    this.#applied = textOf(plan);
    return messages;
  }

  /** Resolves when all that is known by now is in the kernel, or a try has failed. */
  async sync(): Promise<void> {
    this.#touch();
    await this.#serial.run(() => undefined);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#serial.run(() => undefined);
  }

  #plan(): PolicyPlan {
    const { view } = this.#o;
    const policies = view.of(NETWORK_POLICIES).list();
    if (policies.length === 0) return { rules: [], subjects: [] };
    return planPolicies({ policies, pods: view.of(PODS).list(), namespaces: view.of(NAMESPACES).list() });
  }

  #touch(): void {
    if (!this.#started || this.#queued || this.#stopped) return;
    this.#queued = true;
    const run = this.#serial.run(() => this.#apply());
    run.catch((error: unknown) => {
      this.#applied = '';
      this.#o.log.error('policies are not in the kernel', { error: describeChain(error) });
      if (!this.#stopped) this.#o.clock.after(RETRY_MS, () => this.#touch());
    });
  }

  async #apply(): Promise<void> {
    this.#queued = false;
    const plan = this.#plan();
    const text = textOf(plan);
    if (text === this.#applied) return;
    const { kernel, daemon, netns } = this.#o;
    const old = removePolicies(daemon, this.#made);
    const { messages, made } = createPolicies(daemon, plan, ++this.#generation);
    await kernel.netlink({
      what: 'enforce network policies',
      protocol: NETLINK_NETFILTER,
      messages: batch([...old, ...messages]),
      ...(netns === undefined ? {} : { netns }),
    });
    this.#made = made;
    this.#applied = text;
  }
}

function textOf(plan: PolicyPlan): string {
  return JSON.stringify(plan, (_, value: unknown) => (typeof value === 'bigint' ? value.toString() : value));
}
