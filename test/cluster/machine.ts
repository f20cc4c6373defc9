import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { noteCgroup, ownedDirectory, removeCgroups } from '../net/owned.ts';

export const ESTIBA = process.env['ESTIBA'] ?? fileURLToPath(new URL('../../bin/estiba', import.meta.url));
const READY_MS = 20_000;
const COMMAND_MS = 60_000;
const LOG_BYTES = 4_000;

export interface Answer {
  code: number;
  /** Both streams. */
  text: string;
}

/**
 * A machine for tests of the whole daemon: mount, network and PID namespaces of its own, so that nothing it does is seen outside
 * and its end takes all of it. `reboot` ends every process and forgets R, as a power cut would; D stays.
 */
export class Machine {
  readonly dir: string;
  readonly name: string;
  #holder: ChildProcess | undefined;
  #init = 0;
  #daemon: ChildProcess | undefined;
  readonly #flags: readonly string[];
  readonly #env: Record<string, string>;

  private constructor(tag: string, flags: readonly string[], env: Record<string, string>) {
    this.name = `t${tag}${process.pid % 10_000}`.slice(0, 8);
    this.dir = ownedDirectory(`estiba-machine-${tag}-`);
    noteCgroup(this.dir, this.name);
    this.#flags = flags;
    this.#env = env;
    mkdirSync(join(this.dir, 'D'));
    mkdirSync(join(this.dir, 'R'));
  }

  /** With a daemon that is ready. */
  static async open(
    tag: string,
    flags: readonly string[] = [],
    env: Record<string, string> = {},
    onReady: (ms: number) => void = () => undefined,
  ): Promise<Machine> {
    const machine = new Machine(tag, flags, env);
    try {
      await machine.boot();
      onReady(await machine.start());
      return machine;
    } catch (error) {
      await machine.close();
      throw error;
    }
  }

  get runRoot(): string {
    return join(this.dir, 'R');
  }

  /** Its first process, by the host's number: for programs that stand in its network alone (nsenter). */
  get init(): number {
    return this.#init;
  }

  get dataRoot(): string {
    return join(this.dir, 'D');
  }

  /** Everything the daemon has said. */
  log(): string {
    return readFileSync(join(this.dir, 'log'), 'utf8');
  }

  async boot(): Promise<void> {
    const script = `mount -t tmpfs tmpfs ${this.runRoot} && ip link set lo up && echo up && exec sleep 1000000`;
    // A test that is killed takes its machine along: the next run finds its directory and cgroups, with nothing in them.
    const unshare = ['unshare', '-m', '-n', '-p', '--fork', '--kill-child', '--mount-proc', 'sh', '-c', script];
    const holder = spawn('setpriv', ['--pdeathsig', 'KILL', ...unshare], { stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    holder.stderr?.on('data', (chunk: Buffer) => {
      said += chunk.toString('utf8');
    });
    this.#holder = holder;
    await new Promise<void>((resolve, reject) => {
      holder.stdout?.once('data', () => resolve());
      holder.once('exit', (code) => reject(new Error(`the machine ended with ${code}: ${said}`)));
    });
    this.#init = Number(readFileSync(`/proc/${holder.pid}/task/${holder.pid}/children`, 'utf8').trim());
  }

  /** Starts the daemon and waits until it is ready; milliseconds that took. */
  async start(): Promise<number> {
    rmSync(join(this.dir, 'endpoints'), { force: true });
    const before = performance.now();
    const flags = ['--name', this.name, '--data-root', this.dataRoot, '--run-root', this.runRoot, '--registry', 'off'];
    const line = ['exec', ESTIBA, 'daemon', ...flags, ...this.#flags].join(' ');
    const daemon = this.spawn('sh', ['-c', `${line} >> ${join(this.dir, 'log')} 2>&1`]);
    this.#daemon = daemon;
    const ready = join(`/proc/${this.#init}/root`, this.runRoot, 'endpoints.json');
    await waitFor('the daemon', READY_MS, () => {
      if (daemon.exitCode !== null) throw new Error(`the daemon ended: ${this.log().slice(-LOG_BYTES)}`);
      return existsSync(ready);
    }).catch((error: unknown) => {
      throw new Error(`the daemon is not ready: ${this.log().slice(-LOG_BYTES)}`, { cause: error });
    });
    return performance.now() - before;
  }

  /** SIGKILL, and nobody has time for anything. */
  async kill(): Promise<void> {
    await this.run('sh', [
      '-c',
      `kill -9 $(cut -d' ' -f1 ${this.runRoot}/daemon.lock); rm -f ${this.runRoot}/endpoints.json`,
    ]);
    await this.#daemonGone();
  }

  #daemonGone(): Promise<void> {
    const gone = (): boolean => this.#daemon?.exitCode !== null || this.#daemon.signalCode !== null;
    return waitFor('the daemon to be gone', READY_MS, gone);
  }

  /** As a service manager ends it: SIGTERM, and it closes what it has open. */
  async stop(): Promise<void> {
    await this.run('sh', ['-c', `kill $(cut -d' ' -f1 ${this.runRoot}/daemon.lock)`]);
    await this.#daemonGone();
  }

  async reboot(): Promise<void> {
    await this.#powerOff();
    await this.boot();
    await this.start();
  }

  spawn(command: string, args: readonly string[]): ChildProcess {
    const enter = ['-t', String(this.#init), '-m', '-n', '-p', '--', command, ...args];
    return spawn('nsenter', enter, { stdio: ['pipe', 'pipe', 'pipe'], env: this.#environment() });
  }

  run(command: string, args: readonly string[], input = ''): Promise<Answer> {
    const enter = ['-t', String(this.#init), '-m', '-n', '-p', '--', command, ...args];
    return new Promise((resolve) => {
      const options = { env: this.#environment(), timeout: COMMAND_MS, maxBuffer: 64 << 20 };
      const child = execFile('nsenter', enter, options, (error, stdout, stderr) =>
        resolve({ code: error ? Number(error.code ?? 255) : 0, text: stdout + stderr }),
      );
      child.stdin?.on('error', () => undefined); // it did not want its input
      child.stdin?.end(input);
    });
  }

  /** Every process on it but the first, by the host's numbers. */
  pids(): string[] {
    const here = namespaceOf(String(this.#init));
    const all = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && name !== String(this.#init));
    return all.filter((pid) => namespaceOf(pid) === here);
  }

  /** Words as a shell splits them; throws with what it said when it fails. */
  async kubectl(line: string, input = ''): Promise<string> {
    const answer = await this.run('sh', ['-c', `kubectl ${line}`], input);
    if (answer.code !== 0) throw new Error(`kubectl ${line}: ${answer.text}`);
    return answer.text;
  }

  async apply(...objects: object[]): Promise<void> {
    await this.kubectl('apply -f -', JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }));
  }

  async get<T = Record<string, unknown>>(what: string): Promise<T> {
    return JSON.parse(await this.kubectl(`get ${what} -o json`)) as T;
  }

  /** Everything of it ends; cgroups, which all machines share, are removed by name. */
  async close(): Promise<void> {
    await this.#powerOff();
    removeCgroups(this.name);
    rmSync(this.dir, { recursive: true, force: true });
  }

  file(name: string, content: string): string {
    const path = join(this.dir, name);
    writeFileSync(path, content);
    return path;
  }

  async #powerOff(): Promise<void> {
    const holder = this.#holder;
    if (!holder || holder.exitCode !== null || holder.signalCode !== null) return;
    const gone = new Promise((resolve) => holder.once('exit', resolve));
    process.kill(this.#init, 'SIGKILL');
    await gone;
  }

  #environment(): NodeJS.ProcessEnv {
    return {
      ...process.env,
      KUBECONFIG: join(this.runRoot, 'kubeconfig'),
      DOCKER_HOST: `unix://${join(this.runRoot, 'docker.sock')}`,
      ...this.#env,
    };
  }
}

export async function waitFor(what: string, ms: number, check: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + ms;
  while (!(await check())) {
    if (performance.now() > end) throw new Error(`waited ${ms} ms for ${what}`);
    await sleep(10);
  }
}

function namespaceOf(pid: string): string {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return ''; // it has ended
  }
}
