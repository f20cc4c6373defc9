import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** What the program in an image is to do. */
export interface StandIn {
  /** `redis:alpine` */
  image: string;
  /** It answers here. */
  ports: readonly number[];
  /** Names of programs that end at once. */
  ends: readonly string[];
  /** The image's own user; root when absent. */
  user?: string;
}

const SOURCE = fileURLToPath(new URL('stand-in.c', import.meta.url));
const PROGRAM = '/stand-in';
/** Debian's busybox leaves `nc -z` out (connect, and no more), which scripts that wait for a port use. */
const NC =
  '#!/bin/bash\nfor a; do [[ $a == -*z* ]] || rest+=("$a"); done\nexec busybox nc -w 5 "${rest[@]}" </dev/null\n';

/**
 * An archive for `docker load` with an image for each stand-in: one layer with a shell, busybox, and the program of `stand-in.c` at every
 * path of `programs`.
 */
export function standInArchive(dir: string, standIns: readonly StandIn[], programs: readonly string[]): string {
  const out = join(dir, 'archive');
  mkdirSync(out, { recursive: true });
  const layer = join(out, 'layer.tar');
  execFileSync('tar', ['-C', rootfs(join(dir, 'rootfs'), programs), '-cf', layer, '.']);
  const diffId = `sha256:${createHash('sha256').update(readFileSync(layer)).digest('hex')}`;
  const manifest = standIns.map(({ image, ports, ends, user = '' }, i) => {
    const env = [
      'PATH=/usr/local/bin:/usr/bin:/bin',
      `STAND_IN_PORTS=${ports.join(' ')}`,
      `STAND_IN_ENDS=${ends.join(' ')}`,
    ];
    const config = { User: user, Env: env, Entrypoint: [PROGRAM], WorkingDir: '/' };
    const document = { architecture: 'amd64', os: 'linux', config, rootfs: { type: 'layers', diff_ids: [diffId] } };
    writeFileSync(join(out, `${i}.json`), JSON.stringify(document));
    return { Config: `${i}.json`, RepoTags: [image], Layers: ['layer.tar'] };
  });
  writeFileSync(join(out, 'manifest.json'), JSON.stringify(manifest));
  const archive = join(dir, 'stand-ins.tar');
  execFileSync('tar', ['-C', out, '-cf', archive, '.']);
  return archive;
}

function rootfs(root: string, programs: readonly string[]): string {
  for (const folder of ['bin', 'etc', 'tmp', 'root', 'usr/bin', 'usr/local/bin'])
    mkdirSync(join(root, folder), { recursive: true });
  chmodSync(join(root, 'tmp'), 0o1777);
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n');
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\nnogroup:x:65534:\n');
  execFileSync('musl-gcc', ['-static', '-Os', '-o', join(root, PROGRAM), SOURCE]);
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'));
  for (const applet of execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).split('\n').filter(Boolean))
    if (!existsSync(join(root, 'bin', applet))) symlinkSync('busybox', join(root, 'bin', applet));
  for (const name of ['nc', 'sh']) rmSync(join(root, 'bin', name));
  symlinkSync('bash', join(root, 'bin/sh')); // busybox's own shell would run its own nc
  writeFileSync(join(root, 'bin/nc'), NC, { mode: 0o755 });
  // A static busybox looks names up with the libraries of its glibc, which come with bash.
  for (const file of ['/bin/bash', ...librariesOf('/bin/bash')]) {
    mkdirSync(join(root, dirname(file)), { recursive: true });
    copyFileSync(file, join(root, file));
  }
  for (const path of programs) {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    if (!existsSync(join(root, path))) symlinkSync(PROGRAM, join(root, path));
  }
  return root;
}

function librariesOf(program: string): string[] {
  const text = execFileSync('ldd', [program], { encoding: 'utf8' });
  return [...text.matchAll(/(\/\S+) \(0x/g)].flatMap((match) => match[1] ?? []);
}
