import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** What the program in an image is to do. */
export interface StandIn {
  /** `redis:alpine` */
  image: string;
  /** It answers here. */
  ports: readonly number[];
  /** Paths at which it stands, besides the image's own entry point. */
  programs: readonly string[];
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
 * An archive for `docker load` with an image for each stand-in: a layer with a shell and busybox, which all share, and one with the
 * program of `stand-in.c` at the image's own paths.
 */
export function standInArchive(dir: string, standIns: readonly StandIn[]): string {
  const out = join(dir, 'archive');
  mkdirSync(out, { recursive: true });
  const base = layer(out, 'base', baseOf(join(dir, 'base')));
  const manifest = standIns.map(({ image, ports, programs, ends, user = '' }, i) => {
    const own = layer(out, `own-${i}`, linksOf(join(dir, `own-${i}`), programs));
    const env = [
      'PATH=/usr/local/bin:/usr/bin:/bin',
      `STAND_IN_PORTS=${ports.join(' ')}`,
      `STAND_IN_ENDS=${ends.join(' ')}`,
    ];
    const config = { User: user, Env: env, Entrypoint: [PROGRAM], WorkingDir: '/' };
    const rootfs = { type: 'layers', diff_ids: [base.diffId, own.diffId] };
    writeFileSync(join(out, `${i}.json`), JSON.stringify({ architecture: 'amd64', os: 'linux', config, rootfs }));
    return { Config: `${i}.json`, RepoTags: [image], Layers: [base.file, own.file] };
  });
  writeFileSync(join(out, 'manifest.json'), JSON.stringify(manifest));
  const archive = join(dir, 'stand-ins.tar');
  execFileSync('tar', ['-C', out, '-cf', archive, '.']);
  return archive;
}

function layer(out: string, name: string, root: string): { file: string; diffId: string } {
  const file = `${name}.tar`;
  execFileSync('tar', ['-C', root, '-cf', join(out, file), '.']);
  return {
    file,
    diffId: `sha256:${createHash('sha256')
      .update(readFileSync(join(out, file)))
      .digest('hex')}`,
  };
}

function baseOf(root: string): string {
  for (const folder of ['bin', 'etc', 'tmp', 'root', 'usr/bin', 'usr/local/bin'])
    mkdirSync(join(root, folder), { recursive: true });
  chmodSync(join(root, 'tmp'), 0o1777);
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n');
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\nnogroup:x:65534:\n');
  execFileSync('musl-gcc', ['-static', '-Os', '-o', join(root, PROGRAM), SOURCE]);
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'));
  for (const applet of execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).split('\n').filter(Boolean))
    if (!/^(busybox|nc|sh)$/.test(applet)) symlinkSync('busybox', join(root, 'bin', applet));
  symlinkSync('bash', join(root, 'bin/sh')); // busybox's own shell would run its own nc
  writeFileSync(join(root, 'bin/nc'), NC, { mode: 0o755 });
  // A static busybox looks names up with the libraries of its glibc, which come with bash.
  for (const file of ['/bin/bash', ...librariesOf('/bin/bash')]) {
    mkdirSync(join(root, dirname(file)), { recursive: true });
    copyFileSync(file, join(root, file));
  }
  return root;
}

function linksOf(root: string, programs: readonly string[]): string {
  for (const path of new Set(programs)) {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    symlinkSync(PROGRAM, join(root, path));
  }
  mkdirSync(root, { recursive: true });
  return root;
}

function librariesOf(program: string): string[] {
  const text = execFileSync('ldd', [program], { encoding: 'utf8' });
  return [...text.matchAll(/(\/\S+) \(0x/g)].flatMap((match) => match[1] ?? []);
}
