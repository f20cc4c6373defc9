import { Undo } from '#base/undo.ts';
import type { NetKernel } from '#kernel/netlink/hand.ts';
import { type Message, NETLINK_NETFILTER, NETLINK_ROUTE } from '#kernel/netlink/wire.ts';
import { batch } from '#kernel/nft/message.ts';

/** A user namespace that a network namespace belongs to: kept at `path`, with that map (/proc/PID/uid_map) of uids and gids. */
export interface NamespaceOwner {
  path: string;
  map: string;
}

/**
 * A change of the kernel's network state as data: decided by pure functions (plan.ts), printed by `--plan`, compared with
 * golden files, and only then done. `undo` takes a step back when a later one fails; what is on disk as intent is swept
 * after a crash.
 */
export type NetStep = {
  /** A sentence for people: `plug eth0 into bridge estiba0`. */
  what: string;
  /** Which wish made it: `network web`, `flag --publish`, `default`. */
  because: string;
  undo?: readonly NetStep[];
} & (
  | { do: 'netns'; path: string; owner?: NamespaceOwner }
  | { do: 'dropNetns'; path: string }
  | { do: 'route'; netns?: string; otherNetns?: string; messages: readonly Message[] }
  | { do: 'firewall'; netns?: string; messages: readonly Message[] }
  | { do: 'sysctl'; netns: string; name: string; value: string }
);

/** Runs the steps in order; when one fails, the finished ones are undone and its error is thrown. */
export async function runSteps(kernel: NetKernel, steps: readonly NetStep[]): Promise<void> {
  await using undo = new Undo();
  for (const step of steps) {
    await runStep(kernel, step);
    for (const back of step.undo ?? []) undo.add(back.what, () => runStep(kernel, back));
  }
  undo.keep();
}

/**
 * The same without waiting: each is sent before the one before it is answered, and carried out after it (the helper serves one request
 * after the other). Only for steps of which a later one fails by itself, or is undone, where an earlier one has failed.
 */
export async function streamSteps(kernel: NetKernel, steps: readonly NetStep[]): Promise<void> {
  await using undo = new Undo();
  const results = await Promise.allSettled(steps.map((step) => runStep(kernel, step)));
  for (const [i, step] of steps.entries())
    if (results[i]?.status === 'fulfilled')
      for (const back of step.undo ?? []) undo.add(back.what, () => runStep(kernel, back));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
  undo.keep();
}

/** As `runSteps`, taking each step's undo as a step of its own: for tearing down, where one failure must not stop the rest. */
export async function runAll(
  kernel: NetKernel,
  steps: readonly NetStep[],
  report: (step: NetStep, error: unknown) => void,
): Promise<void> {
  for (const step of steps) {
    try {
      await runStep(kernel, step);
    } catch (error) {
      report(step, error);
    }
  }
}

export async function runStep(kernel: NetKernel, step: NetStep): Promise<void> {
  switch (step.do) {
    case 'netns':
      return step.owner
        ? kernel.makeOwnedNetns(step.path, step.owner.path, step.owner.map)
        : kernel.makeNetns(step.path);
    case 'dropNetns':
      return kernel.dropNetns(step.path);
    case 'sysctl':
      return kernel.sysctl(step.netns, step.name, step.value);
    case 'route':
      await kernel.netlink({
        what: step.what,
        protocol: NETLINK_ROUTE,
        messages: step.messages,
        ...(step.netns === undefined ? {} : { netns: step.netns }),
        ...(step.otherNetns === undefined ? {} : { otherNetns: step.otherNetns }),
      });
      return;
    case 'firewall':
      if (step.messages.length > 0)
        await kernel.netlink({
          what: step.what,
          protocol: NETLINK_NETFILTER,
          messages: batch(step.messages),
          ...(step.netns === undefined ? {} : { netns: step.netns }),
        });
  }
}
