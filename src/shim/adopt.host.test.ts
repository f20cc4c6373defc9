import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Op, Plan, Step } from '#kernel/plan/plan.ts';
import { readExecExit, type Shim } from '#shim/shim.ts';
import { Spawner } from '#shim/spawner.ts';

const root = mkdtempSync(join(tmpdir(), 'estiba-adopt-'));
let spawner: Spawner;
let made = 0;

beforeAll(async () => {
  spawner = await Spawner.start(join(root, 'spawner.sock'));
});
afterAll(async () => {
  await spawner.quit();
  rmSync(root, { recursive: true });
});

function freshDir(): string {
  const dir = join(root, `c${made++}`);
  mkdirSync(dir);
  return dir;
}

async function text(stream: Readable): Promise<string> {
  let all = '';
  for await (const chunk of stream) all += chunk;
  return all;
}

describe('a process that another program makes', () => {
  const step = (op: Op, ...undo: Op[]): Step => ({ ...op, where: 'host', because: 'test', undo });
  const program = (script: string, pidFile = ''): Op => ({
    op: 'program',
    path: '/bin/sh',
    argv: ['sh', '-c', script],
    env: ['PATH=/usr/bin:/bin'],
    timeoutMs: 10_000,
    pidFile,
  });
  const waitsFor = (path: string): string => `until [ -e '${path}' ]; do sleep 0.02; done`;
  /** A child that waits for the word `start`, and its pid in a file. */
  const child = (dir: string, script: string): Plan => {
    const [pid, go] = [join(root, 'pid'), join(dir, 'go')];
    rmSync(pid, { force: true });
    const waits = `(${waitsFor(go)}; ${script}) & echo $! > ${pid}`;
    return { steps: [step(program(waits, pid)), step({ op: 'ready' }), step(program(`touch ${go}`))] };
  };

  it('is the shim’s from then on: its output, further processes, its end', async () => {
    const dir = freshDir();
    const shim = await spawner.create(child(dir, 'echo out; echo err >&2; while :; do sleep 0.02; done'), {
      dir,
    });
    const attached = await shim.attach();
    await shim.start();
    await expect(once(attached.stdout, 'data')).resolves.toEqual([Buffer.from('out\n')]);
    await expect(once(attached.stderr, 'data')).resolves.toEqual([Buffer.from('err\n')]);

    const pid = join(root, 'exec.pid');
    const further = await shim.exec(
      { steps: [step(program(`(${waitsFor(join(dir, 'go on'))}; echo in; exit 4) & echo $! > ${pid}`, pid))] },
      { name: 'e1' },
    );
    writeFileSync(join(dir, 'go on'), ''); // a shell would reap a child that ends before it does
    expect(await text(further.stdout)).toBe('in\n');
    expect((await further.wait()).code).toBe(4);

    await shim.signal(15);
    expect((await attached.wait()).code).toBe(143);
    expect(await readExecExit(dir, 'e1')).toMatchObject({ code: 4 });
  });

  it('is none when the program fails: its words are the reason, and all is taken back', async () => {
    const dir = freshDir();
    const undone = join(dir, 'undone');
    const steps = [
      step(program('true'), program(`touch ${undone}`)),
      step(program('echo why >&2; exit 9', '/nowhere/pid')),
    ];
    await expect(spawner.create({ steps }, { dir })).rejects.toThrow(/exit status 9: why/);
    expect(readdirSync(dir)).toEqual(['undone']);
  });

  it('is none when it is not the program’s own child, or never came', async () => {
    const pid = join(root, 'stray.pid');
    const made = (script: string): Promise<Shim> =>
      spawner.create({ steps: [step(program(script, pid))] }, { dir: freshDir() });
    await expect(made(`echo ${process.pid} > ${pid}`)).rejects.toThrow(/is none of ours/);
    await expect(made(`echo 1 > ${pid}`)).rejects.toThrow(/holds no pid/);
    await expect(made('true')).rejects.toThrow(/has left no/);
  });
});
