import { readFileSync } from 'node:fs';
import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { EstibaError } from '#base/errors.ts';
import { buildHandlers } from '#engine/api/docker/build.ts';
import { commitSettings } from '#engine/api/docker/commit.ts';
import { createRequest } from '#engine/api/docker/create.ts';
import { BODIES } from '#engine/api/docker/fields/bodies.fates.ts';
import { type Fate, type Fates, merged, withValue } from '#engine/api/docker/fields/fates.ts';
import { FILTERS, QUERIES } from '#engine/api/docker/fields/queries.fates.ts';
import { recorder } from '#engine/api/docker/fields/recorder.ts';
import { dockerHandlers } from '#engine/api/docker/handlers.ts';
import type { ApiRequest } from '#engine/api/server.ts';
import { checkBody } from '#spec/docker/body.ts';
import { FACTS } from '#spec/docker/facts.gen.ts';
import type { FieldSchema } from '#spec/docker/facts.ts';

/** Operations that are refused whole: refusals.ts and its test in server.test.ts. */
const REFUSED_PATHS = /^\/(swarm|nodes|services|tasks|secrets|configs|plugins\/)/;
const REFUSED_OPERATIONS = ['VolumeUpdate', 'PluginCreate', 'PluginPull'];
const ROUTES = FACTS.routes.filter(({ path }) => !REFUSED_PATHS.test(path));

/** Every field of a body that has no fields of its own: `Mounts[].Target`, `Labels{}`. */
function leaves(schema: FieldSchema, path = ''): string[] {
  if (typeof schema === 'string')
    return schema.startsWith('@') ? leaves(FACTS.definitions[schema.slice(1)] ?? 'any', path) : [path];
  if (Array.isArray(schema)) return leaves(schema[0] ?? 'any', `${path}[]`);
  if (schema['*'] !== undefined) return leaves(schema['*'], `${path}{}`);
  return Object.entries(schema).flatMap(([name, field]) => leaves(field, path === '' ? name : `${path}.${name}`));
}

/** The least that a request must say. */
const LEAST: Readonly<Record<string, object>> = {
  ContainerCreate: { Image: 'base' },
  ContainerExec: { Cmd: ['true'] },
  NetworkCreate: { Name: 'base' },
  NetworkConnect: { Container: 'base' },
  NetworkDisconnect: { Container: 'base' },
  SystemAuth: { username: 'base', password: 'base', serveraddress: 'base.example' },
};

/** What the engine is asked for. */
async function wishOf(operation: string, body: object, query = ''): Promise<unknown> {
  if (operation === 'ContainerCreate' && body) {
    const checked = checkBody('ContainerCreate', body);
    const { spec, volumesFrom, warnings } = createRequest(checked);
    const { origin: _, ...wish } = spec;
    return { wish, volumesFrom, warnings, name: checked.name };
  }
  if (operation === 'ImageCommit') return commitSettings(checkBody('ImageCommit', body));
  const { engine, calls } = recorder();
  const handlers = { ...dockerHandlers(engine, () => 0), ...buildHandlers(engine) };
  const handler = handlers[operation] ?? expect.fail(`no handler of ${operation}`);
  const request = {
    params: { id: 'base', name: 'base' },
    query: new URLSearchParams(query),
    version: '1.51',
    headers: {},
    body: new PassThrough().end(),
    signal: new AbortController().signal,
    json: async () => body,
  };
  let reply: unknown;
  try {
    reply = await handler(request as unknown as ApiRequest);
  } catch (error) {
    // The recorder's answers are good for nothing; what the handler itself refuses is an error of ours.
    if (error instanceof EstibaError) throw error;
  }
  const { kind, type } = (reply ?? {}) as { kind?: string; type?: string };
  return { calls, kind, type };
}

const isFate =
  <K extends Fate['fate']>(kind: K) =>
  (entry: [string, Fate]): entry is [string, Extract<Fate, { fate: K }>] =>
    entry[1].fate === kind;

describe.each(Object.entries(FACTS.bodies).filter(([id]) => !REFUSED_OPERATIONS.includes(id)))(
  'the body of %s',
  (operation, schema) => {
    const fates: Fates = BODIES[operation] ?? {};
    const bodyWith = (path: string, f: { value: unknown; beside?: object; key?: string }): object =>
      withValue(merged(f.beside ?? {}, LEAST[operation] ?? {}), path, f.value, f.key);

    it('has a fate for each field of the specification, and for no other', () => {
      expect(Object.keys(fates).sort()).toEqual(leaves(schema).sort());
    });

    it.each(Object.entries(fates).filter(isFate('works')))(
      '%s changes what the engine is asked for',
      async (path, f) => {
        const before = await wishOf(operation, merged(f.beside ?? {}, LEAST[operation] ?? {}));
        expect(await wishOf(operation, bodyWith(path, f))).not.toEqual(before);
      },
    );

    it.each(Object.entries(fates).filter(isFate('refused')))('%s is refused, and it is said why', async (path, f) => {
      await expect(wishOf(operation, bodyWith(path, f))).rejects.toThrow(f.says);
    });
  },
);

const hasQuery = ROUTES.filter(({ query }) => Object.keys(query).length > 0);
const hasFilters = ROUTES.flatMap(({ id, filters }) => (filters ? [{ id, filters }] : []));

describe.each([
  ...hasQuery.map(({ id, query }) => ({
    what: `the query of ${id}`,
    id,
    names: Object.keys(query),
    fates: QUERIES[id],
  })),
  ...hasFilters.map(({ id, filters }) => ({ what: `the filters of ${id}`, id, names: filters, fates: FILTERS[id] })),
])('$what', ({ what, id, names, fates = {} }) => {
  it('has a fate for each name of the specification, and for no other', () => {
    expect(Object.keys(fates).sort()).toEqual([...names].sort());
  });

  it.each(Object.entries(fates).filter(isFate('proved')))(
    '%s is read by the module that is named',
    (name, { where }) => {
      expect(readFileSync(new URL(`../${where}`, import.meta.url), 'utf8')).toContain(`'${name}'`);
    },
  );

  it.each(Object.entries(fates).filter(isFate('refused')))('%s is refused, and it is said why', async (name, f) => {
    const query = what.startsWith('the filters')
      ? `filters=${encodeURIComponent(JSON.stringify({ [name]: [f.value] }))}`
      : `${name}=${encodeURIComponent(String(f.value))}`;
    await expect(wishOf(id, {}, query)).rejects.toThrow(f.says);
  });
});
