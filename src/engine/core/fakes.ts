import { PassThrough } from 'node:stream';
import { NoSuchSandbox } from '#engine/core/errors.ts';
import { applyImage } from '#engine/core/image-defaults.ts';
import type {
  Attached,
  CreatedProcess,
  ExecProcess,
  ExitStatus,
  NetworkSource,
  NodeParts,
  RunningProcess,
  SandboxRecord,
} from '#engine/core/parts.ts';
import { type ContainerRecord, type ContainerState, FRESH_STATE } from '#engine/core/record.ts';
import type { ContainerSpec } from '#engine/core/spec.ts';

/** A container of an image that says nothing, without mounts, networks and ports. */
export function plainRecord(spec: ContainerSpec, state: Partial<ContainerState> = {}): ContainerRecord {
  return {
    id: 'c',
    name: 'c',
    createdAtMs: 0,
    spec,
    process: applyImage(spec, {}),
    image: { id: '', reference: '' },
    hostname: '',
    state: { ...FRESH_STATE, ...state },
    mounts: [],
    endpoints: {},
    ports: [],
  };
}

/** A network that gives nothing: its containers are where the tests are. */
export function networkless(network: NetworkSource): NetworkSource {
  const nothing = { namespace: undefined, endpoints: {}, ports: [], files: [] };
  return { ...network, attach: async () => ({ ...nothing, plug: async () => undefined }) };
}

/** Floors below the engine that only remember what they hold: for tests of the engine itself. */
export class FakeNode {
  /** Everything acquired and not yet given back, as `kind id`. */
  readonly held = new Set<string>();
  readonly calls: string[] = [];
  readonly processes = new Map<string, FakeProcess>();
  readonly sandboxes = new Map<string, SandboxRecord>();
  /** Fails the call of this number, counted from 1. */
  failAt = 0;
  ignoreSignals = false;
  execExit: (argv: readonly string[]) => number = () => 0;
  readonly files: Record<string, string> = { '/etc/passwd': 'root:x:0:0::/root:/bin/sh\n', '/etc/group': '' };

  #call(what: string): void {
    this.calls.push(what);
    if (this.calls.length === this.failAt) throw new Error(`${what} failed`);
  }

  readonly parts: NodeParts = {
    images: {
      find: async (reference) => {
        this.#call('images.find');
        return {
          id: 'sha256:1',
          reference,
          config: { Cmd: ['sh'], Env: ['PATH=/bin'], Volumes: { '/anon': {} } },
          target: 'sha256:t',
          architecture: 'amd64',
        };
      },
    },
    roots: {
      prepare: async (id) => {
        this.#take('roots.prepare', `root ${id}`);
        return [];
      },
      mount: async (id) => {
        this.#take('roots.mount', `mount ${id}`);
        return `/roots/${id}`;
      },
      unmount: async (id) => void this.held.delete(`mount ${id}`),
      retire: async (id) => {
        this.held.delete(`mount ${id}`);
        return [];
      },
      remove: async (id, turn) => {
        await turn;
        this.held.delete(`root ${id}`);
      },
      shareMemory: async (id) => this.#take('roots.shareMemory', `memory ${id}`),
      memoryOf: (id) => `/shm/${id}`,
      unshareMemory: async (id) => void this.held.delete(`memory ${id}`),
      readFile: async (_, path) => this.files[path] ?? '',
    },
    volumes: {
      resolve: async (id, mounts) => {
        this.#take('volumes.resolve', `volumes ${id}`);
        return mounts.map((m) => ({
          type: m.type,
          name: `v${m.target}`,
          source: `/v${m.target}`,
          target: m.target,
          readonly: false,
          propagation: '',
          mode: '',
          wish: m,
        }));
      },
      attach: async (_, mount) => {
        this.#call('volumes.attach');
        return { destination: mount.target, type: 'bind', source: mount.source, options: ['rbind'] };
      },
      populate: async () => this.#call('volumes.populate'),
      detach: async () => undefined,
      release: async (id) => void this.held.delete(`volumes ${id}`),
    },
    network: {
      reserve: async () => {
        this.#call('network.reserve');
        return {};
      },
      attach: async (id) => {
        this.#take('network.attach', `network ${id}`);
        let plugged: Promise<void> | undefined;
        const plug = (): Promise<void> => {
          plugged ??= this.#plug();
          plugged.catch(() => undefined); // told to whoever awaits it
          return plugged;
        };
        return { namespace: `/ns/${id}`, endpoints: {}, ports: [], files: [], plug };
      },
      detach: async (id) => void this.held.delete(`network ${id}`),
      release: async (id) => void this.held.delete(`network ${id}`),
      leavings: () => [],
    },
    sandboxes: {
      create: async (id) => {
        this.#take('sandboxes.create', `sandbox ${id}`);
        const record = {
          id,
          incarnation: `${id} ${this.calls.length}`,
          namespaces: { network: `/ns/${id}` },
          ips: ['10.0.0.2'],
          shm: '/shm',
        };
        this.sandboxes.set(id, record);
        return record;
      },
      find: (id) => {
        const record = this.sandboxes.get(id);
        if (!record) throw new NoSuchSandbox({ id });
        return record;
      },
      list: () => [...this.sandboxes.keys()],
      remove: async (id) => {
        this.held.delete(`sandbox ${id}`);
        this.sandboxes.delete(id);
      },
    },
    processes: {
      create: async (id) => {
        this.#take('processes.create', `process ${id}`);
        const process = new FakeProcess(this);
        this.processes.set(id, process);
        return process;
      },
      planCgroups: () => ({ places: [], create: [], join: [], warnings: [] }),
      find: async (id) => this.processes.get(id),
      list: async () => [...this.processes.keys()],
      execExit: async () => undefined,
      end: async () => undefined,
      remove: async (id) => {
        this.held.delete(`process ${id}`);
        this.processes.delete(id);
      },
    },
  };

  async #plug(): Promise<void> {
    this.#call('network.plug');
  }

  #take(call: string, what: string): void {
    this.#call(call);
    this.held.add(what);
  }
}

export class FakeProcess implements CreatedProcess {
  readonly pid = 4242;
  readonly startTicks = 7;
  readonly cgroups = [];
  readonly signals: number[] = [];
  readonly #node: FakeNode;
  #end: (status: ExitStatus) => void = () => undefined;
  readonly #ended = new Promise<ExitStatus>((resolve) => {
    this.#end = resolve;
  });
  paused = false;

  constructor(node: FakeNode) {
    this.#node = node;
  }

  async start(): Promise<void> {
    this.#node.calls.push('process.start');
    if (this.#node.calls.length === this.#node.failAt) throw new Error('process.start failed');
  }

  end(code: number, atMs = 0, oomKilled = false): void {
    this.#end({ code, oomKilled, atMs });
  }

  wait(): Promise<ExitStatus> {
    return this.#ended;
  }

  async signal(signal: number): Promise<void> {
    this.signals.push(signal);
    if (signal === 9) this.end(137);
    else if (signal === 15 && !this.#node.ignoreSignals) this.end(143);
  }

  async exec(_id: string, process: { args?: string[] }): Promise<ExecProcess> {
    const streams = attached();
    const status: ExitStatus = { code: this.#node.execExit(process.args ?? []), oomKilled: false, atMs: 0 };
    return {
      pid: 1,
      streams,
      start: async () => undefined,
      wait: async () => status,
      signal: async () => undefined,
      resize: async () => undefined,
    };
  }

  async attach(): Promise<Attached> {
    return attached();
  }

  async pause(): Promise<void> {
    this.paused = true;
  }

  async resume(): Promise<void> {
    this.paused = false;
  }

  async resize(): Promise<void> {}

  readonly updates: object[] = [];
  update: RunningProcess['update'] = async (resources) => void this.updates.push(resources);
}

function attached(): Attached {
  return { stdin: new PassThrough(), stdout: new PassThrough(), stderr: new PassThrough(), detach: () => undefined };
}
