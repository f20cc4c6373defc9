import { copyFileSync, existsSync, linkSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { exampleConfig } from '#runtime/cli/commands/spec.ts';
import type { OciConfig } from '#spec/oci/config.ts';

const BUSYBOX = ['/bin/busybox', '/usr/bin/busybox'].find((path) => existsSync(path)) ?? '/bin/busybox';
const APPLETS = ['sh', 'true', 'sleep', 'cat', 'ls', 'id', 'ip', 'mkdir', 'readlink', 'stat', 'touch'];

export interface Bundle extends Disposable {
  dir: string;
  rootfs: string;
  config(change?: (config: OciConfig) => void): OciConfig;
  write(config: OciConfig): void;
}

/** A bundle of its own below /tmp: Debian's static busybox, and the configuration `spec` writes without its terminal. */
export function makeBundle(name: string): Bundle {
  const dir = mkdtempSync(join(tmpdir(), `estiba-${name}-`));
  const rootfs = join(dir, 'rootfs');
  mkdirSync(join(rootfs, 'bin'), { recursive: true });
  copyFileSync(BUSYBOX, join(rootfs, 'bin/busybox'));
  for (const applet of APPLETS) linkSync(join(rootfs, 'bin/busybox'), join(rootfs, 'bin', applet));
  const config = (change?: (config: OciConfig) => void): OciConfig => {
    const made = exampleConfig();
    if (made.process) made.process = { ...made.process, terminal: false, args: ['true'] };
    made.root = { path: 'rootfs' };
    change?.(made);
    return made;
  };
  return {
    dir,
    rootfs,
    config,
    write: (made) => writeFileSync(join(dir, 'config.json'), JSON.stringify(made)),
    [Symbol.dispose]: () => rmSync(dir, { recursive: true, force: true }),
  };
}
