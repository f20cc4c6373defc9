import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type NetHand, spawnNetHand } from '#kernel/netlink/hand.ts';

/**
 * Network namespaces for tests, with the helper beside them: nothing touches the host's own network. `run` runs a command
 * in a namespace as `ip netns exec` would, without the file system games of it.
 */
export class NetWorld {
  readonly dir: string;
  readonly hand: NetHand;
  readonly #made: string[] = [];

  constructor(name: string) {
    this.dir = mkdtempSync(join(tmpdir(), `estiba-${name}-`));
    const native = new URL('../../native/net', import.meta.url).pathname;
    execFileSync('make', ['-s', '-C', native]);
    this.hand = spawnNetHand(join(native, '../build/estiba-net'));
  }

  async netns(name: string): Promise<string> {
    const path = join(this.dir, name);
    await this.hand.makeNetns(path);
    this.#made.push(path);
    this.run(path, 'ip', 'link', 'set', 'lo', 'up');
    return path;
  }

  run(netns: string, command: string, ...args: string[]): string {
    return execFileSync('nsenter', [`--net=${netns}`, command, ...args], {
      encoding: 'utf8',
      timeout: 20_000,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  async close(): Promise<void> {
    for (const path of this.#made) await this.hand.dropNetns(path);
    this.hand.close();
    rmSync(this.dir, { recursive: true });
  }
}
