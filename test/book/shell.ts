import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { expect } from 'vitest';
import { agrees, type Example } from './chapter.ts';

const ROOT = resolve(import.meta.dirname, '../..');

export interface ShellOptions {
  /** Where it begins; an empty directory of its own when absent. */
  cwd?: string;
  /** Shell lines that make the room before the first command; `cd` in them moves that one, too. */
  prepare?: string;
  /** Without it the network is the room's own: a loopback, and nothing else. */
  hostNetwork?: boolean;
  env?: Record<string, string>;
  /** Where its scripts lie; one that becomes a shell on another machine needs a place that this one sees, too. */
  scripts?: string;
}

/**
 * One shell in a mount, pid and network namespace of its own: what its commands leave behind ends with it. Commands are sourced,
 * so that variables and jobs live on from one to the next, as they do for a reader.
 */
export class Shell implements AsyncDisposable {
  private text = '';
  private busy = false;
  private wake = (): void => {};
  private readonly process;
  private readonly ended: Promise<void>;
  private readonly directory: string;

  private constructor(directory: string, { cwd, prepare = '', hostNetwork = false, env = {} }: ShellOptions) {
    this.directory = directory;
    const own = ['--mount', '--pid', '--fork', '--kill-child', '--mount-proc', ...(hostNetwork ? [] : ['--net'])];
    const begin = `set -e; ${hostNetwork ? '' : 'ip link set lo up;'} ${prepare}\nexec bash --norc`;
    this.process = spawn('unshare', [...own, 'sh', '-c', begin], {
      cwd: cwd ?? directory,
      env: { HOME: directory, LANG: 'C.UTF-8', PATH: `${join(ROOT, 'bin')}:${SYSTEM_PATH}`, ...env },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.process.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      this.text += chunk;
      this.wake();
    });
    this.process.stdin.on('error', () => undefined); // it ended: its close is what counts
    this.ended = new Promise((done) => this.process.once('close', () => done()));
    void this.ended.then(() => this.wake());
  }

  static async open(options: ShellOptions = {}): Promise<Shell> {
    return new Shell(await mkdtemp(join(options.scripts ?? tmpdir(), 'estiba-book-')), options);
  }

  /** What one command printed to either stream, as lines. */
  async run(command: string): Promise<string[]> {
    const script = join(this.directory, '.command');
    await writeFile(script, `${command}\n`);
    return this.send(command, `source ${script} < /dev/null 2>&1`);
  }

  /** Another shell takes this one's place, and its input: in other namespaces, say. Exported variables go with it, jobs do not. */
  async become(command: string): Promise<void> {
    await this.send(command, `exec ${command}`);
  }

  private async send(command: string, line: string): Promise<string[]> {
    const mark = `--${randomUUID()}--`;
    this.text = '';
    this.busy = true;
    this.process.stdin.write(`${line}\necho ${mark}\n`);
    while (!this.text.includes(mark)) {
      if (this.process.exitCode !== null || this.process.signalCode !== null)
        throw new Error(`the shell ended at: ${command}\n${this.text}`);
      await new Promise<void>((done) => {
        this.wake = done;
      });
    }
    this.busy = false;
    const lines = this.text.slice(0, this.text.indexOf(mark)).split('\n');
    if (lines.at(-1) === '') lines.pop();
    return lines;
  }

  /** One that is in the middle of a command, as when its test took too long, does not come to reading `exit`. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.busy) this.process.kill('SIGKILL');
    this.process.stdin.end('exit\n');
    await this.ended;
    await rm(this.directory, { recursive: true, force: true });
  }
}

export const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Fails with both texts and the line of the document. */
export function expectSaid(document: string, { line, command, output }: Example, actual: readonly string[]): void {
  if (agrees(output, actual)) return;
  expect(actual.join('\n'), `${document}:${line}: ${command}`).toBe(output.join('\n'));
}
