import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { assert, describeChain, errnoOf, isCode } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { newId, type Random } from '#base/random.ts';
import { Undo } from '#base/undo.ts';
import { NoSuchSandbox } from '#engine/core/errors.ts';
import type { SandboxRecord, SandboxSource, SandboxWish } from '#engine/core/parts.ts';
import { planPause, planPauseGone, planSandbox, planSandboxGone } from '#engine/core/sandbox-plan.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import type { Networks } from '#network/networks.ts';

export interface SandboxesOptions {
  /** `R/sandboxes`: volatile, since namespaces do not survive a boot. */
  dir: string;
  networks: Pick<Networks, 'attach' | 'detach' | 'sandbox'>;
  run(plan: Plan): Promise<{ pid: number }>;
  initBinary: string;
  random: Random;
  log: Logger;
}

/**
 * Namespaces that several containers share, kept by files and found again by them:
 *
 *     DIR/ID          made first: a directory without `record` is what a crash left, and is swept
 *     DIR/ID/uts,ipc  the namespaces, bound; `pause` has pid and start time of the reaper, `root` is its root
 *     DIR/ID/shm      the tmpfs that all its containers have as /dev/shm
 *     DIR/ID/record   written last; what `find` answers
 *
 * The network namespace is the network layer's own, by the same id. Only a shared PID namespace needs a process, its reaping PID 1.
 */
export class NodeSandboxes implements SandboxSource {
  readonly #o: SandboxesOptions;
  readonly #known = new Map<string, SandboxRecord>();

  private constructor(options: SandboxesOptions) {
    this.#o = options;
  }

  /** Finds what an earlier daemon made, and sweeps what it made by half. */
  static async open(options: SandboxesOptions): Promise<NodeSandboxes> {
    const self = new NodeSandboxes(options);
    await mkdir(options.dir, { recursive: true, mode: 0o711 });
    for (const id of await readdir(options.dir)) {
      const record = await self.#read(id);
      if (record) self.#known.set(id, record);
      else await self.#sweep(id);
    }
    return self;
  }

  find(id: string): SandboxRecord {
    const record = this.#known.get(id);
    if (!record) throw new NoSuchSandbox({ id });
    return record;
  }

  list(): string[] {
    return [...this.#known.keys()];
  }

  async create(id: string, wish: SandboxWish): Promise<SandboxRecord> {
    await using undo = new Undo((what, error) =>
      this.#o.log.error('undo of a sandbox failed', { id, what, error: describeChain(error) }),
    );
    const dir = this.#dir(id);
    await mkdir(dir, { mode: 0o711 });
    undo.add('directory', () => rm(dir, { recursive: true, force: true }));
    const network = wish.network;
    const attached = network
      ? await this.#o.networks.attach({
          id,
          name: wish.name,
          endpoints: [{ network: network.name, names: [] }],
          ports: network.ports,
          dns: { servers: [], search: [], options: [] },
        })
      : undefined;
    if (attached) undo.add('network', () => this.#o.networks.detach(id));
    const { plan, paths } = planSandbox(dir, { ...wish, netns: attached?.netns });
    await this.#o.run(plan);
    undo.add('namespaces', () => this.#o.run(planSandboxGone(dir)));
    const pause = wish.pid === 'shared' ? await this.#pause(dir) : undefined;
    if (pause) undo.add('pause', () => this.#endPause(pause));
    const record: SandboxRecord = {
      id,
      incarnation: newId(this.#o.random).slice(0, 12),
      namespaces: {
        ...paths,
        ...(attached ? { network: attached.netns } : {}),
        ...(pause ? { pid: `/proc/${pause.pid}/ns/pid` } : {}),
      },
      ips: attached?.endpoints.flatMap((e) => [e.ipv4, e.ipv6].filter((ip) => ip !== undefined)) ?? [],
      shm: paths.ipc === undefined ? '/dev/shm' : join(dir, 'shm'),
      ...(pause ? { pause } : {}),
    };
    await writeFile(join(dir, 'record'), JSON.stringify(record), { mode: 0o600 });
    undo.keep();
    this.#known.set(id, record);
    return record;
  }

  /** Absent is fine. Its containers must be gone. */
  async remove(id: string): Promise<void> {
    const record = this.#known.get(id);
    await this.#o.networks.detach(id);
    if (!record) return;
    if (record.pause) await this.#endPause(record.pause);
    await this.#o.run(planSandboxGone(this.#dir(id)));
    await rm(this.#dir(id), { recursive: true, force: true });
    this.#known.delete(id);
  }

  /** PID 1 of the shared PID namespace. It sees nothing but its own binary. */
  async #pause(dir: string): Promise<{ pid: number; startTicks: string }> {
    await mkdir(join(dir, 'root'), { mode: 0o755 });
    await this.#o.run(planPause(dir, this.#o.initBinary));
    const pause = await readPause(dir);
    assert(pause, `the plan wrote ${dir}/pause`);
    return pause;
  }

  async #endPause(pause: { pid: number; startTicks: string }): Promise<void> {
    try {
      await this.#o.run(planPauseGone(pause));
    } catch (error) {
      // Killed by somebody already: its containers have ended with it.
      if (!isCode(error, 'PLAN_FAILED') || error.data['errno'] !== 'ESRCH') throw error;
    }
  }

  /** Undefined: made by half, or its namespaces have gone with a boot. */
  async #read(id: string): Promise<SandboxRecord | undefined> {
    try {
      const record = JSON.parse(await readFile(join(this.#dir(id), 'record'), 'utf8')) as SandboxRecord;
      if (record.namespaces.network !== undefined && !this.#o.networks.sandbox(id)) return undefined;
      for (const path of Object.values(record.namespaces)) await stat(path);
      return record;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' || error instanceof SyntaxError) return undefined;
      throw error;
    }
  }

  async #sweep(id: string): Promise<void> {
    this.#o.log.info('sweeps a sandbox that was made by half or lost with a boot', { id });
    await this.#o.networks.detach(id);
    const pause = await readPause(this.#dir(id));
    if (pause) await this.#endPause(pause);
    await this.#o.run(planSandboxGone(this.#dir(id)));
    await rm(this.#dir(id), { recursive: true, force: true });
  }

  #dir(id: string): string {
    return join(this.#o.dir, id);
  }
}

async function readPause(dir: string): Promise<{ pid: number; startTicks: string } | undefined> {
  try {
    const [pid = '', startTicks = ''] = (await readFile(join(dir, 'pause'), 'utf8')).trim().split(' ');
    return { pid: Number(pid), startTicks };
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
