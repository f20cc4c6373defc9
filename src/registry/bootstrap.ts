import { execFile, spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { Clock } from '#base/clock.ts';
import { defineError, errnoOf } from '#base/errors.ts';
import { type BlobInfo, type ContentStore, type Ingest, writeBlob } from '#image/content.ts';
import { entryWith } from '#image/tar/entry.ts';
import { endOfArchive, header, member } from '#image/tar/writer.ts';
import type { ProgressSink } from '#registry/client/progress.ts';
import type { Pulled } from '#registry/client/pull.ts';
import type { Bootstrap } from '#registry/registries.ts';
import { type ImageManifest, MEDIA, parseManifest } from '#spec/image/manifest.ts';
import type { Platform } from '#spec/image/platform.ts';
import { familiarReference, type Reference } from '#spec/image/reference.ts';

/**
 * Images for a network without a registry (ARCHITECTURE §9): `debian` is built with mmdebstrap from the package sources that
 * this host itself uses, `busybox` is the host's own static busybox. Such an image says so in a label, and is an ordinary
 * image from then on. Asked for only where nobody answered (see `Registries.pull`).
 */
export type BootstrapPlan = { make: 'debian'; suite: string; label: string } | { make: 'busybox'; label: string };

export const BOOTSTRAP_LABEL = 'estiba.bootstrap';

export const BootstrapFailed = defineError('BOOTSTRAP_FAILED', (d: { reference: string; why: string }) => ({
  message: `no registry can be reached for ${d.reference}, and it cannot be made here: ${d.why}`,
  hint: 'make a registry reachable, or install what is missing; --bootstrap=off switches such attempts off',
}));

const CODENAMES: Record<string, string> = { '11': 'bullseye', '12': 'bookworm', '13': 'trixie', '14': 'forky' };

/** What would be made for a name, or undefined: decided by the name alone and the host's own release. */
export function planBootstrap(reference: Reference, hostCodename: string | undefined): BootstrapPlan | undefined {
  // A digest names bytes that we could never make the same.
  if (reference.registry !== 'docker.io' || reference.digest !== undefined) return undefined;
  const tag = reference.tag ?? 'latest';
  switch (reference.repository) {
    case 'library/busybox':
      return { make: 'busybox', label: 'busybox of this host' };
    case 'library/debian': {
      const suite = suiteOf(tag, hostCodename);
      return suite === undefined ? undefined : { make: 'debian', suite, label: `debian ${suite} by mmdebstrap` };
    }
    default:
      return undefined;
  }
}

/** `bookworm`, `bookworm-slim`, `bookworm-20240101-slim`, `12`, `12.5-slim`; `latest` and `stable` are the host's own release. */
function suiteOf(tag: string, hostCodename: string | undefined): string | undefined {
  const base = tag.replace(/-slim$/, '').replace(/-\d{8}$/, '');
  if (['latest', 'stable', 'slim'].includes(base)) return hostCodename;
  const number = /^(\d+)(?:\.\d+)*$/.exec(base)?.[1];
  if (number !== undefined) return CODENAMES[number];
  return [...Object.values(CODENAMES), 'sid'].includes(base) ? base : undefined;
}

export interface BootstrapOptions {
  content: ContentStore;
  clock: Clock;
  platform: Platform;
}

/** To be given to `Registries` unless `--bootstrap=off`. */
export function bootstrapper(o: BootstrapOptions): Bootstrap {
  return async (reference, onProgress, signal) => {
    const plan = planBootstrap(reference, await hostCodename());
    if (!plan) return undefined;
    const name = familiarReference(reference);
    onProgress({ at: 'note', text: `No registry can be reached for ${name}: making it here (${plan.label})` });
    const lease = o.content.lease(`bootstrap of ${name}`);
    try {
      const layer = await (plan.make === 'debian'
        ? debianLayer(plan, name, o, onProgress, signal)
        : busyboxLayer(name, o));
      lease.add(layer.digest);
      return await wrap(plan, name, layer, o, onProgress, lease);
    } finally {
      lease.release();
    }
  };
}

/** One layer, uncompressed: what was made here is unpacked here, and compressing it would cost more than it saves. */
async function wrap(
  plan: BootstrapPlan,
  name: string,
  layer: BlobInfo,
  o: BootstrapOptions,
  onProgress: ProgressSink,
  lease: { add(digest: BlobInfo['digest']): void },
): Promise<Pulled> {
  const created = new Date(o.clock.now()).toISOString();
  const config = Buffer.from(
    JSON.stringify({
      created,
      architecture: o.platform.architecture,
      os: 'linux',
      ...(o.platform.variant ? { variant: o.platform.variant } : {}),
      config: {
        Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
        Cmd: [plan.make === 'debian' ? 'bash' : 'sh'],
        Labels: { [BOOTSTRAP_LABEL]: plan.label },
      },
      rootfs: { type: 'layers', diff_ids: [layer.digest] },
      history: [{ created, created_by: `estiba bootstrap: ${plan.label}` }],
    }),
  );
  const configBlob = await writeBlob(o.content, `bootstrap-config/${name}`, [config]);
  lease.add(configBlob.digest);
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA.ociManifest,
    config: { mediaType: MEDIA.ociConfig, digest: configBlob.digest, size: configBlob.sizeBytes },
    layers: [{ mediaType: MEDIA.ociLayer, digest: layer.digest, size: layer.sizeBytes }],
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  const root = await writeBlob(o.content, `bootstrap-manifest/${name}`, [bytes]);
  const parsed = parseManifest(bytes, MEDIA.ociManifest, name) as {
    kind: 'image';
    mediaType: string;
    manifest: ImageManifest;
  };
  onProgress({ at: 'end', reference: name, digest: root.digest, changed: true, sizeBytes: root.sizeBytes });
  return {
    root: { digest: root.digest, mediaType: MEDIA.ociManifest, sizeBytes: root.sizeBytes },
    image: { manifestDigest: root.digest, manifest: parsed, platform: o.platform },
    digests: [root.digest, configBlob.digest, layer.digest],
    changed: true,
    host: 'bootstrap',
  };
}

async function debianLayer(
  plan: BootstrapPlan & { make: 'debian' },
  name: string,
  o: BootstrapOptions,
  onProgress: ProgressSink,
  signal: AbortSignal | undefined,
): Promise<BlobInfo> {
  const sources = await packageSources(plan.suite);
  if (sources.length === 0)
    throw new BootstrapFailed({
      reference: name,
      why: 'apt has read no Debian package sources on this host (`apt-get update` does)',
    });
  for (const line of sources) onProgress({ at: 'note', text: `from ${line}` });
  const args = ['--variant=minbase', '--format=tar', plan.suite, '-', ...sources];
  const ref = `bootstrap/${plan.suite}`;
  const left = await o.content.ingest(ref);
  await left.abort(); // of a try that was cut: an archive cannot be gone on with
  const ingest = await o.content.ingest(ref);
  try {
    await collect('mmdebstrap', args, ingest, name, signal);
    return await ingest.commit();
  } catch (error) {
    await ingest.abort();
    throw error;
  }
}

/** Runs a program and takes its standard output in; its failure carries the end of what it said. */
async function collect(
  program: string,
  args: string[],
  ingest: Ingest,
  name: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], ...(signal ? { signal } : {}) });
  let said = '';
  child.stderr.on('data', (part: Buffer) => {
    said = (said + part.toString('utf8')).slice(-2000);
  });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  ended.catch(() => undefined); // awaited below; until then its failure is nobody's
  for await (const part of child.stdout) await ingest.append(part as Buffer);
  const status = await ended.catch((cause: unknown) => {
    signal?.throwIfAborted();
    const why = errnoOf(cause) === 'ENOENT' ? `${program} is not installed` : String(cause);
    throw new BootstrapFailed({ reference: name, why }, { cause });
  });
  if (status !== 0)
    throw new BootstrapFailed({
      reference: name,
      why: `${program} ended with ${status}: ${reasonIn(said)}`,
    });
}

/** apt's first error is the reason, those below it (`mmdebstrap failed to run`) only follow from it. */
function reasonIn(said: string): string {
  const lines = said.trim().split('\n');
  return lines.find((line) => line.startsWith('E: ')) ?? lines.at(-1) ?? '';
}

/** The host's own lines for its release, turned to the suite that is wanted: same mirrors, same components. */
async function packageSources(suite: string): Promise<string[]> {
  const codename = await hostCodename();
  const format = '$(REPO_URI) $(RELEASE) $(COMPONENT)';
  const { stdout } = await promisify(execFile)('apt-get', [
    'indextargets',
    '--format',
    format,
    'Created-By: Packages',
  ]).catch(() => ({ stdout: '' })); // without apt there is no mmdebstrap either, and it is that which is told
  return sourceLines(stdout, codename, suite);
}

/** Pure part of `packageSources`: lines of "URI release component". */
export function sourceLines(targets: string, codename: string | undefined, suite: string): string[] {
  const lines = targets.split('\n').flatMap((line) => {
    const [uri = '', release = '', component = ''] = line.trim().split(' ');
    const ours = codename !== undefined && (release === codename || release.startsWith(`${codename}-`));
    if (!ours || !/^https?:\/\//.test(uri) || component === '') return [];
    // sid has neither updates nor security of its own.
    const suffix = release.slice(codename.length);
    if (suite === 'sid' && suffix !== '') return [];
    return [`deb ${uri} ${suite}${suffix} ${component}`];
  });
  return [...new Set(lines)].sort();
}

async function hostCodename(): Promise<string | undefined> {
  const text = await readFile('/etc/os-release', 'utf8').catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw error;
    return '';
  });
  return /^VERSION_CODENAME="?([a-z]+)"?$/m.exec(text)?.[1];
}

const BUSYBOX = '/bin/busybox';

async function busyboxLayer(name: string, o: BootstrapOptions): Promise<BlobInfo> {
  const binary = await readFile(BUSYBOX).catch((cause: unknown) => {
    throw new BootstrapFailed({ reference: name, why: `${BUSYBOX} is not here (Debian: busybox-static)` }, { cause });
  });
  if (isDynamic(binary))
    throw new BootstrapFailed({ reference: name, why: `${BUSYBOX} is not static (Debian: busybox-static)` });
  const { stdout } = await promisify(execFile)(BUSYBOX, ['--list']);
  const applets = stdout.split('\n').filter((applet) => /^[\w.[-]+$/.test(applet) && applet !== 'busybox');
  return writeBlob(o.content, `bootstrap/busybox`, busyboxArchive(binary, applets));
}

/** The archive of a busybox image: the program, a link for each applet, the few files that programs expect. */
export function* busyboxArchive(binary: Buffer, applets: readonly string[]): Iterable<Buffer> {
  for (const path of [
    'bin',
    'dev',
    'etc',
    'home',
    'proc',
    'root',
    'sys',
    'usr',
    'usr/bin',
    'usr/sbin',
    'var',
    'var/www',
  ])
    yield header(entryWith({ type: 'dir', path, mode: 0o755 }));
  for (const path of ['tmp', 'var/tmp']) yield header(entryWith({ type: 'dir', path, mode: 0o1777 }));
  yield file('bin/busybox', binary, 0o755);
  for (const applet of applets)
    yield header(entryWith({ type: 'hardlink', path: `bin/${applet}`, mode: 0o755, linkTarget: 'bin/busybox' }));
  const passwd =
    'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n';
  yield file('etc/passwd', Buffer.from(passwd), 0o644);
  yield file('etc/group', Buffer.from('root:x:0:\ndaemon:x:1:\nwww-data:x:33:\nnogroup:x:65534:\n'), 0o644);
  yield endOfArchive();
}

function file(path: string, bytes: Buffer, mode: number): Buffer {
  return member(entryWith({ path, mode }), bytes);
}

/** An ELF file with a PT_INTERP header needs a loader that the image will not have. 64-bit, little endian, as all our hosts. */
export function isDynamic(elf: Buffer): boolean {
  if (elf.byteLength < 64 || elf.readUInt32BE(0) !== 0x7f454c46) return false;
  const [offset, size, count] = [Number(elf.readBigUInt64LE(32)), elf.readUInt16LE(54), elf.readUInt16LE(56)];
  for (let i = 0; i < count; i++) {
    const at = offset + i * size;
    if (at + 4 <= elf.byteLength && elf.readUInt32LE(at) === PT_INTERP) return true;
  }
  return false;
}

const PT_INTERP = 3;
