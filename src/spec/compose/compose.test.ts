import { describe, expect, it } from 'vitest';
import { interpolate, parseEnvFile } from '#spec/compose/interpolate.ts';
import { type LoadOptions, loadCompose } from '#spec/compose/load.ts';
import { splitWords } from '#spec/compose/read.ts';

type Files = Record<string, string>;

function load(files: Files | string, options: Partial<LoadOptions> = {}) {
  const all: Files = typeof files === 'string' ? { '/app/compose.yaml': files } : files;
  const read = (path: string) => Promise.resolve(all[path]);
  return loadCompose({ files: [Object.keys(all)[0] ?? ''], read, environment: {}, ...options });
}

const one = async (body: string) => {
  const project = await load(`services:\n  web:\n    image: nginx\n${body}`);
  const web = project.services['web'];
  if (!web) throw new Error('no service');
  return web;
};

describe('a service', () => {
  it('reads ports in all their forms', async () => {
    const { ports } = await one(
      '    ports: ["80", "8080:80", "127.0.0.1:8443:443", "[::1]:53:53/udp", "9000-9001:9000-9001", {target: 5000, published: "5001", protocol: udp}]',
    );
    expect(ports.map(({ at: _, ...p }) => p)).toEqual([
      { target: 80, protocol: 'tcp' },
      { target: 80, published: 8080, protocol: 'tcp' },
      { target: 443, published: 8443, hostIp: '127.0.0.1', protocol: 'tcp' },
      { target: 53, published: 53, hostIp: '::1', protocol: 'udp' },
      { target: 9000, published: 9000, protocol: 'tcp' },
      { target: 9001, published: 9001, protocol: 'tcp' },
      { target: 5000, published: 5001, protocol: 'udp' },
    ]);
  });

  it('reads mounts, commands, times, sizes and restart rules', async () => {
    const web = await one(`    command: sh -c "echo 'a b'"
    volumes: [./site:/srv:ro, /var/cache]
    restart: no
    stop_grace_period: 1m30s
    mem_limit: 64m
    deploy: {replicas: 3, resources: {limits: {cpus: "0.5"}}}
    healthcheck: {test: curl -f http://localhost, interval: 500ms, retries: 3}
    tmpfs: /run`);
    expect(web).toMatchObject({
      command: ['sh', '-c', "echo 'a b'"],
      volumes: [
        { type: 'bind', source: '/app/site', target: '/srv', readOnly: true },
        { type: 'volume', target: '/var/cache' },
      ],
      restart: 'no',
      stopGracePeriodMs: 90_000,
      replicas: 3,
      resources: { cpus: 0.5, memoryBytes: 64 * 1024 * 1024 },
      healthcheck: { disabled: false, test: ['CMD-SHELL', 'curl -f http://localhost'], intervalMs: 500, retries: 3 },
      tmpfs: ['/run'],
    });
    expect([...web.rest.keys()]).toEqual([]);
  });

  it('keeps valid attributes without a field of their own, with their lines', async () => {
    const web = await one('    pid: host\n    x-mine: 1');
    expect([...web.rest].map(([k, v]) => `${k} ${v.at.line}`)).toEqual(['pid 4', 'x-mine 5']);
  });
});

describe('errors name file, line and rule', () => {
  const cases: [string, string, string][] = [
    [
      'an unknown attribute',
      'services:\n  a:\n    image: x\n    comand: y',
      'compose.yaml:4: services.a.comand: is not a known attribute; did you mean command?',
    ],
    ['a wrong type', 'services:\n  a:\n    image: [x]', 'compose.yaml:3: services.a.image: must be a string'],
    [
      'a bad port',
      'services:\n  a:\n    image: x\n    ports:\n      - "80"\n      - "99999:80"',
      'compose.yaml:6: services.a.ports[1]: "99999" is no port',
    ],
    [
      'a missing volume',
      'services:\n  a:\n    image: x\n    volumes: [data:/data]',
      'compose.yaml:4: services.a.volumes: there is no volume data',
    ],
    [
      'a circle',
      'services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [a]}',
      'services.a.depends_on: goes in a circle: a → b → a',
    ],
    [
      'a required variable',
      'services:\n  a:\n    image: ${IMAGE:?say which}',
      'compose.yaml:3: services.a.image: required variable IMAGE is missing a value: say which',
    ],
    ['broken YAML', 'services:\n  a: {image: x', 'compose.yaml:2'],
    ['a key twice', 'services:\n  a: {image: x}\n  a: {image: y}', 'compose.yaml:3: Map keys must be unique'],
    ['neither image nor build', 'services:\n  a: {}', 'compose.yaml:2: services.a: has neither an image nor a build'],
  ];
  it.each(cases)('%s', async (_what, text, message) => {
    await expect(load(text)).rejects.toThrow(message);
  });

  it('an alias bomb is refused', async () => {
    const levels = Array.from(
      { length: 9 },
      (_, i) => `x-${i + 1}: &a${i + 1} [${Array(9).fill(`*a${i}`).join(', ')}]`,
    );
    await expect(load(`x-0: &a0 [x]\n${levels.join('\n')}\nservices: {}`)).rejects.toThrow(/more than 200000 values/);
  });
});

describe('several files', () => {
  it('merge: mappings deep, lists appended, commands replaced, unique entries by key', async () => {
    const files = {
      '/app/compose.yaml': `services:
  web:
    image: a
    command: [one]
    environment: {A: "1", B: "2"}
    ports: ["8080:80"]
    volumes: [one:/data]
    dns: [1.1.1.1]
volumes: {one: , two: }`,
      '/app/over.yaml': `services:
  web:
    command: [two]
    environment: [B=3, C=4]
    ports: ["8080:80", "9090:90"]
    volumes: [two:/data]
    dns: [8.8.8.8]`,
    };
    const { services } = await load(files, { files: Object.keys(files) });
    expect(services['web']).toMatchObject({
      command: ['two'],
      environment: { A: '1', B: '3', C: '4' },
      ports: [{ published: 8080 }, { published: 9090 }],
      volumes: [{ source: 'two', target: '/data' }],
    });
  });

  it('!reset takes away, !override replaces', async () => {
    const files = {
      '/app/a.yaml': 'services:\n  web: {image: a, ports: ["80:80"], environment: {A: x, B: y}, expose: ["1"]}',
      '/app/b.yaml':
        'services:\n  web:\n    ports: !override ["90:90"]\n    environment: {A: !reset null}\n    expose: !reset []',
    };
    const { services } = await load(files, { files: Object.keys(files) });
    expect(services['web']).toMatchObject({ ports: [{ published: 90 }], environment: { B: 'y' }, expose: [] });
  });

  it('extends and include resolve paths where they are written', async () => {
    const { services, name } = await load({
      '/app/compose.yaml':
        'name: shop\ninclude: [db/compose.yaml]\nservices:\n  web:\n    extends: {file: ../base/base.yaml, service: app}\n    environment: {MODE: prod}\n    depends_on: [db]',
      '/base/base.yaml':
        'services:\n  app:\n    image: app\n    volumes: [./conf:/conf]\n    environment: {MODE: dev, LEVEL: info}',
      '/app/db/compose.yaml': 'services:\n  db: {image: "postgres:${PG}", volumes: [./init:/init]}',
      '/app/db/.env': 'PG=17',
    });
    expect(name).toBe('shop');
    expect(services['web']).toMatchObject({
      image: 'app',
      environment: { MODE: 'prod', LEVEL: 'info' },
      volumes: [{ source: '/base/conf' }],
    });
    expect(services['db']).toMatchObject({ image: 'postgres:17', volumes: [{ source: '/app/db/init' }] });
  });

  it('env files stand below environment, anchors and merge keys are resolved', async () => {
    const { services } = await load({
      '/app/compose.yaml': `x-env: &env {TZ: UTC, LEVEL: info}
services:
  web:
    image: a
    env_file: [web.env, {path: none.env, required: false}]
    environment: {<<: *env, LEVEL: debug}`,
      '/app/web.env': 'TZ=Europe/Madrid\nTOKEN="a\\nb"\n',
    });
    expect(services['web']?.environment).toEqual({ TZ: 'UTC', TOKEN: 'a\nb', LEVEL: 'debug' });
  });

  it('profiles choose services, and what a service needs must be on', async () => {
    const text =
      'services:\n  web: {image: a}\n  debug: {image: b, profiles: [dev], depends_on: [tools]}\n  tools: {image: c, profiles: [ops]}';
    expect(Object.keys((await load(text)).services)).toEqual(['web']);
    expect(Object.keys((await load(text, { profiles: ['dev', 'ops'] })).services)).toEqual(['web', 'debug', 'tools']);
    await expect(load(text, { profiles: ['dev'] })).rejects.toThrow('tools is in the profile ops, which is not on');
  });
});

describe('interpolation', () => {
  const at = { file: 'f', line: 1 };
  const of = (text: string) => interpolate(text, { A: 'x', EMPTY: '' }, at);
  it('knows every form of the specification', () => {
    expect(
      ['$A', '${A}', '$$A', '${B:-d}', '${EMPTY:-d}', '${EMPTY-d}', '${A:+y}', '${B+y}', '${B:-${A}z}'].map(of),
    ).toEqual(['x', 'x', '$A', 'd', 'd', '', 'y', '', 'xz']);
    expect(of('${HASH:-$2a$14$x}')).toBe('$2a$14');
    expect(() => of('${A')).toThrow('"}" is missing');
    expect(() => of('a $ b')).toThrow('write "$$"');
  });

  it('reads env files', () => {
    const text = '# c\nexport A=1\nB=\'$A # no\'\nC="$A\\t"\nD=x # comment\nHOME\nE="two\nlines"';
    expect(parseEnvFile(text, 'f', { HOME: '/root' })).toEqual({
      A: '1',
      B: '$A # no',
      C: '1\t',
      D: 'x',
      HOME: '/root',
      E: 'two\nlines',
    });
  });

  it('splits command lines as a shell does', () => {
    expect(splitWords('a "b c" d\\ e \'f "g"\' ""')).toEqual(['a', 'b c', 'd e', 'f "g"', '']);
    expect(splitWords('a "b')).toBeUndefined();
  });
});
