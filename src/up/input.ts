import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { errnoOf } from '#base/errors.ts';
import { loadCompose } from '#spec/compose/load.ts';
import type { ComposeProject } from '#spec/compose/model.ts';
import type { ComposeInput, PathKind } from '#up/compose/context.ts';
import { hostPathOf } from '#up/compose/mounts.ts';
import { namespaceFor, planCompose } from '#up/compose/plan.ts';
import { planDockerfile } from '#up/dockerfile.ts';
import { NothingToRun } from '#up/errors.ts';
import { KUSTOMIZATION_FILES, loadKustomization } from '#up/kustomize/load.ts';
import { planManifests } from '#up/manifests/plan.ts';
import { readManifests } from '#up/manifests/read.ts';
import type { AppPlan, UpObject } from '#up/objects.ts';

export interface UpWish {
  /** A folder or a file. */
  path: string;
  /** `-f`: Compose files, the later upon the earlier. */
  files: readonly string[];
  name?: string;
  namespace?: string;
  profiles: readonly string[];
  environment: Readonly<Record<string, string | undefined>>;
  cluster: 'estiba' | 'other';
}

/** What a folder or file is taken for. */
export type UpInput =
  | { is: 'compose'; files: readonly string[] }
  | { is: 'kustomization'; folder: string }
  | { is: 'manifests'; files: readonly string[]; folder: string }
  | { is: 'dockerfile'; file: string };

/** Makes the plan anew, with the ids of images built since. */
export type Planner = (built?: Readonly<Record<string, string>>) => AppPlan;

const COMPOSE_FILES = ['compose.yaml', 'compose.yml', 'docker-compose.yaml', 'docker-compose.yml'];
const OVERRIDES: Readonly<Record<string, string>> = {
  'compose.yaml': 'compose.override.yaml',
  'compose.yml': 'compose.override.yml',
  'docker-compose.yaml': 'docker-compose.override.yaml',
  'docker-compose.yml': 'docker-compose.override.yml',
};
const MANIFEST = /\.(ya?ml|json)$/;

/** Reads all that a plan needs from disk; the planner it answers reads nothing more. */
export async function loadApp(wish: UpWish): Promise<Planner> {
  const input = await detect(wish);
  switch (input.is) {
    case 'compose':
      return loadComposeApp(wish, input.files);
    case 'kustomization': {
      const objects = await loadKustomization(input.folder);
      return () => manifestsPlan(wish, input.folder, objects);
    }
    case 'manifests': {
      const texts = await Promise.all(input.files.map(async (file) => ({ file, text: await readFile(file, 'utf8') })));
      const objects = texts.flatMap(({ file, text }) => readManifests(text, file));
      return () => manifestsPlan(wish, input.folder, objects);
    }
    case 'dockerfile': {
      const text = await readFile(input.file, 'utf8');
      const app = wish.name ?? namespaceFor(basename(dirname(resolve(input.file))));
      return (built) => planDockerfile({ text, file: input.file, app, namespace: wish.namespace ?? app, built });
    }
  }
}

/** Compose before kustomization before a Dockerfile before loose manifests: an app with a compose file often has the others beside it. */
export async function detect({ path, files }: Pick<UpWish, 'path' | 'files'>): Promise<UpInput> {
  if (files.length > 0) return { is: 'compose', files: files.map((file) => resolve(path, file)) };
  const kind = await kindOf(path);
  if (kind === 'missing') throw new NothingToRun({ path });
  if (kind !== 'directory') return detectFile(path);
  const names = new Set(await readdir(path));
  const compose = COMPOSE_FILES.find((name) => names.has(name));
  if (compose) {
    const override = OVERRIDES[compose] ?? '';
    return { is: 'compose', files: [compose, ...(names.has(override) ? [override] : [])].map((n) => join(path, n)) };
  }
  if (KUSTOMIZATION_FILES.some((name) => names.has(name))) return { is: 'kustomization', folder: path };
  if (names.has('Dockerfile')) return { is: 'dockerfile', file: join(path, 'Dockerfile') };
  const manifests = [...names].filter((name) => MANIFEST.test(name)).sort();
  if (manifests.length === 0) throw new NothingToRun({ path });
  return { is: 'manifests', files: manifests.map((name) => join(path, name)), folder: path };
}

async function detectFile(file: string): Promise<UpInput> {
  if (KUSTOMIZATION_FILES.includes(basename(file))) return { is: 'kustomization', folder: dirname(file) };
  if (!MANIFEST.test(file)) return { is: 'dockerfile', file };
  const text = await readFile(file, 'utf8');
  // Compose files name services at the top; Kubernetes objects their kind.
  const isManifest = /^(---\s*)?\s*\{/.test(text) || /^kind\s*:/m.test(text);
  return isManifest ? { is: 'manifests', files: [file], folder: dirname(file) } : { is: 'compose', files: [file] };
}

function manifestsPlan(wish: UpWish, folder: string, objects: readonly UpObject[]): AppPlan {
  const app = wish.name ?? namespaceFor(basename(resolve(folder)));
  return planManifests({ app, objects, ...(wish.namespace === undefined ? {} : { namespace: wish.namespace }) });
}

async function loadComposeApp(wish: UpWish, files: readonly string[]): Promise<Planner> {
  const environment = { ...wish.environment };
  const project = await loadCompose({
    files,
    read: readIfThere,
    environment: definedOnly(environment),
    profiles: wish.profiles,
    ...(wish.name === undefined ? {} : { projectName: wish.name }),
  });
  const base = {
    project,
    namespace: wish.namespace ?? namespaceFor(project.name),
    environment,
    folder: resolve(dirname(files[0] ?? '.')),
    cluster: wish.cluster,
  };
  const [paths, contents] = await Promise.all([kindsOf(base), contentsOf(project, base.folder)]);
  const input: ComposeInput = { ...base, paths, files: contents };
  return (built) => planCompose(built ? { ...input, built } : input);
}

async function kindsOf(base: Pick<ComposeInput, 'project' | 'folder' | 'environment'>): Promise<ComposeInput['paths']> {
  const sources = Object.values(base.project.services).flatMap((s) =>
    s.volumes.flatMap((v) => (v.type === 'bind' && v.source !== undefined ? [v.source] : [])),
  );
  const kinds = sources.map(
    async (source): Promise<[string, PathKind]> => [source, await kindOf(hostPathOf(base, source))],
  );
  return Object.fromEntries(await Promise.all(kinds));
}

async function contentsOf({ secrets, configs }: ComposeProject, folder: string): Promise<ComposeInput['files']> {
  const out: Record<string, Uint8Array> = {};
  for (const { file } of [...Object.values(secrets), ...Object.values(configs)]) {
    if (file === undefined) continue;
    const bytes = await unlessMissing(() => readFile(resolve(folder, file)));
    if (bytes) out[file] = bytes;
  }
  return out;
}

async function kindOf(path: string): Promise<PathKind> {
  const found = await unlessMissing(() => stat(path));
  if (!found) return 'missing';
  if (found.isDirectory()) return 'directory';
  if (found.isSocket()) return 'socket';
  return found.isFile() ? 'file' : 'device';
}

function readIfThere(path: string): Promise<string | undefined> {
  return unlessMissing(() => readFile(path, 'utf8'));
}

async function unlessMissing<T>(act: () => Promise<T>): Promise<T | undefined> {
  try {
    return await act();
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
}

function definedOnly(environment: Readonly<Record<string, string | undefined>>): Record<string, string> {
  return Object.fromEntries(Object.entries(environment).flatMap(([k, v]) => (v === undefined ? [] : [[k, v]])));
}
