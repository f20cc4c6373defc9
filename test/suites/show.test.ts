import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { text as textFrom } from 'node:stream/consumers';
import { isDeepStrictEqual } from 'node:util';
import { Ajv } from 'ajv';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import { isSaid, settled, textOf, WISHED } from '#engine/core/insight/wishes.ts';
import type { ContainerSpec } from '#engine/core/spec.ts';
import { NotingEngine } from './stand-in/noting-engine.ts';

// What `estiba show` prints, read by those for whom it is meant: docker's command line, docker-compose 1.29 and 2 (COMPOSE_V2) and the
// schema of the Compose specification (ESTIBA_SHARED). The clients ask an engine for containers, which notes what it is asked: that
// is the same wish again.

const V2 = process.env['COMPOSE_V2'];
const SCHEMA = resolve(process.env['ESTIBA_SHARED'] ?? '../shared', 'specs/compose-spec/schema/compose-spec.json');
const COMMAND_MS = 120_000;
const isForUs = (text: string): boolean => text.includes('# Estiba alone takes: ');

const folder = mkdtempSync(join(tmpdir(), 'estiba-suite-show-'));
let engine: NotingEngine;
beforeAll(async () => {
  engine = await NotingEngine.listen(join(folder, 'docker.sock'), { networks: ['app', 'back'], volumes: ['vol'] });
});
afterAll(async () => {
  await engine.close();
  rmSync(folder, { recursive: true });
});

async function run(command: string, args: readonly string[]): Promise<{ code: number | null; said: string }> {
  const env = {
    ...process.env,
    DOCKER_HOST: `unix://${engine.socket}`,
    DOCKER_CONFIG: folder,
    // A service of 1.29 takes two places among these, the second while it holds the first: with fewer, all may wait.
    COMPOSE_PARALLEL_LIMIT: '1000',
  };
  const child = spawn(command, args, { cwd: folder, env, stdio: ['ignore', 'pipe', 'pipe'], timeout: COMMAND_MS });
  const [out, err, [code]] = await Promise.all([textFrom(child.stdout), textFrom(child.stderr), once(child, 'exit')]);
  return { code, said: out + err };
}

describe('docker run as it is shown', () => {
  it.each(WISHED)('asks for the same: %s', async (_, { spec }) => {
    const text = await textOf('docker-run', spec, 'docker');
    // Attached, it would wait for what never comes.
    const line = text.includes('--detach') ? text : text.replace('docker run', 'docker create');
    const { code, said } = await run('sh', ['-c', line]);
    if (isForUs(text)) return;
    expect(code, said).toBe(0);
    if (isSaid(text)) expect(settled(engine.wish('docker'))).toEqual(settled(spec));
  });
});

describe('a Compose file as it is shown', () => {
  it.each(WISHED)('is one by the schema of the specification: %s', async (_, { spec }) => {
    expect(existsSync(SCHEMA), `ESTIBA_SHARED must name the shared folder; there is no ${SCHEMA}`).toBe(true);
    const validate = schema();
    const isValid = validate(parse(await textOf('compose', spec)));
    expect(validate.errors ?? []).toEqual([]);
    expect(isValid).toBe(true);
  });
});

let compiled: ReturnType<Ajv['compile']> | undefined;
function schema(): ReturnType<Ajv['compile']> {
  // Formats are for people there, and the draft is an old one.
  const { $schema, ...rules } = JSON.parse(readFileSync(SCHEMA, 'utf8'));
  compiled ??= new Ajv({ strict: false, validateFormats: false }).compile(rules);
  return compiled;
}

interface Client {
  program: string | undefined;
  verb: readonly string[];
  /** Keys of a service that came later: it refuses the file. */
  unknown: readonly string[];
  /** Wishes that it reads and does not hand on. */
  dropped: readonly RegExp[];
}

const CLIENTS: Record<string, Client> = {
  'docker-compose 1.29': {
    program: 'docker-compose',
    // Joins all networks but the first when it starts.
    verb: ['up', '--detach'],
    unknown: [
      ...['annotations', 'cgroup', 'uts', 'healthcheck.start_interval', 'volumes.*.bind.create_host_path'],
      ...['volumes.*.bind.recursive', 'volumes.*.volume.subpath', 'volumes.*.volume.labels'],
      ...['networks.*.mac_address', 'networks.*.driver_opts', 'networks.*.gw_priority'],
    ],
    dropped: [/^platform /],
  },
  // 2.20, of August 2023.
  'docker-compose 2': {
    program: V2,
    verb: ['create'],
    unknown: [
      ...['volumes.*.bind.recursive', 'volumes.*.volume.subpath', 'volumes.*.volume.labels'],
      ...['networks.*.mac_address', 'networks.*.driver_opts', 'networks.*.gw_priority'],
    ],
    dropped: [/^annotations /, /"memorySwappiness":0/, /"startIntervalNs":1000000000/],
  },
};

describe.each(Object.entries(CLIENTS))('%s', (_name, { program, verb, unknown, dropped }) => {
  it('asks for what the file was shown of, each wish a service', async () => {
    if (program === undefined) throw new Error('COMPOSE_V2 must name the program of version 2');
    const { file, asked } = await oneFile(unknown);
    writeFileSync(join(folder, 'compose.yaml'), stringify(file, { version: '1.1' }));
    const { code, said } = await run(program, ['--ansi', 'never', '-f', 'compose.yaml', '-p', 'show', ...verb]);
    expect(code, said.slice(-4000)).toBe(0);
    const differing = asked.flatMap(({ name, spec, container }) => {
      const [want, got] = [settled(spec), withoutTraces(settled(engine.wish(container)), container)];
      const fields = Object.keys({ ...want, ...got }) as (keyof ContainerSpec)[];
      const other = fields.filter((field) => !isDeepStrictEqual(got[field], want[field]));
      return other.map((field) => `${name}: ${JSON.stringify(got[field])}`);
    });
    const isDropped = (line: string): boolean => dropped.some((known) => known.test(line.split(': ')[0] ?? ''));
    expect(differing.filter((line) => !isDropped(line))).toEqual([]);
    expect(asked.length).toBeGreaterThan(90);
  });
});

interface Asked {
  name: string;
  spec: ContainerSpec;
  /** Its service, too. */
  container: string;
}

/** All wishes in one file, but for those with keys that the version does not know. */
async function oneFile(unknown: readonly string[]): Promise<{ file: object; asked: Asked[] }> {
  const file = { services: {} as Record<string, unknown>, volumes: {}, networks: {} };
  const asked: Asked[] = [];
  for (const [i, [name, { spec }]] of WISHED.entries()) {
    const container = `w${i}`;
    const text = await textOf('compose', spec, container);
    const shown = parse(text);
    const service = shown.services[container];
    if (isForUs(text) || pathsOf(service).some((path) => unknown.includes(path))) continue;
    // The engine's image of that name is of that platform: version 2 compares.
    file.services[container] = spec.platform ? { ...service, image: spec.platform } : service;
    Object.assign(file.volumes, shown.volumes);
    Object.assign(file.networks, shown.networks);
    if (isSaid(text)) asked.push({ name, spec, container });
  }
  return { file, asked };
}

/** `networks.*.aliases`: the keys of a service; `*` is an item of a list, or a network. */
function pathsOf(value: unknown, prefix = ''): string[] {
  if (typeof value !== 'object' || value === null) return [];
  const isOpen = Array.isArray(value) || prefix === 'networks.';
  return Object.entries(value).flatMap(([key, inner]) => {
    const path = `${prefix}${isOpen ? '*' : key}`;
    return [path, ...pathsOf(inner, `${path}.`)];
  });
}

/** What Compose adds of its own: labels, and names of the service in its networks. */
function withoutTraces(spec: Partial<ContainerSpec>, container: string): Partial<ContainerSpec> {
  const own = Object.entries(spec.labels ?? {}).filter(([key]) => !key.startsWith('com.docker.compose.'));
  const { network = expect.fail('no network') } = spec;
  const endpoints = network.endpoints.map((e) => ({ ...e, aliases: e.aliases.filter((alias) => alias !== container) }));
  return { ...spec, labels: Object.fromEntries(own), network: { ...network, endpoints } };
}
