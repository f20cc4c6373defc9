import { execFileSync } from 'node:child_process';
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type Files, hostFiles } from '#kernel/files.ts';
import { rootContext } from '#runtime/cli/fakes.ts';
import { runCommand } from '#runtime/cli/main.ts';
import { type ContainerRecord, paths, RECORD_VERSION } from '#runtime/state.ts';

const INIT = { pid: 4711, startTime: 99 };
let root: string;
let said: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'estiba-start-'));
  said = '';
  const at = paths(root, 'c1');
  const record: ContainerRecord = {
    version: RECORD_VERSION,
    id: 'c1',
    bundle: root,
    rootfs: join(root, 'rootfs'),
    created: '2026-01-02T03:04:05.000Z',
    owner: { uid: 0, name: 'root' },
    rootless: false,
    cgroups: [],
    ownsRootMount: false,
    config: { ociVersion: '1.3.0', root: { path: 'rootfs' } },
    noNewKeyring: false,
  };
  mkdirSync(at.dir);
  writeFileSync(at.record, JSON.stringify(record));
  writeFileSync(at.pid, `${INIT.pid} ${INIT.startTime}\n`);
  execFileSync('mkfifo', [at.fifo]);
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

/** `start` of a container whose init is alive for so many looks at it, and then does `last`. */
function start(looks: number, last: () => void): Promise<number> {
  const stat = `${INIT.pid} (true) S ${'0 '.repeat(18)}${INIT.startTime} 0`;
  let left = looks;
  const files: Files = {
    ...hostFiles,
    read: (path) => {
      if (path !== `/proc/${INIT.pid}/stat`) return hostFiles.read(path);
      if (left-- > 0) return stat;
      last();
      return undefined;
    },
  };
  const context = rootContext({
    cwd: root,
    files,
    stderr: (text) => {
      said += text;
    },
    execute: async ({ steps }) => {
      for (const step of steps) if (step.op === 'unlink') rmSync(step.path);
      return { pid: 0, warnings: [], data: Buffer.alloc(0) };
    },
  });
  return runCommand(['--root', root, 'start', 'c1'], context);
}

// Two looks are those at its state, before and under the lock.
it('a program that runs to its end between two looks at it was started', async () => {
  const { fifo } = paths(root, 'c1');
  const code = await start(2, () => {
    const end = openSync(fifo, constants.O_WRONLY | constants.O_NONBLOCK); // init's own words, and it is gone
    writeSync(end, '\0');
    closeSync(end);
  });
  expect(said).toBe('');
  expect(code).toBe(0);
  expect(existsSync(fifo)).toBe(false);
});

it('one that ended without init’s byte was not', async () => {
  expect(await start(2, () => undefined)).toBe(1);
  expect(said).toContain('cannot start a container that has stopped');
  expect(existsSync(paths(root, 'c1').fifo)).toBe(true);
});
