import { describe, expect, it, vi } from 'vitest';
import { FakeClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { seededRandom } from '#base/random.ts';
import { Containers } from '#engine/core/containers.ts';
import { Events } from '#engine/core/events.ts';
import { FakeNode, FakeProcess } from '#engine/core/fakes.ts';
import { plainSpec } from '#engine/core/plain-spec.ts';
import type { Phase } from '#engine/core/record.ts';
import { ContainerRegistry } from '#engine/core/registry.ts';
import type { ContainerSpec } from '#engine/core/spec.ts';
import { memoryStore } from '#storage/memory.ts';
import type { Store } from '#storage/store.ts';

const spec = (changes: Partial<ContainerSpec> = {}): ContainerSpec => plainSpec({ image: 'busybox', ...changes });

interface Bench {
  node: FakeNode;
  clock: FakeClock;
  containers: Containers;
  actions: string[];
  store: Store;
  /** The daemon is killed and comes back. */
  reboot: () => Promise<Bench>;
}

async function bench(
  node = new FakeNode(),
  clock = new FakeClock(1_000),
  store: Store = memoryStore(new FakeClock()),
): Promise<Bench> {
  const events = new Events(() => BigInt(clock.now()));
  const actions: string[] = [];
  events.subscribe((event) => actions.push(event.action));
  const containers = new Containers({
    parts: node.parts,
    registry: await ContainerRegistry.open(store),
    events,
    clock,
    random: seededRandom(1),
    log: logger('engine', silentSink),
    host: {
      nodeArch: 'x64',
      kernelRelease: '6.18.0',
      bounding: ['CAP_CHOWN'],
      cgroupVersion: 1,
      deviceNumbers: () => ({ major: 8, minor: 0 }),
      initBinary: '/init',
    },
    settings: {
      cgroupParent: '/estiba',
      logPath: (id) => `/logs/${id}`,
      logLeavings: () => [],
      stopGraceMs: 10_000,
      devices: async () => [],
    },
  });
  return { node, clock, containers, actions, store, reboot: () => bench(node, clock, store) };
}

/** What nobody waits for has been done when nobody has come for so long. */
const QUIET_MS = 20;

const phase = (b: Bench, name = 'web'): Phase => b.containers.find(name).state.phase;
const process = (b: Bench, name = 'web') => {
  const found = b.node.processes.get(b.containers.find(name).id);
  if (!found) throw new Error('no process');
  return found;
};

describe('the life of a container', () => {
  it('goes when it was to be removed at its end and could not be started, and who waits for that is told', async () => {
    const b = await bench();
    await b.containers.create('web', spec({ autoRemove: true }));
    const removed = b.containers.wait('web', 'removed');
    b.node.failAt = b.node.calls.length + 1;
    await expect(b.containers.start('web')).rejects.toThrow('roots.mount failed');
    await removed;
    expect(b.containers.list()).toEqual([]);
    await b.containers.atRest();
    expect([...b.node.held]).toEqual([]);
  });

  it('is created, started, stopped and removed, and leaves nothing', async () => {
    const b = await bench();
    await b.containers.create('web', spec());
    expect(phase(b)).toBe('created');
    await b.containers.start('web');
    expect(b.containers.find('/web').state).toMatchObject({ phase: 'running', pid: 4242 });
    await b.containers.stop('web');
    expect(b.containers.find('web').state).toMatchObject({ phase: 'exited', exitCode: 143, pid: 0 });
    await b.containers.remove('web', { force: false, volumes: false });
    await b.containers.atRest();
    expect([...b.node.held]).toEqual([]);
    expect(b.actions).toEqual(['create', 'start', 'kill', 'die', 'stop', 'destroy']);
    expect(() => b.containers.find('web')).toThrow('No such container: web');
  });

  it('that fails to be created or started at any step leaves nothing half done', async () => {
    for (let failAt = 1; ; failAt++) {
      const b = await bench();
      b.node.failAt = failAt;
      const created = await b.containers.create('web', spec()).catch(() => undefined);
      if (!created) {
        expect([...b.node.held], `create, call ${failAt}`).toEqual([]);
        expect(b.containers.list()).toEqual([]);
        continue;
      }
      const before = [...b.node.held].sort();
      const failed = await b.containers.start('web').then(
        () => false,
        () => true,
      );
      if (!failed) break;
      expect([...b.node.held].sort(), `start, call ${failAt}`).toEqual(before);
      expect(b.containers.find('web').state).toMatchObject({
        phase: 'created',
        exitCode: 128,
        error: expect.stringContaining('failed'),
      });
      b.node.failAt = 0;
      await b.containers.start('web');
      expect(phase(b)).toBe('running');
    }
  });

  it('whose volumes cannot all be attached lets go of one that comes late, too', async () => {
    const b = await bench();
    const attached = new Set<string>();
    let arrive: () => void = () => undefined;
    b.node.parts.volumes.attach = async (_, { target }) => {
      if (target === '/broken') throw new Error('its disk is gone');
      if (target === '/late')
        await new Promise<void>((resolve) => {
          arrive = resolve;
        });
      attached.add(target);
      return { destination: target, type: 'bind', source: target, options: [] };
    };
    b.node.parts.volumes.detach = async () => attached.clear();
    const mount = (target: string) =>
      ({ type: 'volume', name: '', target, readonly: false, noCopy: false, labels: {} }) as const;
    await b.containers.create('web', spec({ mounts: [mount('/broken'), mount('/late')] }));
    const started = b.containers.start('web');
    started.catch(() => undefined); // awaited below
    for (let i = 0; i < 100; i++) await new Promise((done) => setImmediate(done)); // an undo that does not wait is over by then
    arrive();
    await expect(started).rejects.toThrow('its disk is gone');
    expect([...attached]).toEqual([]);
  });

  it('has one name, which nobody else can take, also at the same moment', async () => {
    const b = await bench();
    const results = await Promise.allSettled([b.containers.create('web', spec()), b.containers.create('web', spec())]);
    expect(results.map((r) => r.status).sort()).toEqual(['fulfilled', 'rejected']);
    await expect(b.containers.create('/web', spec())).rejects.toMatchObject({ code: 'NAME_TAKEN' });
    await expect(b.containers.create('no spaces', spec())).rejects.toThrow('Invalid container name');
    const invented = await b.containers.create(undefined, spec());
    expect(invented.name).toMatch(/^[a-z]+_[a-z]+$/);
    await b.containers.rename(invented.id.slice(0, 8), 'db');
    expect(b.containers.find('db').id).toBe(invented.id);
    await expect(b.containers.rename('db', 'web')).rejects.toMatchObject({ code: 'NAME_TAKEN' });
  });

  it('refuses what its phase does not allow', async () => {
    const b = await bench();
    await b.containers.create('web', spec());
    await expect(b.containers.stop('web')).rejects.toMatchObject({ code: 'NOT_MODIFIED' });
    await expect(b.containers.kill('web')).rejects.toThrow('is not running');
    await expect(b.containers.pause('web')).rejects.toThrow('is not running');
    await b.containers.start('web');
    await expect(b.containers.start('web')).rejects.toMatchObject({ code: 'NOT_MODIFIED' });
    await expect(b.containers.remove('web', { force: false, volumes: false })).rejects.toThrow(
      'You cannot remove a running container',
    );
    await b.containers.pause('web');
    await expect(b.containers.pause('web')).rejects.toThrow('already paused');
    await expect(b.containers.kill('web', 'SIGTERM')).rejects.toThrow('is paused');
    await expect(b.containers.kill('web', 'SIGNOTHING')).rejects.toThrow('invalid signal: SIGNOTHING');
    await b.containers.remove('web', { force: true, volumes: true });
    await b.containers.atRest();
    expect([...b.node.held]).toEqual([]);
  });

  it('is killed after its grace, and a kill gets past a stop that waits', async () => {
    const b = await bench();
    b.node.ignoreSignals = true;
    await b.containers.create('web', spec());
    await b.containers.start('web');
    const stopping = b.containers.stop('web', { graceMs: 5_000 });
    await b.clock.advance(4_999);
    expect(process(b).signals).toEqual([15]);
    await b.clock.advance(1);
    await stopping;
    expect(b.containers.find('web').state.exitCode).toBe(137);

    await b.containers.start('web');
    const patient = b.containers.stop('web', { graceMs: -1 });
    await b.clock.advance(1_000_000);
    await b.containers.kill('web');
    await patient;
    expect(phase(b)).toBe('exited');
  });

  it('is paused and told to stop at the same moment, and neither loses what the other wrote', async () => {
    const b = await bench();
    b.node.ignoreSignals = true;
    await b.containers.create('web', spec());
    await b.containers.start('web');
    await Promise.all([b.containers.pause('web'), b.containers.kill('web', 'SIGTERM')]);
    expect(b.containers.find('web').state).toMatchObject({ phase: 'paused', stoppedByHand: true });
  });

  it('answers those who wait for its next end, for its being still, and for its being gone', async () => {
    const b = await bench();
    await b.containers.create('web', spec());
    await expect(b.containers.wait('web', 'not-running')).resolves.toEqual({ exitCode: 0 });
    const next = b.containers.wait('web', 'next-exit');
    const gone = b.containers.wait('web', 'removed');
    const left = new AbortController();
    const never = b.containers.wait('web', 'next-exit', left.signal);
    left.abort(new Error('left'));
    await expect(never).rejects.toThrow('left');
    await b.containers.start('web');
    process(b).end(3);
    await expect(next).resolves.toEqual({ exitCode: 3 });
    await b.containers.remove('web', { force: true, volumes: true });
    await expect(gone).resolves.toEqual({ exitCode: 3 });
  });

  it('is told to have ended once its network is free for others; its next run and its removal wait for the rest', async () => {
    const b = await bench();
    const goOn: Record<string, () => void> = {};
    const held = (step: string) => () => new Promise<void>((go) => Object.assign(goOn, { [step]: go }));
    await b.containers.create('web', spec());
    await b.containers.start('web');
    vi.spyOn(b.node.parts.network, 'detach').mockImplementationOnce(held('network'));
    vi.spyOn(b.node.parts.roots, 'unmount').mockImplementationOnce(held('root'));
    const told: string[] = [];
    const next = b.containers.wait('web', 'next-exit').then(() => told.push('ended'));
    process(b).end(0);
    await vi.waitFor(() => expect(Object.keys(goOn)).toEqual(['network']));
    expect(told).toEqual([]);
    goOn['network']?.();
    await next;
    const again = b.containers.start('web').then(() => told.push('runs again'));
    await vi.waitFor(() => expect(Object.keys(goOn)).toEqual(['network', 'root']));
    await b.clock.advance(1);
    expect(told).toEqual(['ended']);
    goOn['root']?.();
    await again;
    expect(phase(b)).toBe('running');
  });

  it('removes itself when asked to, with its exit code for who waits', async () => {
    const b = await bench();
    await b.containers.create('web', spec({ autoRemove: true }));
    const gone = b.containers.wait('web', 'removed');
    await b.containers.start('web');
    process(b).end(5);
    await expect(gone).resolves.toEqual({ exitCode: 5 });
    await b.containers.atRest();
    expect([...b.node.held]).toEqual([]);
  });

  it('is written once where nothing is made before its record, and announced where volumes are', async () => {
    const b = await bench();
    const txn = vi.spyOn(b.store, 'txn');
    await b.containers.create('with', spec()); // its image names a volume
    expect(txn.mock.calls.map(([{ lazy }]) => lazy)).toEqual([true, false]);
    txn.mockClear();
    const { find } = b.node.parts.images;
    vi.spyOn(b.node.parts.images, 'find').mockImplementation(async (name) => ({
      ...(await find(name)),
      config: { Cmd: ['sh'] },
    }));
    const snapshot = { do: 'put', key: 'snapshot', value: Buffer.from('s') } as const;
    vi.spyOn(b.node.parts.roots, 'prepare').mockResolvedValue([snapshot]);
    const { id } = await b.containers.create('without', spec());
    expect(txn.mock.calls.map(([{ lazy, ops }]) => ({ lazy, keys: ops.map((op) => op.key) }))).toEqual([
      { lazy: false, keys: [`containers/${id}`, 'snapshot'] },
    ]);
  });

  it('has the cgroups that were decided while its root was mounted: those of the whole configuration', async () => {
    const b = await bench();
    const resources = { ...spec().resources, memoryBytes: 1 << 26, cgroupParent: '/pods/one' };
    await b.containers.create('web', spec({ resources }));
    const ahead = vi.spyOn(b.node.parts.processes, 'planCgroups');
    const create = vi.spyOn(b.node.parts.processes, 'create');
    await b.containers.start('web');
    const [, config, , how] = create.mock.calls[0] ?? [];
    expect(ahead.mock.calls[0]?.[1]).toEqual({
      cgroupsPath: config?.linux?.cgroupsPath,
      resources: config?.linux?.resources,
      bounding: config?.process?.capabilities?.bounding,
    });
    expect(how?.cgroups).toBe(ahead.mock.results[0]?.value);
  });

  it('lets clients attach before its first byte', async () => {
    const b = await bench();
    const { id } = await b.containers.create('web', spec());
    const order: string[] = [];
    b.containers.onNextStart(id, async () => void order.push(`joined after ${b.node.calls.at(-1)}`));
    await b.containers.start('web');
    expect(order).toEqual(['joined after network.plug']);
    expect(b.node.calls.at(-1)).toBe('process.start');
  });

  it('changes its limits while it runs', async () => {
    const b = await bench();
    await b.containers.create('web', spec());
    await b.containers.start('web');
    await b.containers.update('web', { resources: { memoryBytes: 64 << 20 } });
    expect(process(b).updates).toEqual([{ memory: { limit: 67108864, swap: 134217728 } }]);
    expect(b.containers.find('web').spec.resources.memoryBytes).toBe(67108864);
  });
});

describe('restart policies', () => {
  const always = { name: 'always', maxRetries: 0, onUnhealthy: false } as const;

  it('start it again, later each time, until somebody stops it', async () => {
    const b = await bench();
    await b.containers.create('web', spec({ restart: always }));
    await b.containers.start('web');
    for (const delayMs of [100, 200, 400]) {
      process(b).end(1, b.clock.now());
      await b.clock.advance(delayMs - 1);
      expect(phase(b)).toBe('restarting');
      await b.clock.advance(1);
      expect(phase(b)).toBe('running');
    }
    expect(b.containers.find('web').state.restartCount).toBe(3);
    process(b).end(1, b.clock.now());
    await b.clock.advance(1);
    await b.containers.stop('web');
    await b.clock.advance(100_000);
    expect(phase(b)).toBe('exited');
  });

  it('start an unhealthy one again where that was asked for', async () => {
    const b = await bench();
    const health = {
      test: ['CMD', 'check'],
      intervalNs: 1e9,
      timeoutNs: 1e9,
      startPeriodNs: 0,
      startIntervalNs: 0,
      retries: 2,
    };
    await b.containers.create('web', spec({ health, restart: { name: 'no', maxRetries: 0, onUnhealthy: true } }));
    await b.containers.start('web');
    await b.clock.advance(1_000);
    expect(b.containers.find('web').state.health).toMatchObject({ status: 'healthy' });
    b.node.execExit = () => 1;
    await b.clock.advance(2_000);
    await b.clock.advance(0);
    expect(b.actions).toContain('health_status: unhealthy');
    expect(b.actions).toContain('restart');
    expect(b.containers.find('web').state).toMatchObject({ phase: 'running', health: { status: 'starting' } });
    await b.containers.close();
  });
});

describe('a daemon that was killed', () => {
  it('finds what runs, hears of its end, and keeps what is stopped', async () => {
    const before = await bench();
    await before.containers.create('web', spec());
    await before.containers.create('off', spec());
    await before.containers.start('web');
    const after = await before.reboot();
    await after.containers.recover();
    expect([phase(after), phase(after, 'off')]).toEqual(['running', 'created']);
    const ended = after.containers.wait('web', 'next-exit');
    process(after).end(4);
    await expect(ended).resolves.toEqual({ exitCode: 4 });
  });

  it('knows how a run ended whatever of it was still held, and gives that back', async () => {
    const never = (): Promise<never> => new Promise(() => undefined);
    const steps = (node: FakeNode) => ({
      'processes.remove': () => vi.spyOn(node.parts.processes, 'remove').mockImplementation(never),
      'network.detach': () => vi.spyOn(node.parts.network, 'detach').mockImplementation(never),
      'roots.unmount': () => vi.spyOn(node.parts.roots, 'unmount').mockImplementation(never),
      'roots.unshareMemory': () => vi.spyOn(node.parts.roots, 'unshareMemory').mockImplementation(never),
      'volumes.detach': () => vi.spyOn(node.parts.volumes, 'detach').mockImplementation(never),
    });
    for (const step of Object.keys(steps(new FakeNode())) as (keyof ReturnType<typeof steps>)[])
      for (const policy of ['no', 'on-failure'] as const) {
        const before = await bench();
        const ipc = { kind: 'shareable' } as const;
        const { namespaces } = spec();
        const restart = { name: policy, maxRetries: 0, onUnhealthy: false };
        await before.containers.create('web', spec({ restart, namespaces: { ...namespaces, ipc } }));
        const created = [...before.node.held].sort();
        await before.containers.start('web');
        const cut = steps(before.node)[step]();
        process(before).end(7, 5_000);
        await vi.waitFor(async () => {
          await before.clock.advance(QUIET_MS);
          expect(cut).toHaveBeenCalled();
        });
        cut.mockRestore();
        const after = await before.reboot();
        await after.containers.recover();
        const { state } = after.containers.find('web');
        if (policy === 'no') {
          expect(state, step).toMatchObject({ phase: 'exited', exitCode: 7, finishedAtMs: 5_000, restartCount: 0 });
          expect([...after.node.held].sort(), step).toEqual(created);
          await after.containers.start('web');
        }
        expect(after.containers.find('web').state, step).toMatchObject({ phase: 'running' });
        if (policy === 'on-failure') expect(state.restartCount, step).toBe(1);
      }
  });

  it('removes what was to be removed at its end, and had just ended', async () => {
    const before = await bench();
    await before.containers.create('web', spec({ autoRemove: true }));
    await before.containers.start('web');
    const cut = vi.spyOn(before.node.parts.network, 'detach').mockImplementation(() => new Promise(() => undefined));
    process(before).end(0);
    await vi.waitFor(() => expect(cut).toHaveBeenCalled());
    cut.mockRestore();
    const after = await before.reboot();
    await after.containers.recover();
    expect(after.containers.list()).toEqual([]);
    expect([...after.node.held]).toEqual([]);
  });

  it('sweeps what was being made or removed, and processes that nobody owns', async () => {
    const before = await bench();
    const record = await before.containers.create('web', spec());
    const registry = await ContainerRegistry.open(before.store);
    await registry.save({ ...record, state: { ...record.state, phase: 'removing' } });
    before.node.processes.set('stranger', new FakeProcess(before.node));
    const after = await before.reboot();
    await after.containers.recover();
    expect(after.containers.list()).toEqual([]);
    expect([...after.node.held]).toEqual([]);
    expect([...after.node.processes.keys()]).toEqual([]);
  });

  it('takes back a start that was cut off: the program has not run, and no end of it is told', async () => {
    const before = await bench();
    const registry = await ContainerRegistry.open(before.store);
    for (const [name, policy] of [
      ['by-hand', 'no'],
      ['kept-up', 'on-failure'],
    ] as const) {
      const record = await before.containers.create(
        name,
        spec({ restart: { name: policy, maxRetries: 0, onUnhealthy: false } }),
      );
      await registry.saveState(record, { phase: 'starting' });
      before.node.processes.set(record.id, new FakeProcess(before.node)); // made, not begun
    }
    const after = await before.reboot();
    await after.containers.recover();
    expect(after.containers.find('by-hand').state).toMatchObject({ phase: 'created', exitCode: 0, finishedAtMs: 0 });
    expect(after.containers.find('kept-up').state).toMatchObject({ phase: 'running', restartCount: 0 });
    expect(after.node.processes.size).toBe(1);
  });

  it('goes on past a container that it cannot take over, which nothing but a forced removal changes', async () => {
    const before = await bench();
    for (const name of ['web', 'lost']) {
      await before.containers.create(name, spec());
      await before.containers.start(name);
    }
    const { id } = before.containers.find('lost');
    const { find } = before.node.parts.processes;
    before.node.parts.processes.find = async (wish) => {
      if (wish === id) throw new Error('its shim does not answer');
      return find(wish);
    };
    const after = await before.reboot();
    await after.containers.recover();
    expect([phase(after), phase(after, 'lost')]).toEqual(['running', 'running']);
    await after.containers.stop('web');
    expect(phase(after)).toBe('exited');

    const refused = { code: 'WRONG_PHASE', hint: expect.stringContaining('`rm -f`') };
    await expect(after.containers.stop('lost')).rejects.toMatchObject(refused);
    await expect(after.containers.restart('lost')).rejects.toMatchObject(refused);
    await expect(after.containers.start('lost')).rejects.toMatchObject(refused);
    await expect(after.containers.kill('lost')).rejects.toMatchObject(refused);
    await expect(after.containers.update('lost', { resources: { memoryBytes: 1 << 26 } })).rejects.toMatchObject(
      refused,
    );
    expect(phase(after, 'lost')).toBe('running');
    expect(after.node.processes.has(id)).toBe(true);

    await after.containers.remove('lost', { force: true, volumes: true });
    await after.containers.remove('web', { force: true, volumes: true });
    expect(after.containers.list()).toEqual([]);
    await after.containers.atRest();
    expect([...after.node.processes.keys(), ...after.node.held]).toEqual([]);
  });

  it('brings back after a reboot of the machine what wanted to run, and removes what was to go at its end', async () => {
    const before = await bench();
    for (const [name, policy] of [
      ['aa', 'always'],
      ['bb', 'unless-stopped'],
      ['cc', 'no'],
    ] as const) {
      await before.containers.create(name, spec({ restart: { name: policy, maxRetries: 0, onUnhealthy: false } }));
      await before.containers.start(name);
    }
    await before.containers.create('gone', spec({ autoRemove: true }));
    await before.containers.start('gone');
    before.node.processes.clear();
    const after = await before.reboot();
    await after.containers.recover();
    expect(() => after.containers.find('gone')).toThrow('No such container');
    expect(['aa', 'bb', 'cc'].map((name) => phase(after, name))).toEqual(['running', 'running', 'exited']);
  });
});
