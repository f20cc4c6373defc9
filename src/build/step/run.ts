import type { Readable } from 'node:stream';
import { describeChain } from '#base/errors.ts';
import { newId } from '#base/random.ts';
import { Undo } from '#base/undo.ts';
import { MountedTree } from '#build/copy/mounted.ts';
import { NeverAllowed, NotAllowed, RunFailed } from '#build/errors.ts';
import type { RunStep, StepId } from '#build/graph.ts';
import type { StepLayer } from '#build/layers.ts';
import { withMounts } from '#build/run-mounts.ts';
import { runInSandbox } from '#build/sandbox.ts';
import type { StepRoom, StepStack } from '#build/step/room.ts';
import { noteStubs, removeStubs } from '#build/stubs.ts';

/** What commands said last, for the error. */
const TAIL_BYTES = 16 * 1024;

/**
 * RUN: a snapshot of the root, the command in it, and what it wrote as a layer. Of one that fails the root is kept. Sandbox, mount and
 * snapshot are taken down beside the next step.
 */
export async function runStep(id: StepId, step: RunStep, root: StepStack, room: StepRoom): Promise<StepLayer> {
  const { log } = room.node;
  checkAllowed(step, room);
  const undo = new Undo((what, error) =>
    log.error('undo of a build step failed', { what, error: describeChain(error) }),
  );
  try {
    return await layerOfCommand(id, step, root, room, undo);
  } finally {
    room.ends.add('the end of a command', undo.unwind());
  }
}

async function layerOfCommand(
  id: StepId,
  step: RunStep,
  root: StepStack,
  room: StepRoom,
  undo: Undo,
): Promise<StepLayer> {
  const { node, options, sources, lease, signal } = room;
  const { snapshots, overlays, stepLayers } = node;
  const sandboxId = newId(node.random);
  const snapshot = `build-${sandboxId}`;
  await snapshots.prepare(snapshot, await stepLayers.ready(root.layers), { volatile: true });
  let keep = false;
  undo.add('snapshot', () => (keep ? undefined : snapshots.remove(snapshot)));
  const mounted = await overlays.mount(snapshot);
  undo.add('root', () => overlays.unmount(mounted));
  const tree = new MountedTree('the image', mounted, node.readXattrs);
  const stubs = await noteStubs(
    tree,
    step.mounts.flatMap((m) => ('target' in m && m.target !== undefined ? [m.target] : [])),
  );
  const tail = new Tail(TAIL_BYTES);
  const layersOf = { layers: sources.mountLayers.bind(sources) };
  const code = await withMounts(node, sandboxId, step.mounts, options.given, layersOf, undo, (prepared) =>
    runInSandbox(
      node.sandbox,
      {
        id: sandboxId,
        root: tree,
        argv: step.argv,
        env: [...step.env, ...options.proxies, ...prepared.env],
        cwd: step.cwd,
        user: step.user,
        mounts: prepared.mounts,
        network: step.network,
        limits: options.limits,
        output: (stream, source) => tellOutput(id, stream, source, tail, room),
      },
      undo,
      signal,
    ),
  );
  // The command has ended, and all that it started: what it wrote lies in `upper` whether or not the root is still mounted.
  const { upper } = await snapshots.rootfs(snapshot);
  await removeStubs(upper, stubs);
  if (code !== 0) {
    const network = step.network === 'default' ? options.limits.network : step.network;
    keep = await options.failed.keep({ snapshot, layers: root.layers, step, code, network });
    throw new RunFailed({ command: step.argv.join(' '), code, tail: tail.text() });
  }
  const { epochSec } = options;
  const changes = snapshots.diff(snapshot, epochSec === undefined ? {} : { newestSec: epochSec });
  return await stepLayers.make(changes, lease); // before the snapshot goes
}

function checkAllowed({ security, network }: RunStep, { options }: StepRoom): void {
  if (security === 'insecure') throw new NeverAllowed({ what: 'RUN --security=insecure' });
  if (network === 'host' && options.limits.network !== 'host' && !options.allow.has('network.host'))
    throw new NotAllowed({ what: 'RUN --network=host', entitlement: 'network.host' });
}

async function tellOutput(
  step: StepId,
  stream: 'stdout' | 'stderr',
  source: Readable,
  tail: Tail,
  { options }: StepRoom,
): Promise<void> {
  for await (const chunk of source) {
    tail.push(chunk);
    options.tell({ at: 'output', step, stream, text: chunk });
  }
}

/** The last bytes of an output. */
class Tail {
  readonly #limit: number;
  #chunks: Buffer[] = [];
  #bytes = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    while (this.#chunks.length > 1 && this.#bytes - (this.#chunks[0]?.length ?? 0) > this.#limit)
      this.#bytes -= this.#chunks.shift()?.length ?? 0;
  }

  text(): string {
    return Buffer.concat(this.#chunks).subarray(-this.#limit).toString();
  }
}
