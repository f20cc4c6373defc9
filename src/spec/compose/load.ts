import { posix } from 'node:path';
import { interpolateTree, parseEnvFile, type Variables } from './interpolate.ts';
import { asMap, mergeTrees } from './merge.ts';
import type { ComposeFileObject, ComposeNetwork, ComposeProject, ComposeService, ComposeVolume } from './model.ts';
import * as read from './read.ts';
import { readService } from './service.ts';
import { type MapTree, parseTree, refuse, type Tree } from './tree.ts';

export interface LoadOptions {
  /** Paths of Compose files, the later laid upon the earlier. */
  files: readonly string[];
  /** Text of a file; undefined when there is none. */
  read: (path: string) => Promise<string | undefined>;
  /** What `${…}` sees; it wins over the project's `.env` file. */
  environment: Variables;
  /** Wins over `name:` in the files and over the folder's name. */
  projectName?: string;
  /** `*` for all. */
  profiles?: readonly string[];
}

const TOP = new Set('version name include services models networks volumes secrets configs'.split(' '));
// Files may include and extend each other; a circle is refused long before.
const MAX_FILES = 100;

interface Loading {
  options: LoadOptions;
  /** Files on the way to the present one. */
  chain: readonly string[];
  folder: string;
  variables: Variables;
}

/**
 * From files to one model: each is parsed, interpolated, its includes and extensions resolved; then all are merged in order and
 * read. Every refusal names file and line.
 */
export async function loadCompose(options: LoadOptions): Promise<ComposeProject> {
  const folder = posix.dirname(options.files[0] ?? '.');
  const dotEnv = await options.read(posix.join(folder, '.env'));
  const fromFile = dotEnv === undefined ? {} : parseEnvFile(dotEnv, posix.join(folder, '.env'), options.environment);
  const variables = { ...fromFile, ...options.environment };
  const tree = await loadFiles(options.files, { options, chain: [], folder, variables });
  const project = await readProject(tree, { options, chain: [], folder, variables });
  return selectProfiles(project, options.profiles ?? []);
}

async function loadFiles(files: readonly string[], loading: Loading): Promise<MapTree> {
  let merged: MapTree = { is: 'map', at: { file: files[0] ?? '', line: 1 }, entries: new Map() };
  for (const file of files) {
    const text = await loading.options.read(file);
    if (text === undefined) refuse({ file, line: 1 }, '', 'there is no such file');
    const parsed = read.map(interpolateTree(parseTree(text, file), loading.variables), '');
    read.onlyKnown(parsed, TOP, '');
    const own = { ...loading, chain: [...loading.chain, file], folder: posix.dirname(file) };
    const whole = await withIncludes(await withExtensions(parsed, own), own);
    merged = mergeTrees(merged, whole) as MapTree;
  }
  return merged;
}

/** Included models are complete by themselves: their relative paths and their `.env` are those of their own folder. */
async function withIncludes(tree: MapTree, loading: Loading): Promise<MapTree> {
  const include = tree.entries.get('include');
  if (!include) return tree;
  let base: MapTree = { is: 'map', at: tree.at, entries: new Map() };
  for (const [i, entry] of read.list(include, 'include').entries()) {
    const path = `include[${i}]`;
    const settings = entry.is === 'map' ? entry : undefined;
    if (settings) read.onlyKnown(settings, new Set(['path', 'project_directory', 'env_file']), path);
    const paths = settings
      ? read.textsOrOne(settings.entries.get('path') ?? refuse(entry.at, path, 'has no path'), path)
      : [read.text(entry, path)];
    const files = paths.map((p) => posix.join(loading.folder, p));
    for (const file of files) if (loading.chain.includes(file)) refuse(entry.at, path, `${file} includes itself`);
    if (loading.chain.length > MAX_FILES) refuse(entry.at, path, `more than ${MAX_FILES} files deep`);
    const envFiles = settings?.entries.get('env_file');
    const envPaths = envFiles
      ? read.textsOrOne(envFiles, `${path}.env_file`).map((p) => posix.join(loading.folder, p))
      : [posix.join(posix.dirname(files[0] ?? ''), '.env')];
    let variables = loading.variables;
    for (const envPath of envPaths) {
      const text = await loading.options.read(envPath);
      if (text !== undefined) variables = { ...parseEnvFile(text, envPath, variables), ...variables };
      else if (envFiles) refuse(envFiles.at, `${path}.env_file`, `there is no file ${envPath}`);
    }
    const included = await loadFiles(files, { ...loading, variables });
    for (const section of ['services', 'networks', 'volumes', 'secrets', 'configs']) {
      for (const [name, value] of sectionOf(included, section)) {
        const twice = sectionOf(tree, section).get(name);
        // The same thing twice is a conflict, except that files may agree word for word (networks both need).
        if (twice && section === 'services')
          refuse(twice.at, `${section}.${name}`, `is included from ${value.at.file}:${value.at.line} already`);
      }
    }
    base = mergeTrees(base, included) as MapTree;
  }
  const { entries } = mergeTrees(base, {
    ...tree,
    entries: new Map([...tree.entries].filter(([k]) => k !== 'include')),
  }) as MapTree;
  return { ...tree, entries };
}

function sectionOf(tree: MapTree, name: string): ReadonlyMap<string, Tree> {
  const section = tree.entries.get(name);
  return section ? read.map(section, name).entries : new Map();
}

async function withExtensions(tree: MapTree, loading: Loading): Promise<MapTree> {
  const services = tree.entries.get('services');
  if (!services) return tree;
  const source = read.map(services, 'services');
  const out = new Map<string, Tree>();
  for (const [name, value] of source.entries) {
    const placed = placePaths(read.map(value, `services.${name}`), loading.folder);
    out.set(name, await extended(name, placed, source, loading, []));
  }
  return { ...tree, entries: new Map(tree.entries).set('services', { ...source, entries: out }) };
}

/** `extends` lays a service upon another of this file or of another file. */
async function extended(
  name: string,
  service: MapTree,
  siblings: MapTree,
  loading: Loading,
  chain: readonly string[],
): Promise<MapTree> {
  const wish = service.entries.get('extends');
  if (!wish) return service;
  const path = `services.${name}.extends`;
  const settings = wish.is === 'map' ? wish : undefined;
  const target = settings
    ? read.text(settings.entries.get('service') ?? refuse(wish.at, path, 'has no service'), path)
    : read.text(wish, path);
  const written = settings?.entries.get('file');
  const file = written ? posix.join(loading.folder, read.text(written, `${path}.file`)) : (loading.chain.at(-1) ?? '');
  const id = `${file}#${target}`;
  if (chain.includes(id)) refuse(wish.at, path, `${target} extends itself`);
  let home = siblings;
  let within = loading;
  if (written) {
    const text = await loading.options.read(file);
    if (text === undefined) refuse(written.at, `${path}.file`, `there is no file ${file}`);
    const parsed = read.map(interpolateTree(parseTree(text, file), loading.variables), '');
    home = read.map(parsed.entries.get('services') ?? refuse(wish.at, path, `${file} has no services`), 'services');
    within = { ...loading, chain: [...loading.chain, file], folder: posix.dirname(file) };
  }
  const found = home.entries.get(target);
  if (!found) refuse(wish.at, path, `${file} has no service ${target}`);
  const placed = placePaths(read.map(found, `services.${target}`), within.folder);
  const base = await extended(target, placed, home, within, [...chain, id]);
  const merged = mergeTrees(base, service) as MapTree;
  return { ...merged, entries: new Map([...merged.entries].filter(([key]) => key !== 'extends')) };
}

/** Relative paths are those of the file they are written in; merging would forget which that was. */
function placePaths(service: MapTree, folder: string): MapTree {
  const entries = new Map(service.entries);
  const place = (tree: Tree): Tree => {
    if (tree.is !== 'scalar' || !/^\.{1,2}(\/|$)/.test(tree.text)) return tree;
    const text = relative(posix.join(folder, tree.text));
    return { ...tree, value: text, text };
  };
  const env = entries.get('env_file');
  if (env) entries.set('env_file', placeEnvFiles(env, folder));
  const build = entries.get('build');
  if (build?.is === 'scalar') entries.set('build', place(build));
  else if (build?.is === 'map') {
    const context = build.entries.get('context');
    if (context) entries.set('build', { ...build, entries: new Map(build.entries).set('context', place(context)) });
  }
  const volumes = entries.get('volumes');
  if (volumes?.is === 'list')
    entries.set('volumes', {
      ...volumes,
      items: volumes.items.map((item) => {
        if (item.is === 'map') {
          const source = item.entries.get('source');
          return source ? { ...item, entries: new Map(item.entries).set('source', place(source)) } : item;
        }
        if (item.is !== 'scalar' || !item.text.startsWith('.')) return item;
        const colon = item.text.indexOf(':');
        if (colon < 0) return item;
        const text = `${relative(posix.join(folder, item.text.slice(0, colon)))}${item.text.slice(colon)}`;
        return { ...item, value: text, text };
      }),
    });
  return { ...service, entries };
}

/** Stays recognizable as a path: a bare name would be a volume. */
function relative(path: string): string {
  return path.startsWith('/') || path.startsWith('.') ? path : `./${path}`;
}

function placeEnvFiles(tree: Tree, folder: string): Tree {
  const items = tree.is === 'list' ? tree.items : [tree];
  const placed = items.map((item): Tree => {
    const path = item.is === 'map' ? item.entries.get('path') : item;
    if (path?.is !== 'scalar') return item;
    const text = path.text.startsWith('/') ? path.text : posix.join(folder, path.text);
    const moved: Tree = { ...path, value: text, text };
    return item.is === 'map' ? { ...item, entries: new Map(item.entries).set('path', moved) } : moved;
  });
  return { is: 'list', at: tree.at, items: placed };
}

async function readProject(tree: MapTree, loading: Loading): Promise<ComposeProject> {
  const name = projectName(tree, loading);
  const services: Record<string, ComposeService> = {};
  for (const [key, value] of sectionOf(tree, 'services')) {
    if (!/^[a-zA-Z0-9._-]+$/.test(key)) refuse(value.at, `services.${key}`, 'is no valid name of a service');
    services[key] = readService(
      key,
      await withEnvFiles(read.map(value, `services.${key}`), `services.${key}`, loading),
    );
  }
  const project: ComposeProject = {
    name,
    services,
    networks: readSection(tree, 'networks', (t, key, p) => readNetwork(t, key, p, name)),
    volumes: readSection(tree, 'volumes', (t, key, p) => readVolume(t, key, p, name)),
    secrets: readSection(tree, 'secrets', (t, key, p) => readFileObject(t, key, p, name, loading.folder)),
    configs: readSection(tree, 'configs', (t, key, p) => readFileObject(t, key, p, name, loading.folder)),
  };
  checkReferences(project);
  return project;
}

function projectName(tree: MapTree, { options, folder }: Loading): string {
  const written = tree.entries.get('name');
  const given =
    options.projectName ?? options.environment['COMPOSE_PROJECT_NAME'] ?? (written && read.text(written, 'name'));
  const name =
    given ??
    posix
      .basename(posix.resolve('/', folder))
      .toLowerCase()
      .replace(/[^a-z0-9_-]/g, '')
      .replace(/^[_-]+/, '');
  if (name !== '' && !/^[a-z0-9][a-z0-9_-]*$/.test(name))
    refuse(
      written?.at ?? tree.at,
      'name',
      `${JSON.stringify(name)} is no valid name: lower case letters, digits, - and _`,
    );
  return name === '' ? 'default' : name;
}

/** What env files say stands below what `environment` says. */
async function withEnvFiles(service: MapTree, path: string, { options, variables }: Loading): Promise<MapTree> {
  const files = service.entries.get('env_file');
  if (!files) return service;
  const entries = new Map<string, Tree>();
  for (const [i, entry] of (files.is === 'list' ? files.items : [files]).entries()) {
    const here = `${path}.env_file[${i}]`;
    const settings = entry.is === 'map' ? entry : undefined;
    const file = read.text(settings?.entries.get('path') ?? entry, here);
    const required = settings?.entries.get('required');
    const text = await options.read(file);
    if (text === undefined) {
      if (required && !read.bool(required, here)) continue;
      refuse(entry.at, here, `there is no file ${file}`);
    }
    const raw = settings?.entries.get('format');
    const values = raw && read.text(raw, here) === 'raw' ? rawEnv(text) : parseEnvFile(text, file, variables);
    for (const [key, value] of Object.entries(values))
      entries.set(key, { is: 'scalar', at: entry.at, value, text: value });
  }
  const own = service.entries.get('environment');
  for (const [key, value] of own ? read.map(asMap(own), `${path}.environment`).entries : []) entries.set(key, value);
  return { ...service, entries: new Map(service.entries).set('environment', { is: 'map', at: files.at, entries }) };
}

function rawEnv(text: string): Record<string, string> {
  const pairs = text.split(/\r?\n/).flatMap((line): [string, string][] => {
    const equals = line.indexOf('=');
    return equals < 1 || line.startsWith('#') ? [] : [[line.slice(0, equals), line.slice(equals + 1)]];
  });
  return Object.fromEntries(pairs);
}

function readSection<T>(
  tree: MapTree,
  section: string,
  reader: (tree: MapTree, key: string, path: string) => T,
): Record<string, T> {
  const out: Record<string, T> = {};
  for (const [key, value] of sectionOf(tree, section)) {
    const path = `${section}.${key}`;
    out[key] = reader(read.map(value, path), key, path);
  }
  return out;
}

/** Named by the project and its key, unless named or external. */
function identity(tree: MapTree, key: string, path: string, project: string): { name: string; external: boolean } {
  const external = tree.entries.get('external');
  // The old form `external: {name: x}`.
  const old = external?.is === 'map' ? external.entries.get('name') : undefined;
  const isExternal = external !== undefined && (external.is === 'map' || read.bool(external, `${path}.external`));
  const given = tree.entries.get('name') ?? old;
  const name = given ? read.text(given, `${path}.name`) : isExternal ? key : `${project}_${key}`;
  return { name, external: isExternal };
}

function others(tree: MapTree, taken: readonly string[]): ReadonlyMap<string, Tree> {
  return new Map([...tree.entries].filter(([key]) => !taken.includes(key)));
}

function readNetwork(tree: MapTree, key: string, path: string, project: string): ComposeNetwork {
  read.onlyKnown(
    tree,
    new Set('name driver driver_opts ipam external internal enable_ipv4 enable_ipv6 attachable labels'.split(' ')),
    path,
  );
  const internal = tree.entries.get('internal');
  return {
    ...identity(tree, key, path, project),
    internal: internal ? read.bool(internal, `${path}.internal`) : false,
    at: tree.at,
    rest: others(tree, ['name', 'external', 'internal']),
  };
}

function readVolume(tree: MapTree, key: string, path: string, project: string): ComposeVolume {
  read.onlyKnown(tree, new Set('name driver driver_opts external labels'.split(' ')), path);
  return { ...identity(tree, key, path, project), at: tree.at, rest: others(tree, ['name', 'external']) };
}

function readFileObject(tree: MapTree, key: string, path: string, project: string, folder: string): ComposeFileObject {
  read.onlyKnown(
    tree,
    new Set('name content environment file external labels driver driver_opts template_driver'.split(' ')),
    path,
  );
  const { name, external } = identity(tree, key, path, project);
  const sources = ['file', 'environment', 'content'].filter((k) => tree.entries.has(k));
  if (!external && sources.length !== 1) refuse(tree.at, path, 'needs exactly one of file, environment and content');
  const of = (k: string): string | undefined => {
    const value = tree.entries.get(k);
    return value && read.text(value, `${path}.${k}`);
  };
  const [file, environment, content] = [of('file'), of('environment'), of('content')];
  return {
    name,
    external,
    ...(file === undefined ? {} : { file: file.startsWith('/') ? file : relative(posix.join(folder, file)) }),
    ...(environment === undefined ? {} : { environment }),
    ...(content === undefined ? {} : { content }),
    at: tree.at,
    rest: others(tree, ['name', 'external', 'file', 'environment', 'content']),
  };
}

/** What a service names must be there. */
function checkReferences(project: ComposeProject): void {
  for (const service of Object.values(project.services)) {
    const path = `services.${service.name}`;
    for (const [name, { required }] of Object.entries(service.dependsOn))
      if (!project.services[name] && required)
        refuse(service.where('depends_on'), `${path}.depends_on`, `there is no service ${name}`);
    for (const name of Object.keys(service.networks))
      if (name !== 'default' && !project.networks[name])
        refuse(service.where('networks'), `${path}.networks`, `there is no network ${name}`);
    for (const { type, source, at } of service.volumes)
      if (type === 'volume' && source !== undefined && !project.volumes[source])
        refuse(at, `${path}.volumes`, `there is no volume ${source}`);
    for (const { source, at } of service.secrets)
      if (!project.secrets[source]) refuse(at, `${path}.secrets`, `there is no secret ${source}`);
    for (const { source, at } of service.configs)
      if (!project.configs[source]) refuse(at, `${path}.configs`, `there is no config ${source}`);
  }
  const cleared = new Set<string>();
  for (const name of Object.keys(project.services)) checkCycle(project, name, [], cleared);
}

function checkCycle(project: ComposeProject, name: string, chain: readonly string[], cleared: Set<string>): void {
  const service = project.services[name];
  if (!service || cleared.has(name)) return;
  if (chain.includes(name))
    refuse(
      service.where('depends_on'),
      `services.${name}.depends_on`,
      `goes in a circle: ${[...chain, name].join(' → ')}`,
    );
  for (const next of Object.keys(service.dependsOn)) checkCycle(project, next, [...chain, name], cleared);
  cleared.add(name);
}

/** Services without a profile are always on; one that a service needs must be on too. */
export function selectProfiles(project: ComposeProject, active: readonly string[]): ComposeProject {
  const isOn = (s: ComposeService): boolean =>
    s.profiles.length === 0 || active.includes('*') || s.profiles.some((p) => active.includes(p));
  const services: Record<string, ComposeService> = {};
  for (const [name, service] of Object.entries(project.services)) if (isOn(service)) services[name] = service;
  for (const service of Object.values(services))
    for (const [name, { required }] of Object.entries(service.dependsOn)) {
      if (services[name] || !required) continue;
      const needed = project.services[name]?.profiles.join(', ');
      refuse(
        service.where('depends_on'),
        `services.${service.name}.depends_on`,
        `${name} is in the profile ${needed}, which is not on`,
      );
    }
  return { ...project, services };
}
