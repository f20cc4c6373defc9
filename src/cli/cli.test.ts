import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { nearest, parseArgs } from '#cli/args.ts';
import { parseDetachKeys } from '#cli/attach.ts';
import { portsText } from '#cli/commands/containers.ts';
import { createBody, portsOf } from '#cli/commands/create-body.ts';
import { splitImage } from '#cli/commands/pull.ts';
import { complete } from '#cli/complete.ts';
import { helpOf } from '#cli/help.ts';
import { runCli } from '#cli/main.ts';
import { alignColumns, bytes, printList, span } from '#cli/output.ts';
import { registryOf } from '#cli/registry-auth.ts';
import { compileTemplate } from '#cli/template/evaluate.ts';
import type { Io, Verb } from '#cli/verb.ts';
import { ALL_VERBS } from '#cli/verbs/all.ts';

const verb = (name: string): Verb => ALL_VERBS.find((v) => v.name === name) ?? expect.fail(`no verb ${name}`);
const world = { env: { HOME: '/root', FROM_SHELL: 'yes' }, cwd: '/work' };

/** The body that the words of a `run` make. */
function body(...words: string[]): Record<string, unknown> {
  const { flags, args } = parseArgs(verb('run'), words);
  return createBody(flags, args[0] ?? '', args.slice(1), world);
}

interface Screen {
  io: Io;
  out: () => string;
  err: () => string;
}
function screen(): Screen {
  const [out, err] = [[] as string[], [] as string[]];
  const stream = (into: string[]): NodeJS.WriteStream =>
    ({ write: (text: string) => into.push(text) > 0, isTTY: false }) as unknown as NodeJS.WriteStream;
  const io = {
    ...world,
    stdin: new PassThrough() as unknown as NodeJS.ReadStream,
    stdout: stream(out),
    stderr: stream(err),
    version: { version: '1', commit: 'abc' },
    now: () => 0,
  };
  return { io, out: () => out.join(''), err: () => err.join('') };
}

describe('the table of verbs', () => {
  it('has no two verbs of one name, and no two flags of one name or letter in a verb', () => {
    const names = ALL_VERBS.flatMap((v) => [v.name, ...(v.aliases ?? [])]);
    expect(names).toEqual([...new Set(names)]);
    for (const { name, flags } of ALL_VERBS) {
      const all = [...flags.map((f) => f.name), ...flags.flatMap((f) => f.short ?? [])];
      expect(all, name).toEqual([...new Set(all)]);
    }
  });

  it.each(ALL_VERBS.map((v) => [v.name, v] as const))('%s can be loaded, and explains itself', async (_, row) => {
    expect(typeof (await row.load())).toBe('function');
    const help = helpOf(row);
    for (const flag of row.flags) expect(help).toContain(`--${flag.name}`);
  });
});

describe('parseArgs', () => {
  it.each([
    [
      ['-it', 'x'],
      ['interactive', 'tty'],
    ],
    [
      ['-d', '--rm', 'x', '--tty'],
      ['detach', 'rm'],
    ],
    [['--rm=false', 'x'], []],
  ])('%j turns on %j', (words, on) => {
    const { flags } = parseArgs(verb('run'), words);
    expect(['interactive', 'tty', 'detach', 'rm'].filter((f) => flags.on(f))).toEqual(on);
  });

  it('takes values beside a letter, behind = and as the next word', () => {
    const { flags, args } = parseArgs(verb('run'), [
      '-p80:80',
      '-p',
      '81:81',
      '--publish=82:82',
      '-e',
      'A=b c',
      'x',
      '-p',
      '1',
    ]);
    expect(flags.list('publish')).toEqual(['80:80', '81:81', '82:82']);
    expect(args).toEqual(['x', '-p', '1']);
  });

  it('takes flags behind arguments where nothing else could be meant, and everything behind --', () => {
    expect(parseArgs(verb('rm'), ['a', '-f', 'b']).args).toEqual(['a', 'b']);
    expect(parseArgs(verb('rm'), ['--', '-f']).args).toEqual(['-f']);
  });

  it.each([
    ['run', ['--nmae', 'x', 'y'], 'unknown flag: --nmae; did you mean --name?'],
    ['run', ['-Z', 'y'], "unknown shorthand flag: 'Z' in -Z"],
    ['run', ['--name'], 'flag needs an argument: --name'],
    ['run', [], "'estiba run' requires at least 1 argument"],
    ['ps', ['x'], "'estiba ps' accepts no arguments"],
    ['stop', ['-t', 'soon', 'x'], 'must be an integer'],
    ['run', ['--pull', 'sometimes', 'x'], 'must be one of always, missing, never'],
    ['run', ['--rm=perhaps', 'x'], 'must be true or false'],
  ])('%s %j: %s', (name, words, problem) => {
    expect(() => parseArgs(verb(name), words)).toThrow(problem);
  });

  it('finds the nearest name, and none when all are far', () => {
    expect(nearest('imgaes', ['images', 'image'])).toBe('images');
    expect(nearest('xyzzy', ['images'])).toBeUndefined();
  });
});

describe('runCli', () => {
  it.each(['--version', '-v'])('%s says which program this is, without a daemon', async (flag) => {
    const { io, out } = screen();
    expect(await runCli([flag], io, ALL_VERBS)).toBe(0);
    expect(out()).toMatch(/^estiba \S+ \(\S+\)\n$/);
  });

  it.each([
    [['psx'], 125, "'psx' is no command of estiba; did you mean ps?"],
    [['network', 'lss'], 125, "'lss' is no command of estiba network; did you mean ls?"],
    [['ps', '--al'], 125, 'unknown flag: --al; did you mean --all?'],
    [['swarm', 'init'], 1, "swarm's API is not there: use `estiba up`"],
    [['-H', 'ftp://x', 'ps'], 1, 'ftp://x is no address of a daemon'],
    [['-H', 'unix:///nowhere.sock', 'ps'], 1, 'no daemon answers at /nowhere.sock: there is no such socket'],
  ])('%j ends with %i and says %s', async (words, code, says) => {
    const { io, err } = screen();
    expect(await runCli(words, io, ALL_VERBS)).toBe(code);
    expect(err()).toContain(says);
  });

  it('prints what a shell needs, quoted as a shell reads it', async () => {
    const runRoot = mkdtempSync(join(tmpdir(), 'estiba env '));
    writeFileSync(
      join(runRoot, 'endpoints.json'),
      '{"docker":"unix:///run/estiba/docker.sock","kube":"https://127.0.0.1:1"}',
    );
    const { io, out } = screen();
    expect(await runCli(['--run-root', runRoot, 'env'], io, ALL_VERBS)).toBe(0);
    expect(out()).toBe(
      `export DOCKER_HOST=unix:///run/estiba/docker.sock\nexport KUBECONFIG='${runRoot}/kubeconfig'\nexport ESTIBA_RUN_ROOT='${runRoot}'\n`,
    );
    rmSync(runRoot, { recursive: true });
  });

  it('prints the authority of Ingress hosts, or where it looked for it', async () => {
    const runRoot = mkdtempSync(join(tmpdir(), 'estiba-ca-'));
    const none = screen();
    expect(await runCli(['--run-root', runRoot, 'cluster', 'ca'], none.io, ALL_VERBS)).toBe(1);
    expect(none.err()).toContain(`${runRoot}/ingress-ca.crt: no cluster serves there`);
    writeFileSync(join(runRoot, 'ingress-ca.crt'), 'PEM\n');
    const { io, out } = screen();
    expect(await runCli(['--run-root', runRoot, 'cluster', 'ca'], io, ALL_VERBS)).toBe(0);
    expect(out()).toBe('PEM\n');
    rmSync(runRoot, { recursive: true });
  });

  it('lists commands, those of a group, and the flags of one', async () => {
    for (const [words, says] of [
      [[], 'Groups:'],
      [['network'], 'disconnect'],
      [['run', '--help'], '--publish-all'],
      [['help', 'ps'], '--no-trunc'],
    ] as const) {
      const { io, out } = screen();
      expect(await runCli(words, io, ALL_VERBS)).toBe(0);
      expect(out()).toContain(says);
    }
  });
});

describe('what run and create ask for', () => {
  it('is bare when nothing is said', () => {
    expect(body('busybox')).toEqual({
      Image: 'busybox',
      Tty: false,
      OpenStdin: false,
      StdinOnce: false,
      AttachStdin: false,
      AttachStdout: true,
      AttachStderr: true,
      HostConfig: {},
    });
  });

  it('has every flag in its place', () => {
    const asked = body(
      ...'--name n -d -e A=1 -e FROM_SHELL -e NOT_SET -l a=b -v ./x:/x -v /anon -v data:/d:ro -w /w -u 1:2 --entrypoint sh'.split(
        ' ',
      ),
      ...'-m 64m --cpus 1.5 --memory-swap -1 --restart on-failure:3 --ulimit nofile=10:20 --device /dev/fuse:rw --tmpfs /t:size=1m'.split(
        ' ',
      ),
      ...'--network name=net,alias=a,ip=10.0.0.2 --network other --network-alias b --log-driver none --log-opt a=b --sysctl k=v'.split(
        ' ',
      ),
      ...'--health-interval 5s --stop-timeout 3 --cap-add NET_ADMIN --add-host h=1.2.3.4 --mount type=bind,src=./y,dst=/y,readonly'.split(
        ' ',
      ),
      'image',
      'cmd',
    );
    expect(asked).toMatchSnapshot();
  });

  it.each([
    ['8080:80', { '80/tcp': [{ HostIp: '', HostPort: '8080' }] }],
    ['80', { '80/tcp': [{ HostIp: '', HostPort: '' }] }],
    ['127.0.0.1::53/udp', { '53/udp': [{ HostIp: '127.0.0.1', HostPort: '' }] }],
    ['[::1]:1:2', { '2/tcp': [{ HostIp: '::1', HostPort: '1' }] }],
    ['10-11:20-21', { '20/tcp': [{ HostIp: '', HostPort: '10' }], '21/tcp': [{ HostIp: '', HostPort: '11' }] }],
    ['10-20:80', { '80/tcp': [{ HostIp: '', HostPort: '10-20' }] }],
  ])('-p %s', (written, bindings) => {
    expect(portsOf([written]).bindings).toEqual(bindings);
  });

  it('reads --mount and --network as records of CSV, whose fields may have commas of their own', () => {
    const { HostConfig, NetworkingConfig } = body(
      ...['--mount', 'type=volume,"volume-opt=o=addr=192.0.2.1,rw",target=/x'],
      ...['--network', '"driver-opt=a=b,""c"" d",name=app', 'x'],
    );
    expect(HostConfig).toMatchObject({
      Mounts: [{ Target: '/x', VolumeOptions: { DriverConfig: { Options: { o: 'addr=192.0.2.1,rw' } } } }],
      NetworkMode: 'app',
    });
    expect(NetworkingConfig).toEqual({ EndpointsConfig: { app: { DriverOpts: { a: 'b,"c" d' } } } });
  });

  it.each([
    [['-p', 'eighty:80', 'x'], 'must be [[IP:]HOST:]PORT[/PROTOCOL]'],
    [['-p', '1-2:1-3', 'x'], 'the ranges differ in length'],
    [['-m', 'lots', 'x'], 'must be a size such as 64m'],
    [['--mount', 'type=bind,target=/x', 'x'], 'a bind needs a source'],
    [['--mount', 'target=/x,colour=red', 'x'], "unexpected key 'colour'"],
    [['--ulimit', 'nofile', 'x'], 'must be NAME=SOFT[:HARD]'],
    [['--env-file', '/not/there', 'x'], '--env-file: /not/there: ENOENT'],
  ])('%j is refused: %s', (words, problem) => {
    expect(() => body(...words)).toThrow(problem);
  });
});

describe('templates', () => {
  const value = {
    Name: 'web',
    N: 3,
    On: true,
    List: ['a', 'b'],
    Map: { y: 2, x: 1 },
    Empty: [],
    Label: (k: string) => `label ${k}`,
  };
  it.each([
    ['{{.Name}}', 'web'],
    ['{{ .Name | upper }} {{printf "%-4s|%04d" .Name .N}}', 'WEB web |0003'],
    ['{{json .}}', JSON.stringify(value)],
    ['{{json .Map}}', '{"y":2,"x":1}'],
    ['{{join .List ", "}}', 'a, b'],
    ['{{range .List}}[{{.}}]{{end}}', '[a][b]'],
    ['{{range $k, $v := .Map}}{{$k}}={{$v}};{{end}}', 'x=1;y=2;'],
    ['{{range .Empty}}x{{else}}none{{end}}', 'none'],
    ['{{if .On}}yes{{else}}no{{end}}', 'yes'],
    ['{{if eq .N 4}}four{{else if gt .N 2}}more{{else}}less{{end}}', 'more'],
    ['{{with .Map}}{{.x}}{{end}}', '1'],
    ['{{index .Map "y"}}{{index .List 1}}', '2b'],
    ['{{.Label "x"}}', 'label x'],
    ['{{len .List}} {{not .On}} {{.List}} {{.Map}}', '2 false [a b] map[x:1 y:2]'],
    ['{{$n := .N}}{{$n}} {{(index .List 0)}}', '3 a'],
    ['a {{- .Name -}} b', 'awebb'],
    ['{{/* nothing */}}{{"}}"}}{{println "x"}}', '}}x\n'],
    ['{{$.Name}} {{range .List}}{{$.Name}}{{end}}', 'web webweb'],
  ])('%s', (template, text) => {
    expect(compileTemplate(template)(value)).toBe(text);
  });

  it.each([
    ['{{.Missing}}', 'map has no entry for key "Missing"'],
    ['{{.Name', 'is not closed'],
    ['{{if .On}}x', '{{end}} is missing'],
    ['{{magic .Name}}', 'function "magic" not defined'],
    ['{{template "x"}}', 'is not possible here'],
    ['{{$x}}', 'undefined variable $x'],
    ['{{range .N}}{{end}}', "range can't iterate over 3"],
  ])('%s is refused: %s', (template, problem) => {
    expect(() => compileTemplate(template)(value)).toThrow(problem);
  });
});

describe('what is printed', () => {
  const layout = {
    columns: [
      { name: 'ID', head: 'ID', value: (r: string) => r },
      { name: 'Size', head: 'SIZE', value: (r: string) => r.length },
    ],
    shown: ['ID', 'Size'],
    quiet: (r: string) => r,
  };
  it.each([
    [[], 'ID        SIZE\nlong      4\nx         1\n'],
    [['-q'], 'long\nx\n'],
    [['--format', '{{.Size}}'], '4\n1\n'],
    [['--format', 'table {{.Size}}\\t{{.ID}}'], 'SIZE      ID\n4         long\n1         x\n'],
    [['--format', 'json'], '{"ID":"long","Size":4}\n{"ID":"x","Size":1}\n'],
    [['--json'], '{"ID":"long","Size":4}\n{"ID":"x","Size":1}\n'],
  ])('a list with %j', (words, text) => {
    const { io, out } = screen();
    printList(io, parseArgs(verb('images'), words).flags, ['long', 'x'], layout);
    expect(out()).toBe(text);
  });

  it('times and sizes in docker’s words', () => {
    expect([500, 1000, 59_000, 90_000, 3_600_000 * 5, 86_400_000 * 3].map(span)).toEqual([
      'Less than a second',
      '1 second',
      '59 seconds',
      'About a minute',
      '5 hours',
      '3 days',
    ]);
    expect([0, 999, 1_234_567, 5e9].map((n) => bytes(n, 3))).toEqual(['0B', '999B', '1.23MB', '5GB']);
    expect(alignColumns(['a\tb', 'ccc\td'])).toBe('a         b\nccc       d\n');
  });

  it('ports, neighbours joined', () => {
    const port = (PrivatePort: number, PublicPort?: number, IP = '0.0.0.0') => ({
      PrivatePort,
      Type: 'tcp',
      ...(PublicPort ? { PublicPort, IP } : {}),
    });
    expect(portsText([port(80, 8080), port(80, 8080, '::'), port(81, 8081)])).toBe(
      '0.0.0.0:8080-8081->80-81/tcp, [::]:8080->80/tcp',
    );
    expect(portsText([port(6379)])).toBe('6379/tcp');
  });
});

describe('names and keys', () => {
  it.each([
    ['busybox', 'busybox', ''],
    ['r:5000/a/b:1', 'r:5000/a/b', '1'],
    ['r:5000/a', 'r:5000/a', ''],
    ['a@sha256:0', 'a', 'sha256:0'],
  ])('%s', (image, name, tag) => {
    expect(splitImage(image)).toEqual({ name, tag });
  });

  it('an image belongs to the registry it names, and to the hub when it names none', () => {
    expect(['x', 'a/b', 'docker.io/x'].map(registryOf)).toEqual(Array(3).fill('https://index.docker.io/v1/'));
    expect([registryOf('r.example/x'), registryOf('localhost:5000/x')]).toEqual(['r.example', 'localhost:5000']);
  });

  it('detach keys are bytes', () => {
    expect([...parseDetachKeys(undefined)]).toEqual([16, 17]);
    expect([...parseDetachKeys('a,ctrl-]')]).toEqual([97, 29]);
    expect(() => parseDetachKeys('ctrl-!')).toThrow('is no key');
  });
});

describe('completion', () => {
  it.each([
    [[], 'ne', { is: 'words' }, 'network'],
    [['network'], '', { is: 'words' }, 'connect'],
    [['run'], '--pu', { is: 'words' }, '--publish'],
    [['run', '--pull'], '', { is: 'words' }, 'missing'],
    [['-H', 'unix:///x', 'ps'], '-', { is: 'words' }, '--all'],
  ])('%j %s', (words, current, kind, candidate) => {
    const found = complete(ALL_VERBS, words, current);
    expect(found).toMatchObject(kind);
    expect(found.is === 'words' && found.words).toContain(candidate);
  });

  it.each([
    [['rm'], 'container'],
    [['exec', '-it'], 'running'],
    [['run', '--network'], 'network'],
    [['rmi', 'a'], 'image'],
    [['up'], 'file'],
  ])('%j asks for names of a %s', (words, of) => {
    expect(complete(ALL_VERBS, words, '')).toEqual({ is: 'names', of });
  });
});
