import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Entry } from './initramfs.ts';
import { directory, file, initramfs, link } from './initramfs.ts';

/** Emulation on a busy machine: 5 s when it is quiet. */
const BOOT_AND_RUN_MS = 170_000;

// The archive is unpacked into rootfs, which pivot_root(2) refuses to leave: all goes on from a tmpfs.
const FIRST = `#!/bin/busybox sh
/bin/busybox mkdir /new
/bin/busybox mount -t tmpfs new /new
for name in bin dev proc sys tmp run plans bundle cases.sh init; do /bin/busybox cp -a /$name /new/$name; done
exec /bin/busybox switch_root /new /init
`;

const INIT = `#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup # as systemd does
stty -F /dev/ttyS0 -onlcr
say() { echo "@@ $*"; }
plan() { estiba-init run 3 4 3</plans/$1 4>/tmp/$1.result; r=$?; say result $1 $r $(base64 /tmp/$1.result | tr -d '\\n'); return $r; }
. /cases.sh
say end
poweroff -f
`;

export interface MachineFiles {
  kernel: string;
  executor: string;
  busybox: string;
  plans: Readonly<Record<string, Uint8Array>>;
  /** Static programs for /bin. */
  programs: Readonly<Record<string, Uint8Array>>;
  /** What lies in /bundle/rootfs beside busybox and its links. */
  rootfs: Readonly<Record<string, string>>;
  /** What PID 1 does, with `say KEY VALUE…` and `plan NAME`. */
  script: string;
}

/** Boots, runs the script, gives what it said: key → the rest of the line. Throws when the machine did not reach the end. */
export async function runMachine(files: MachineFiles): Promise<Map<string, string>> {
  const entries: Entry[] = [
    ...['bin', 'dev', 'proc', 'sys', 'tmp', 'run', 'plans', 'bundle', 'bundle/rootfs'].map(directory),
    ...['bin', 'dev', 'proc', 'sys', 'tmp'].map((name) => directory(`bundle/rootfs/${name}`)),
    file('bundle/rootfs/bin/busybox', readFileSync(files.busybox), 0o755),
    ...['sh', 'cat', 'ls', 'grep', 'mkdir', 'echo', 'id', 'sleep'].map((name) =>
      link(`bundle/rootfs/bin/${name}`, 'busybox'),
    ),
    ...Object.entries(files.rootfs).map(([path, text]) => file(`bundle/rootfs/${path}`, text)),
    file('bin/busybox', readFileSync(files.busybox), 0o755),
    file('bin/estiba-init', readFileSync(files.executor), 0o755),
    link('bin/sh', 'busybox'),
    ...Object.entries(files.programs).map(([name, bytes]) => file(`bin/${name}`, bytes, 0o755)),
    ...Object.entries(files.plans).map(([name, bytes]) => file(`plans/${name}`, bytes)),
    file('cases.sh', files.script),
    file('init', INIT, 0o755),
    file('first', FIRST, 0o755),
  ];
  const folder = mkdtempSync(join(tmpdir(), 'estiba-v2-'));
  try {
    const image = join(folder, 'initramfs.gz');
    writeFileSync(image, initramfs(entries));
    return parse(await boot(files.kernel, image));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function boot(kernel: string, image: string): Promise<string> {
  const machine = spawn(
    'qemu-system-x86_64',
    [
      ...['-accel', 'tcg', '-cpu', 'max', '-smp', '2', '-m', '512', '-nodefaults', '-no-reboot', '-display', 'none'],
      ...['-serial', 'stdio', '-kernel', kernel, '-initrd', image],
      ...['-append', 'console=ttyS0 quiet loglevel=3 panic=-1 rdinit=/first cgroup_no_v1=all random.trust_cpu=on'],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'], timeout: BOOT_AND_RUN_MS, killSignal: 'SIGKILL' },
  );
  let console = '';
  machine.stdout.on('data', (chunk: Buffer) => {
    console += chunk.toString();
  });
  machine.stderr.on('data', (chunk: Buffer) => {
    console += chunk.toString();
  });
  return new Promise((resolve, reject) => {
    machine.once('error', reject);
    machine.once('close', () => resolve(console));
  });
}

function parse(console: string): Map<string, string> {
  const said = new Map<string, string>();
  for (const line of console.split(/\r?\n/)) {
    const match = /@@ (\S+) ?(.*)$/.exec(line);
    if (!match) continue;
    // `result NAME …` is kept under `result NAME`.
    const [key = '', rest = ''] = [match[1], match[2]];
    const space = rest.indexOf(' ');
    if (key === 'result') said.set(`result ${rest.slice(0, space)}`, rest.slice(space + 1));
    else said.set(key, rest);
  }
  if (!said.has('end')) throw new Error(`the machine did not come to the end. Its console:\n${console.slice(-4000)}`);
  return said;
}
