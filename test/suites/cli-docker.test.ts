import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

// The same words to docker's command line and to ours, at one daemon of ours: what they print and how they end agree.
const ROOT = resolve('.');
const NAME = 'clidck';
const folder = mkdtempSync(join(tmpdir(), 'estiba-cli-docker-'));
const socket = join(folder, 'run/docker.sock');
let daemon: ChildProcess;

interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

function run(program: 'docker' | 'estiba', words: readonly string[], input = ''): Outcome {
  const path = program === 'docker' ? 'docker' : join(ROOT, 'bin/estiba');
  const env = {
    ...process.env,
    DOCKER_HOST: `unix://${socket}`,
    DOCKER_CONFIG: folder,
    DOCKER_CLI_HINTS: 'false',
    DOCKER_BUILDKIT: '0',
  };
  const { status, stdout, stderr } = spawnSync(path, words, {
    env,
    input,
    encoding: 'utf8',
    cwd: folder,
    timeout: 60_000,
  });
  return { code: status, stdout, stderr };
}

beforeAll(async () => {
  const args = [
    'daemon',
    '--data-root',
    join(folder, 'data'),
    '--run-root',
    join(folder, 'run'),
    '--name',
    NAME,
    '--only',
    'engine',
  ];
  daemon = spawn(join(ROOT, 'bin/estiba'), args, { stdio: 'ignore' });
  for (let i = 0; i < 600 && !existsSync(join(folder, 'run/endpoints.json')); i++)
    await new Promise((r) => setTimeout(r, 50));
  expect(run('docker', ['pull', 'busybox'])).toMatchObject({ code: 0 });
  const web = [
    'run',
    '-d',
    '--name',
    'web',
    '-p',
    '127.0.0.1:18098:80',
    '-e',
    'A=1',
    '-l',
    'a=b',
    '-v',
    'data:/d',
    'busybox',
    'httpd',
    '-f',
    '-p',
    '80',
  ];
  expect(run('docker', web)).toMatchObject({ code: 0, stderr: '' });
  expect(
    run('docker', ['create', '--name', 'idle', 'busybox', 'sh', '-c', 'echo out; echo err >&2; exit 4']).code,
  ).toBe(0);
  expect(run('docker', ['network', 'create', '--subnet', '10.213.7.0/24', '--label', 'x=y', 'cmp-net'])).toMatchObject({
    code: 0,
  });
});

afterAll(async () => {
  const all = run('docker', ['ps', '-aq']).stdout.split('\n').filter(Boolean);
  if (all.length > 0) run('docker', ['rm', '-f', '-v', ...all]);
  run('docker', ['network', 'rm', 'cmp-net']);
  const ended = new Promise((done) => daemon.once('exit', done));
  daemon.kill('SIGTERM');
  await ended;
  // A daemon leaves its processes, table and links to the next one; here none comes.
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name)))
    if (Number(pid) !== process.pid && commandOf(pid).includes(folder)) process.kill(Number(pid), 'SIGKILL');
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((l) => l.split(' ')[1] ?? '')
    .filter((m) => m.startsWith(folder));
  for (const mount of mounts.reverse()) execFileSync('umount', ['-l', mount]);
  execFileSync('nft', ['delete', 'table', 'inet', NAME]);
  for (const link of readdirSync('/sys/class/net'))
    if (link === `${NAME}0` || link.startsWith(`${NAME}-`)) execFileSync('ip', ['link', 'del', link]);
  for (const hierarchy of readdirSync('/sys/fs/cgroup')) {
    const group = join('/sys/fs/cgroup', hierarchy, NAME);
    if (existsSync(group)) execFileSync('find', [group, '-depth', '-type', 'd', '-exec', 'rmdir', '{}', ';']);
  }
  rmSync(folder, { recursive: true, force: true });
});

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return ''; // it has ended meanwhile
  }
}

/** Times pass between two calls, and columns are as wide as they are long. */
function still(text: string): string {
  const timeless = text.replace(/(Less than a second|\d+ seconds?|About a minute|\d+ minutes?)( ago)?/g, 'A WHILE');
  return timeless === text ? text : timeless.replace(/ +/g, ' ');
}

const SAME: readonly (readonly string[])[] = [
  ['ps'],
  ['ps', '-a'],
  ['ps', '-aq'],
  ['ps', '-aq', '--no-trunc'],
  ['ps', '-a', '--no-trunc'],
  ['ps', '-n', '1'],
  ['ps', '-l', '-q'],
  ['ps', '-a', '--filter', 'name=idle', '--format', '{{.Names}}'],
  ['ps', '-a', '--filter', 'status=created', '-q'],
  ['ps', '--format', '{{.ID}} {{.Image}} {{.Command}} {{.Ports}} {{.Names}} {{.Labels}} {{.Label "a"}} {{.State}}'],
  ['ps', '--format', 'table {{.Names}}\t{{.Ports}}\t{{.Networks}}\t{{.Mounts}}\t{{.LocalVolumes}}'],
  ['ps', '--format', '{{json .Names}} {{upper .State}} {{if eq .State "running"}}up{{end}}'],
  ['container', 'ls', '--format', '{{.RunningFor}}'],
  ['inspect', 'web'],
  ['inspect', 'web', 'busybox'],
  ['inspect', '-f', '{{.State.Status}} {{json .Config.Env}} {{.Name}}', 'web'],
  ['inspect', '-f', '{{range $p, $b := .NetworkSettings.Ports}}{{$p}} {{(index $b 0).HostPort}}{{end}}', 'web'],
  ['inspect', '-f', '{{index .Config.Labels "a"}} {{len .Mounts}} {{range .Mounts}}{{.Destination}}{{end}}', 'web'],
  ['inspect', '--type', 'container', '-f', '{{.HostConfig.NetworkMode}}', 'web'],
  ['container', 'inspect', '-f', '{{printf "%-8s|%d" .State.Status .RestartCount}}', 'web'],
  ['image', 'inspect', 'busybox'],
  ['image', 'inspect', '-f', '{{join .RepoTags ","}} {{.Os}}', 'busybox'],
  ['images'],
  ['images', '-q'],
  ['images', '--no-trunc', '-q'],
  ['images', 'busybox'],
  ['images', '--digests'],
  ['images', '--format', '{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}'],
  ['image', 'ls', '--filter', 'dangling=true'],
  ['history', 'busybox'],
  ['history', '-q', 'busybox'],
  ['history', '--format', '{{.CreatedBy}}|{{.Size}}', 'busybox'],
  ['network', 'ls'],
  ['network', 'ls', '-q', '--no-trunc'],
  ['network', 'ls', '--format', '{{.Name}} {{.Driver}} {{.Scope}}'],
  ['network', 'ls', '--filter', 'label=x=y', '--format', '{{.Name}}'],
  ['network', 'inspect', 'cmp-net'],
  ['network', 'inspect', '-f', '{{range .IPAM.Config}}{{.Subnet}}{{end}}', 'cmp-net'],
  ['volume', 'ls'],
  ['volume', 'ls', '-q'],
  ['volume', 'inspect', 'data'],
  ['volume', 'inspect', '-f', '{{.Driver}} {{.Name}}', 'data'],
  ['port', 'web'],
  ['port', 'web', '80'],
  ['port', 'web', '80/tcp'],
  ['top', 'web', '-o', 'pid,comm'],
  ['diff', 'web'],
  ['logs', 'web'],
  ['exec', 'web', 'echo', 'hello'],
  ['exec', '-e', 'B=2', '-w', '/tmp', 'web', 'sh', '-c', 'echo $A$B; pwd'],
  ['exec', 'web', 'sh', '-c', 'echo no >&2; exit 9'],
  ['exec', '-u', 'nobody', 'web', 'id', '-u'],
  ['stats', '--no-stream', '--format', '{{.Name}} {{.PIDs}}', 'web'],
  ['info', '--format', '{{.Driver}} {{.ServerVersion}} {{.NCPU}}'],
  ['version', '--format', '{{.Server.Version}}'],
  ['system', 'df', '--format', '{{.Type}} {{.TotalCount}}'],
  ['run', '--rm', 'busybox', 'echo', 'hi'],
  ['run', '--rm', '-e', 'X=y z', 'busybox', 'sh', '-c', 'echo "$X"; echo bad >&2; exit 7'],
  ['run', '--rm', '--entrypoint', 'cat', 'busybox', '/etc/hostname', '--no-such-flag'],
  ['run', '--rm', '--read-only', '--tmpfs', '/t', 'busybox', 'sh', '-c', 'touch /t/x && ls /t; touch /x'],
  ['run', '--rm', '-m', '64m', '--cpus', '0.5', '--hostname', 'here', 'busybox', 'hostname'],
  ['run', '--rm', '--network', 'cmp-net', '--ip', '10.213.7.77', 'busybox', 'hostname', '-i'],
  ['run', '--rm', '--user', '12:34', '--workdir', '/tmp', 'busybox', 'sh', '-c', 'id -u; id -g; pwd'],
  ['run', '--rm', '--cap-drop', 'ALL', 'busybox', 'grep', 'CapEff', '/proc/self/status'],
  ['run', '--rm', '--ulimit', 'nofile=99:99', 'busybox', 'sh', '-c', 'ulimit -n'],
  ['run', '--rm', '--mount', 'type=volume,source=data,target=/m,readonly', 'busybox', 'touch', '/m/x'],
  ['run', '--rm', '--add-host', 'there:10.1.2.3', 'busybox', 'grep', 'there', '/etc/hosts'],
  ['run', '--rm', 'busybox', 'no-such-command'],
  ['start', '-a', 'idle'],
  ['wait', 'idle'],
  ['logs', 'idle'],
  ['logs', '--tail', '1', 'idle'],
  ['ps', '-a', '--filter', 'exited=4', '--format', '{{.Names}} {{.State}}'],
  ['inspect', 'nothing'],
  ['rm', 'nothing'],
  ['rm', '-f', 'nothing'],
  ['stop', 'nothing'],
  ['logs', 'nothing'],
  ['exec', 'idle', 'true'],
  ['attach', 'idle'],
  ['network', 'rm', 'nothing'],
  ['volume', 'rm', 'nothing'],
  ['volume', 'rm', '-f', 'nothing'],
  ['rmi', 'nothing'],
  ['port', 'web', '99'],
  ['tag', 'busybox', 'again:1'],
  ['update', '--restart', 'always', 'web'],
  ['rename', 'idle', 'idle'],
];

describe('docker and estiba', () => {
  it.each(SAME.map((words) => [words.join(' '), words] as const))('%s', (_, words) => {
    const [theirs, ours] = [run('docker', words), run('estiba', words)];
    expect({ code: ours.code, stdout: still(ours.stdout) }).toEqual({
      code: theirs.code,
      stdout: still(theirs.stdout),
    });
    if (words[0] === 'exec' || words[0] === 'run' || words[0] === 'start') return;
    // A failure has the daemon's own words in both.
    const said = (text: string): string | undefined => /Error response from daemon: (.*)/.exec(text)?.[1];
    expect(said(ours.stderr)).toBe(said(theirs.stderr));
  });

  it.each([
    [['exec', '-i', 'web', 'cat'], 'through\nand through\n'],
    [['run', '--rm', '-i', 'busybox', 'wc', '-c'], 'x'.repeat(300_000)],
  ])('%j hands stdin on', (words, input) => {
    const [theirs, ours] = [run('docker', words, input), run('estiba', words, input)];
    expect(ours).toEqual({ ...theirs, stderr: ours.stderr });
  });

  it('a terminal: its name, its size, typed text, and keys that leave it running', () => {
    // `script` gives a terminal; what is typed comes after the prompt.
    const terminal = (program: string, words: string, typed: string): string => {
      const command = `stty rows 33 cols 77; ${program} ${words}`;
      const env = { ...process.env, DOCKER_HOST: `unix://${socket}`, DOCKER_CONFIG: folder, DOCKER_CLI_HINTS: 'false' };
      const line = `(sleep 2; printf '${typed}'; sleep 2) | script -qec '${command}' /dev/null`;
      return execFileSync('sh', ['-c', line], { env, encoding: 'utf8', timeout: 30_000 });
    };
    const ours = join(ROOT, 'bin/estiba');
    for (const program of ['docker', ours]) {
      const size = terminal(program, 'run --rm -it busybox sh -c "sleep 1; tty; stty size"', '');
      expect(size).toContain('/dev/');
      expect(size).toContain('33 77');
      expect(terminal(program, 'run --rm -it busybox sh', 'echo $((6*7))\\nexit\\n')).toContain('42');
      expect(terminal(program, 'exec -it web sh', 'echo $((6*8))\\nexit\\n')).toContain('48');
    }
    for (const program of ['docker', ours]) {
      terminal(program, 'run -it --name left busybox sh', '\\020\\021');
      expect(run('docker', ['inspect', '-f', '{{.State.Status}}', 'left']).stdout, program).toBe('running\n');
      run('docker', ['rm', '-f', 'left']);
    }
  });

  it('copy in and out alike, and under the names that docker gives', () => {
    writeFileSync(join(folder, 'file'), 'content');
    execFileSync('sh', ['-c', `mkdir -p ${folder}/dir/sub && echo deep > ${folder}/dir/sub/f`]);
    const targets = [
      ['file', '/tmp/'],
      ['file', '/tmp/other'],
      ['dir', '/tmp/'],
      ['dir', '/tmp/new'],
      ['dir/.', '/tmp/inside'],
    ] as const;
    const listing = (program: 'docker' | 'estiba'): string => {
      run('docker', ['rm', '-f', 'copy']);
      run('docker', ['run', '-d', '--name', 'copy', 'busybox', 'sleep', '100']);
      run('docker', ['exec', 'copy', 'mkdir', '/tmp/inside']);
      for (const [from, to] of targets)
        expect(run(program, ['cp', from, `copy:${to}`]), `${from} ${to}`).toMatchObject({ code: 0 });
      return run('docker', ['exec', 'copy', 'find', '/tmp', '-exec', 'stat', '-c', '%n %U %a', '{}', '+'])
        .stdout.split('\n')
        .sort()
        .join('\n');
    };
    expect(listing('estiba')).toBe(listing('docker'));
    const out = (program: 'docker' | 'estiba'): string => {
      const into = join(folder, `out-${program}`);
      execFileSync('mkdir', ['-p', into]);
      for (const [from, to] of [
        ['/tmp/other', `${into}/`],
        ['/tmp/other', `${into}/renamed`],
        ['/tmp/new', into],
        ['/tmp/new/.', `${into}/fresh`],
      ] as const)
        expect(run(program, ['cp', `copy:${from}`, to]), `${from} ${to}`).toMatchObject({ code: 0 });
      return execFileSync('sh', ['-c', `cd ${into} && find . -type f -exec md5sum {} + | sort -k2`], {
        encoding: 'utf8',
      });
    };
    expect(out('estiba')).toBe(out('docker'));
  });

  it('save, load, export, import and commit in turn', () => {
    expect(run('estiba', ['save', '-o', 'saved.tar', 'busybox'])).toMatchObject({ code: 0 });
    expect(run('docker', ['load', '-i', 'saved.tar']).stdout).toBe(run('estiba', ['load', '-i', 'saved.tar']).stdout);
    expect(run('estiba', ['export', '-o', 'files.tar', 'web'])).toMatchObject({ code: 0 });
    expect(run('estiba', ['import', 'files.tar', 'flat:1'])).toMatchObject({ code: 0 });
    expect(run('estiba', ['run', '--rm', 'flat:1', 'echo', 'flat']).stdout).toBe('flat\n');
    const committed = run('estiba', ['commit', '-m', 'why not', '-c', 'CMD ["echo","committed"]', 'web', 'kept:1']);
    expect(committed).toMatchObject({ code: 0, stdout: expect.stringMatching(/^sha256:[0-9a-f]{64}\n$/) });
    expect(run('docker', ['run', '--rm', 'kept:1']).stdout).toBe('committed\n');
    expect(run('estiba', ['rmi', 'kept:1', 'flat:1', 'again:1'])).toMatchObject({ code: 0 });
  });

  it('goes through a life: create, start, kill, restart, stop, remove, and the events of it', () => {
    const since = String(Math.floor(Date.now() / 1000));
    for (const words of [
      ['create', '--name', 'life', 'busybox', 'sleep', '100'],
      ['start', 'life'],
      ['restart', '-t', '0', 'life'],
      ['pause', 'life'],
      ['unpause', 'life'],
      ['kill', '-s', 'KILL', 'life'],
      ['start', 'life'],
      ['network', 'connect', '--alias', 'friend', 'cmp-net', 'life'],
      ['network', 'disconnect', 'cmp-net', 'life'],
      ['stop', '-t', '0', 'life'],
      ['rename', 'life', 'after'],
      ['rm', '-v', 'after'],
    ])
      expect(run('estiba', words), words.join(' ')).toMatchObject({ code: 0, stderr: '' });
    const words = [
      'events',
      '--since',
      since,
      '--until',
      String(Math.floor(Date.now() / 1000) + 1),
      '--filter',
      'type=container',
      '--format',
      '{{.Action}} {{.Actor.ID}}',
    ];
    const ours = run('estiba', words).stdout;
    expect(ours).toBe(run('docker', words).stdout);
    expect(ours).toContain('destroy');
  });

  it('prunes what it is told to, and only after a yes', () => {
    run('docker', ['create', '--name', 'gone', 'busybox']);
    expect(run('estiba', ['container', 'prune'], 'n\n')).toMatchObject({ code: 0, stdout: '' });
    expect(run('estiba', ['container', 'prune', '-f']).stdout).toMatch(/^Deleted Containers:\n[0-9a-f]{64}/);
    expect(run('estiba', ['network', 'create', 'unused'])).toMatchObject({ code: 0 });
    expect(run('estiba', ['network', 'prune', '-f']).stdout).toContain('unused');
    expect(run('estiba', ['volume', 'create', 'unused']).stdout).toBe('unused\n');
    expect(run('estiba', ['volume', 'prune', '-f', '-a']).stdout).toContain('unused');
    expect(run('estiba', ['image', 'prune', '-f']).stdout).toContain('Total reclaimed space');
    expect(run('estiba', ['system', 'prune', '-f'])).toMatchObject({ code: 0 });
  });
});
