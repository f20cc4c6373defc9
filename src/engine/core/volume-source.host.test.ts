import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { systemRandom } from '#base/random.ts';
import { Events } from '#engine/core/events.ts';
import type { WithRoot } from '#engine/core/parts.ts';
import type { MountSpec } from '#engine/core/spec.ts';
import { NodeVolumeSource } from '#engine/core/volume-source.ts';
import { NodeVolumes } from '#engine/core/volumes.ts';
import { describeTree } from '#image/fixtures/trees.ts';
import { runPlan } from '#kernel/plan/execute.ts';
import { memoryStore } from '#storage/memory.ts';
import type { Store } from '#storage/store.ts';
import { Volumes } from '#volume/volumes.ts';

describe('volumes of containers', () => {
  let directory: string;
  let rootfs: string;
  let store: Store;
  const withRoot: WithRoot = (use) => use(rootfs);

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'estiba-volume-source-'));
    rootfs = join(directory, 'rootfs');
    mkdirSync(join(rootfs, 'data/sub'), { recursive: true });
    writeFileSync(join(rootfs, 'data/file'), 'from the image');
    writeFileSync(join(rootfs, 'data/sub/tool'), '#!');
    chownSync(join(rootfs, 'data/sub/tool'), 5, 6);
    chmodSync(join(rootfs, 'data/sub/tool'), 0o4755);
    const note = { name: 'user.note', value: Buffer.from('kept') };
    await runPlan({
      steps: [{ op: 'setXattr', where: 'host', because: 'test', path: join(rootfs, 'data/file'), ...note }],
    });
    linkSync(join(rootfs, 'data/file'), join(rootfs, 'data/sub/same'));
    symlinkSync('../../etc/passwd', join(rootfs, 'data/link'));
    execFileSync('mkfifo', [join(rootfs, 'data/fifo')]);
    execFileSync('mknod', [join(rootfs, 'data/null'), 'c', '1', '3']);
    chownSync(join(rootfs, 'data'), 33, 34);
    chmodSync(join(rootfs, 'data'), 0o2770);
    mkdirSync(join(rootfs, 'empty'));
    chownSync(join(rootfs, 'empty'), 44, 44);
    store = memoryStore(systemClock);
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  async function node(
    run = runPlan,
    over: Store = store,
  ): Promise<{ source: NodeVolumeSource; volumes: Volumes; actions: string[] }> {
    const volumes = await Volumes.open({
      dataRoot: directory,
      runRoot: join(directory, 'run'),
      store: over,
      runPlan: run,
      lookup: async (host) => host,
      clock: systemClock,
      random: systemRandom,
      log: logger('volume', silentSink),
    });
    const actions: string[] = [];
    const events = new Events(() => 0n);
    events.subscribe((event) => actions.push(event.action));
    const source = new NodeVolumeSource({
      volumes,
      node: new NodeVolumes(volumes, events),
      tools: { runPlan: run, scratch: directory },
    });
    return { source, volumes, actions };
  }

  const volume = (name: string, target: string, more: Partial<MountSpec & { type: 'volume' }> = {}): MountSpec => ({
    type: 'volume',
    name,
    target,
    readonly: false,
    noCopy: false,
    labels: {},
    ...more,
  });

  it('have once what the image has there, with modes, owners, attributes, links and devices', async () => {
    const { source, volumes } = await node();
    const mounts = await source.resolve('c1', [
      volume('vv', '/data'),
      volume('ww', '/empty'),
      volume('xx', '/data', { noCopy: true }),
    ]);
    await source.populate('c1', mounts, withRoot);
    expect(await described(volumes.find('vv').path)).toEqual(await described(join(rootfs, 'data')));
    expect(statSync(volumes.find('ww').path).uid).toBe(44);
    expect(readdirSync(volumes.find('xx').path)).toEqual([]);
    rmSync(join(volumes.find('vv').path, 'file'));
    const again = await source.resolve('c2', [volume('vv', '/data')]);
    await source.populate('c2', again, () => Promise.reject(new Error('the volume is not empty')));
    expect(readdirSync(volumes.find('vv').path)).not.toContain('file');
  });

  it('that nobody named go with their container, others stay', async () => {
    const { source, volumes, actions } = await node();
    const mounts = await source.resolve('c1', [volume('named', '/a'), volume('', '/b'), volume('', '/c')]);
    const [, anonymous = ''] = mounts.map((m) => m.name);
    await source.resolve('c2', [volume(anonymous, '/b')]);
    await source.release('c1', mounts, { removeAnonymous: true });
    expect(
      volumes
        .list()
        .map((v) => v.name)
        .sort(),
    ).toEqual(['named', anonymous].sort());
    expect(actions).toEqual(['create', 'create', 'create', 'destroy']);
  });

  it('that an unfinished create had taken are given back', async () => {
    const { source, volumes } = await node();
    const missing: MountSpec = {
      type: 'bind',
      source: '/no/such',
      target: '/x',
      readonly: false,
      recursive: true,
      createSource: false,
    };
    await expect(source.resolve('c1', [volume('', '/b'), missing])).rejects.toThrow(
      'invalid mount config for type "bind": bind source path does not exist: /no/such',
    );
    expect(volumes.list()).toEqual([]);
  });

  it('are empty or whole after a crash at any moment of the copy', async () => {
    let done = false;
    for (let diesAt = 1; !done; diesAt++) {
      store = memoryStore(systemClock);
      let calls = 0;
      let bury = (): void => undefined;
      const never = new Promise<never>((_, reject) => {
        bury = () => reject(new Error('dead'));
      });
      never.catch(() => undefined); // nobody may be waiting when it is buried
      let died = (): void => undefined;
      const death = new Promise<void>((resolve) => {
        died = resolve;
      });
      const mortal =
        <A extends unknown[], R>(work: (...a: A) => Promise<R>) =>
        (...args: A): Promise<R> => {
          if (++calls < diesAt) return work(...args);
          died();
          return never;
        };
      const name = `v${diesAt}`;
      const first = await node(
        mortal((plan) => runPlan(plan)),
        { ...memoryless(store), txn: mortal((txn) => store.txn(txn)) },
      );
      const work = (async () => {
        const mounts = await first.source.resolve('c', [volume(name, '/data')]);
        await first.source.populate('c', mounts, withRoot);
        done = true;
      })();
      const buried = work.catch((error: Error) => expect(error.message).toBe('dead'));
      await Promise.race([work, death]);
      const { volumes } = await node();
      if (volumes.has(name)) {
        const { path } = volumes.find(name);
        const names = readdirSync(path);
        if (names.length > 0)
          expect(await described(path), `call ${diesAt}`).toEqual(await described(join(rootfs, 'data')));
        await volumes.remove(name);
      }
      expect(readdirSync(join(directory, 'volumes')), `call ${diesAt}`).toEqual([]);
      bury();
      await buried;
    }
  });

  it('bind a file as it is, and make a directory where nothing is', async () => {
    const { source } = await node();
    const bind = (path: string): MountSpec => ({
      type: 'bind',
      source: join(directory, path),
      target: '/x',
      readonly: false,
      recursive: true,
      createSource: true,
    });
    writeFileSync(join(directory, 'site.conf'), 'as it is');
    for (const path of ['site.conf', 'made/here']) {
      const [record] = await source.resolve('c1', [bind(path)]);
      expect(record && (await source.attach('c1', record))).toMatchObject({ source: join(directory, path) });
    }
    expect(statSync(join(directory, 'site.conf')).isFile()).toBe(true);
    expect(statSync(join(directory, 'made/here')).isDirectory()).toBe(true);
  });

  it('show files as the user that was asked for, and keep their owner outside', async () => {
    const { source } = await node();
    chownSync(join(rootfs, 'data'), 1000, 1000);
    const [record] = await source.resolve('c1', [
      {
        type: 'bind',
        source: join(rootfs, 'data'),
        target: '/d',
        readonly: 'recursive',
        recursive: true,
        createSource: false,
        owner: { uid: 33 },
      },
    ]);
    expect(record && (await source.attach('c1', record))).toMatchObject({
      options: ['rbind', 'rprivate', 'ro', 'rro'],
      uidMappings: [
        { containerID: 0, hostID: 0, size: 33 },
        { containerID: 33, hostID: 1000, size: 1 },
        { containerID: 34, hostID: 34, size: 966 },
        { containerID: 1000, hostID: 33, size: 1 },
        { containerID: 1001, hostID: 1001, size: 0xffff_ffff - 1001 },
      ],
    });
  });
});

/** Times in whole seconds, as layers have them; the top's own changes with the move. */
async function described(root: string): Promise<string[]> {
  return (await describeTree(root)).map((line) =>
    line.replace(line.startsWith(' ') ? / at \d+/ : /(?<= at \d{10})\d{9}/, ''),
  );
}

/** Methods of the class, which a spread leaves behind. */
function memoryless(store: Store): Store {
  return {
    range: (query) => store.range(query),
    txn: (txn) => store.txn(txn),
    watch: (query) => store.watch(query),
    compact: (revision) => store.compact(revision),
    status: () => store.status(),
    grant: (ttlMs) => store.grant(ttlMs),
    keepAlive: (lease) => store.keepAlive(lease),
    revoke: (lease) => store.revoke(lease),
    close: () => store.close(),
  };
}
