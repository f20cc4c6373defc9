import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { agrees, type Example, examplesOf } from './chapter.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const BOOK = join(ROOT, 'docs/book');

/**
 * Every command of the book is run, in the order in which a reader types it: one shell a chapter, in an empty directory and in
 * a mount, pid and network namespace of its own: what a chapter leaves behind ends with its shell.
 */
describe('the book', async () => {
  const chapters = (await readdir(BOOK)).filter((name) => /^\d\d-.*\.md$/.test(name)).sort();

  it.each(chapters)('%s prints what it says', async (name) => {
    const examples = examplesOf(await readFile(join(BOOK, name), 'utf8'));
    expect(examples.length).toBeGreaterThan(0);
    await using shell = await Shell.open();
    for (const example of examples) {
      const actual = await shell.run(example);
      if (agrees(example.output, actual)) continue;
      expect(actual.join('\n'), `${name}:${example.line}: ${example.command}`).toBe(example.output.join('\n'));
    }
  });
});

class Shell implements AsyncDisposable {
  private text = '';
  private wake = (): void => {};
  private readonly process;
  private readonly ended: Promise<void>;

  private readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
    const own = ['--mount', '--pid', '--net', '--fork', '--kill-child', '--mount-proc'];
    this.process = spawn('unshare', [...own, 'sh', '-c', 'ip link set lo up; exec bash --norc'], {
      cwd: directory,
      env: { HOME: directory, LANG: 'C.UTF-8', PATH: `${join(ROOT, 'bin')}:/usr/sbin:/usr/bin:/sbin:/bin` },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.process.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      this.text += chunk;
      this.wake();
    });
    this.ended = new Promise((done) => this.process.once('close', () => done()));
    void this.ended.then(() => this.wake());
  }

  static async open(): Promise<Shell> {
    return new Shell(await mkdtemp(join(tmpdir(), 'estiba-book-')));
  }

  /** What one command printed to either stream, as lines. */
  async run(example: Example): Promise<string[]> {
    const script = join(this.directory, '.command');
    await writeFile(script, `${example.command}\n`);
    const mark = `--${randomUUID()}--`;
    this.text = '';
    this.process.stdin.write(`source ${script} < /dev/null 2>&1\necho ${mark}\n`);
    while (!this.text.includes(mark)) {
      if (this.process.exitCode !== null) throw new Error(`the shell ended at: ${example.command}\n${this.text}`);
      await new Promise<void>((done) => {
        this.wake = done;
      });
    }
    const lines = this.text.slice(0, this.text.indexOf(mark)).split('\n');
    if (lines.at(-1) === '') lines.pop();
    return lines;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.process.stdin.end('exit\n');
    await this.ended;
    await rm(this.directory, { recursive: true, force: true });
  }
}
