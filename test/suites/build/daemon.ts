import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
export const ESTIBA = join(ROOT, 'bin/estiba');
const READY_MS = 30_000;
const COMMAND_MS = 600_000;

/** Our daemon with directories, links and cgroups of its own, in the host's network: package mirrors are reached through it. */
export class BuildDaemon {
  readonly dir: string;
  readonly name: string;
  readonly #only: string;
  #child: ChildProcess;

  private constructor(name: string, only: string) {
    this.name = name;
    this.#only = only;
    this.dir = mkdtempSync(join(tmpdir(), `estiba-suite-${name}-`));
    this.#child = this.#launch();
  }

  #launch(): ChildProcess {
    const { name } = this;
    const roots = ['--data-root', join(this.dir, 'data'), '--run-root', join(this.dir, 'run')];
    return spawn(ESTIBA, ['daemon', '--only', this.#only, '--name', name, '--registry', '127.0.0.1:0', ...roots], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
  }

  static async start(name: string, only = 'engine'): Promise<BuildDaemon> {
    if (!existsSync(join(ROOT, 'dist/daemon.run.cjs'))) throw new Error('run `make build` first');
    const daemon = new BuildDaemon(name, only);
    await daemon.#ready();
    return daemon;
  }

  async #ready(): Promise<void> {
    const end = Date.now() + READY_MS;
    while (!existsSync(join(this.dir, 'run/endpoints.json'))) {
      if (Date.now() > end || this.#child.exitCode !== null) throw new Error('the daemon does not start');
      await sleep(50);
    }
  }

  /** kill -9, and another one on what it left. */
  async killAndStart(): Promise<void> {
    const ended = new Promise((done) => this.#child.once('exit', done));
    this.#child.kill('SIGKILL');
    await ended;
    rmSync(join(this.dir, 'run/endpoints.json'), { force: true });
    this.#child = this.#launch();
    await this.#ready();
  }

  get host(): string {
    return `unix://${join(this.dir, 'run/docker.sock')}`;
  }

  endpoints(): Record<string, string> {
    return JSON.parse(readFileSync(join(this.dir, 'run/endpoints.json'), 'utf8'));
  }

  env(): NodeJS.ProcessEnv {
    return { ...process.env, ESTIBA_RUN_ROOT: join(this.dir, 'run'), DOCKER_HOST: this.host, DOCKER_BUILDKIT: '0' };
  }

  /** A blob as text: configurations. */
  blob(digest: string): string {
    return readFileSync(join(this.dir, 'data/blobs', digest.replace(':', '/')), 'utf8');
  }

  async stop(): Promise<void> {
    const ended = new Promise((done) => this.#child.once('exit', done));
    this.#child.kill('SIGTERM');
    await ended;
    for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n').reverse()) {
      const point = line.split(' ')[4];
      if (point?.startsWith(`${this.dir}/`)) execFileSync('umount', ['-l', point]);
    }
    for (const program of ['edge', 'estiba-init']) endPrograms(program, this.dir);
    rmSync(this.dir, { recursive: true, force: true });
    // A daemon leaves its bridge and table to the next one; there is none.
    await run('ip', ['link', 'delete', `${this.name}0`]);
    await run('nft', ['delete', 'table', 'inet', this.name]);
    for (const hierarchy of readdirSync('/sys/fs/cgroup')) {
      const group = join('/sys/fs/cgroup', hierarchy, this.name);
      if (existsSync(group)) rmdirSync(group);
    }
  }
}

/** The edge process and the spawner outlive a daemon on purpose: those that serve this directory end with it. */
function endPrograms(program: string, directory: string): void {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      if (command.includes(program) && command.includes(directory)) process.kill(Number(pid), 'SIGTERM');
    } catch {
      // it has ended meanwhile
    }
  }
}

export function run(
  program: string,
  args: readonly string[],
  options: { env?: NodeJS.ProcessEnv; cwd?: string } = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(program, args, { ...options, maxBuffer: 64 << 20, timeout: COMMAND_MS }, (error, stdout, stderr) => {
      if (error) reject(new Error(`${program} ${args.join(' ')}: ${stderr.trim().slice(-2000) || error.message}`));
      else resolve(stdout.trim());
    });
  });
}
