import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, openSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { ROOT, run, until } from './room.ts';

/** A registry as a process on loopback that can be killed and started again on the same port and data. */
export class RegistryProcess {
  readonly host: string;
  readonly #command: string[];
  readonly #log: number;
  #child: ChildProcess | undefined;

  private constructor(host: string, command: string[], log: string) {
    this.host = host;
    this.#command = command;
    this.#log = openSync(log, 'a');
  }

  static async ours(folder: string, more: string[] = []): Promise<RegistryProcess> {
    const bundle = join(ROOT, 'dist/registry.run.cjs');
    if (!existsSync(bundle)) await run(process.execPath, [join(ROOT, 'tools/build.mjs')]);
    const host = `127.0.0.1:${await freePort()}`;
    const command = [process.execPath, bundle, 'serve', '--data-root', join(folder, 'ours'), '--listen', host, ...more];
    return new RegistryProcess(host, command, join(folder, 'ours.log')).#started();
  }

  /** For a registry of ours that is not started yet. */
  static addAccount(folder: string, name: string, password: string, allow: string): void {
    const args = ['user', 'add', name, '--data-root', join(folder, 'ours'), '--allow', allow];
    execFileSync(process.execPath, [join(ROOT, 'dist/registry.run.cjs'), ...args], { input: password });
  }

  static async dockerRegistry(folder: string, more = ''): Promise<RegistryProcess> {
    const host = `127.0.0.1:${await freePort()}`;
    const storage = `storage: {filesystem: {rootdirectory: ${join(folder, 'peer')}}, delete: {enabled: true}}`;
    writeFileSync(
      join(folder, 'peer.yml'),
      `version: 0.1\nlog: {level: error}\n${storage}\nhttp: {addr: '${host}'}\n${more}`,
    );
    return new RegistryProcess(
      host,
      ['docker-registry', 'serve', join(folder, 'peer.yml')],
      join(folder, 'peer.log'),
    ).#started();
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  async start(): Promise<void> {
    const [program = '', ...args] = this.#command;
    this.#child = spawn(program, args, { stdio: ['ignore', this.#log, this.#log] });
    await until(`${program} at ${this.host}`, async () => (await fetch(`http://${this.host}/v2/`)).status < 500);
  }

  /** At once and without a word, as a power cut would. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise<void>((done) => child.once('exit', () => done()));
    child.kill(signal);
    await gone;
  }

  async #started(): Promise<this> {
    await this.start();
    return this;
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
    });
  });
}
