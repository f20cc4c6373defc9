import { type ChildProcessByStdio, execFile, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { type KubeApi, startKubeApi } from '#app/kube-api.ts';
import { systemClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import type { NodeProxy } from '#cluster/api/node-proxy.ts';
import { InProcessTransport } from '#cluster/client/in-process.ts';
import { memoryStore } from '#storage/memory.ts';

const run = promisify(execFile);

export interface Outcome {
  code: number;
  /** stdout and stderr, as a person sees them. */
  text: string;
}

/** An API server of its own and a kubectl that knows only it. */
export class Room {
  readonly api: KubeApi;
  readonly directory: string;
  readonly #binary: string;

  private constructor(api: KubeApi, directory: string, binary: string) {
    this.api = api;
    this.directory = directory;
    this.#binary = binary;
  }

  static async open(binary: string, nodes?: NodeProxy): Promise<Room> {
    const directory = mkdtempSync(join(tmpdir(), 'estiba-kubectl-'));
    const api = await startKubeApi({
      store: memoryStore(systemClock),
      directory,
      port: 0,
      log: logger('cluster:api', silentSink),
      ...(nodes ? { nodes } : {}),
    });
    return new Room(api, directory, binary);
  }

  file(name: string, content: string): string {
    const path = join(this.directory, name);
    writeFileSync(path, content);
    return path;
  }

  /** Runs `kubectl ARGS` through a shell, in the room's directory, so that quoting is what a person would type. */
  kubectl(args: string, more: { stdin?: string; env?: Record<string, string> } = {}): Promise<Outcome> {
    return this.#shell(`"$KUBECTL" ${args}`, more);
  }

  /** The same at a terminal of its own. */
  kubectlAtTerminal(args: string): Promise<Outcome> {
    return this.#shell(`script -qec '"$KUBECTL" ${args}' /dev/null`, {});
  }

  #shell(line: string, more: { stdin?: string; env?: Record<string, string> }): Promise<Outcome> {
    const env = {
      PATH: process.env['PATH'] ?? '',
      HOME: this.directory,
      KUBECONFIG: this.api.kubeconfigPath,
      KUBECTL: this.#binary,
      ...more.env,
    };
    const child = run('/bin/bash', ['-c', line], {
      env,
      cwd: this.directory,
      timeout: 60_000,
      maxBuffer: 32 << 20,
    });
    child.child.stdin?.end(more.stdin ?? '');
    return child.then(
      ({ stdout, stderr }) => ({ code: 0, text: stdout + stderr }),
      (error: { code?: number; stdout?: string; stderr?: string; message: string }) => ({
        code: typeof error.code === 'number' ? error.code : 1,
        text: `${error.stdout ?? ''}${error.stderr ?? ''}` || error.message,
      }),
    );
  }

  /** A kubectl that stays, until it is killed. */
  spawn(args: string[]): ChildProcessByStdio<null, Readable, Readable> {
    return spawn(this.#binary, args, {
      env: { PATH: process.env['PATH'] ?? '', HOME: this.directory, KUBECONFIG: this.api.kubeconfigPath },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  /** For what an old kubectl has no flag for: a merge patch as the administrator. Answers the status. */
  async patch(path: string, body: unknown): Promise<number> {
    const transport = new InProcessTransport(
      this.api.server,
      { username: 'admin', groups: ['system:masters'] },
      { frozen: true },
    );
    const contentType = 'application/merge-patch+json';
    return (await transport.request({ method: 'PATCH', path, body, contentType })).status;
  }

  async close(): Promise<void> {
    await this.api.close();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** The newest kubectl at hand: KUBECTL names it, else the one on PATH. */
export const NEWEST = process.env['KUBECTL'] ?? 'kubectl';

/** Debian's kubectl 1.20, unpacked into a cache of ours and never installed. */
export async function kubectl120(): Promise<string> {
  const cache = resolve('.cache/kubectl-1.20');
  const binary = join(cache, 'usr/bin/kubectl');
  if (existsSync(binary)) return binary;
  mkdirSync(cache, { recursive: true });
  await run('apt-get', ['download', 'kubernetes-client'], { cwd: cache });
  const archive = readdirSync(cache).find((f) => f.endsWith('.deb'));
  if (!archive) throw new Error('apt-get download kubernetes-client brought no package');
  await run('dpkg-deb', ['-x', join(cache, archive), cache]);
  return binary;
}
