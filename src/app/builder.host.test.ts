import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type BuildFixture, openBuildFixture } from '#app/fixtures/build-node.ts';
import { systemClock } from '#base/clock.ts';
import { Agents } from '#build/agents.ts';
import type { BuildRequest, Finished } from '#build/builder.ts';
import { receiveTar } from '#build/context/receive.ts';
import { cloneGit } from '#build/context/remote.ts';
import type { BuildEvent } from '#build/events.ts';
import { DEFAULT_LIMITS } from '#build/sandbox.ts';
import { parseReference } from '#spec/image/reference.ts';

const OPTIONS: BuildRequest['options'] = {
  args: new Map(),
  targetPlatform: 'linux/amd64',
  buildPlatform: 'linux/amd64',
  contexts: new Set(),
  labels: {},
  noCache: false,
};

describe('the builder on real shims', () => {
  let fixture: BuildFixture;
  beforeAll(async () => {
    fixture = await openBuildFixture('main');
  });
  afterAll(() => fixture.close());

  /** Files by path; a `name -> target` is a link. */
  async function context(files: Record<string, string>): Promise<BuildRequest['contexts']> {
    const dir = join(fixture.root, `context-${Math.random().toString(36).slice(2)}`);
    mkdirSync(dir);
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(join(dir, path, '..'), { recursive: true });
      writeFileSync(join(dir, path), text);
    }
    const tar = execFileSync('tar', ['-C', dir, '-c', '.'], { maxBuffer: 1 << 28 });
    return new Map([['', await receiveTar(Readable.from([tar]), fixture.builder.node.files, { what: 'context' })]]);
  }

  interface Outcome extends Finished {
    events: BuildEvent[];
    output: string;
    cached: number;
  }

  async function build(
    text: string,
    files: Record<string, string> = {},
    changes: Partial<BuildRequest> = {},
    signal = new AbortController().signal,
    onEvent: (event: BuildEvent) => void = () => undefined,
  ): Promise<Outcome> {
    const events: BuildEvent[] = [];
    const finished = await fixture.builder.build(
      {
        file: { name: 'Dockerfile', text },
        contexts: await context(files),
        options: OPTIONS,
        given: { secrets: new Map(), agents: new Map() },
        limits: { ...DEFAULT_LIMITS, network: 'none' },
        allow: new Set(),
        pull: false,
        squash: false,
        epochSec: undefined,
        names: [],
        auth: {},
        ...changes,
      },
      (event) => {
        events.push(event);
        onEvent(event);
      },
      signal,
    );
    const output = events.map((e) => (e.at === 'output' ? e.text.toString() : '')).join('');
    return { ...finished, events, output, cached: events.filter((e) => e.at === 'cached').length };
  }

  /** `ls` of the image's root below a path, as `mode owner path[ -> target]`. */
  async function listing({ image }: Finished, path = ''): Promise<string[]> {
    const root = await fixture.builder.node.overlays.view(await fixture.images.images.layersOf(image));
    try {
      const text = execFileSync('find', [join(root, path), '-mindepth', '1', '-printf', '%M %U:%G %P %l\n']);
      const lines = text.toString().trim().split('\n');
      const pathOf = (line: string): string => line.split(' ')[2] ?? '';
      return lines.map((line) => line.trim()).sort((a, b) => (pathOf(a) < pathOf(b) ? -1 : 1));
    } finally {
      await fixture.builder.node.overlays.unmount(root);
    }
  }

  async function fileOf({ image }: Finished, path: string): Promise<string> {
    const root = await fixture.builder.node.overlays.view(await fixture.images.images.layersOf(image));
    try {
      return readFileSync(join(root, path), 'utf8');
    } finally {
      await fixture.builder.node.overlays.unmount(root);
    }
  }

  it('copies, runs and sets, and does nothing of it again the second time', async () => {
    const text =
      'FROM busybox\nWORKDIR /app\nCOPY a.txt .\nRUN cat a.txt && echo made > made && mkdir d\nENV X=1\nCMD ["cat", "made"]\n';
    const first = await build(text, { 'a.txt': 'hello\n' }, { names: [parseReference('first:1')] });
    expect(first.output).toBe('hello\n');
    expect(await listing(first, 'app')).toEqual(['-rw-r--r-- 0:0 a.txt', 'drwxr-xr-x 0:0 d', '-rw-r--r-- 0:0 made']);
    expect(first.image.platform.config.config).toEqual({
      Env: ['PATH=/bin', 'X=1'],
      Cmd: ['cat', 'made'],
      WorkingDir: '/app',
    });
    expect(first.image.platform.config.history?.map((h) => [h.created_by, h.empty_layer ?? false])).toEqual([
      ['busybox of this host', false],
      ['WORKDIR /app', false],
      ['COPY a.txt .', false],
      ['RUN /bin/sh -c cat a.txt && echo made > made && mkdir d', false],
      ['ENV X=1', true],
      ['CMD ["cat", "made"]', true],
    ]);
    const second = await build(text, { 'a.txt': 'hello\n' });
    expect([second.cached, second.output]).toEqual([3, '']);
    expect(second.image.id).toBe(first.image.id);
    const third = await build(text, { 'a.txt': 'other\n' });
    expect([third.cached, third.output]).toEqual([1, 'other\n']);
  });

  it('leaves no mount point, cgroup or snapshot of a command', async () => {
    const { image } = await build('FROM busybox\nRUN --mount=type=tmpfs,target=/a/b/c true\nRUN ls / > /list\n');
    expect(await listing({ image } as Finished, 'etc')).toEqual(['-rw-r--r-- 0:0 group', '-rw-r--r-- 0:0 passwd']);
    const names = (await listing({ image } as Finished)).map((line) => line.split(' ')[2]);
    expect(names).not.toContain('a');
    expect(fixture.images.snapshots.list()).toEqual([]);
  });

  it('shows line, command, exit code and last output of a failure, and keeps its root', async () => {
    const failed = build('FROM busybox\nRUN echo one > /left; \\\n  echo last words >&2; exit 7\n');
    await expect(failed).rejects.toMatchObject({
      code: 'BUILD_STEP_FAILED',
      data: { lines: { start: 2, end: 3 }, excerpt: expect.stringContaining('2 | >>> RUN echo one') },
      cause: { data: { code: 7, tail: 'last words\n' } },
    });
    expect(fixture.builder.failed.list()).toHaveLength(1);
    await fixture.builder.failed.prune(0);
  });

  it('gives secrets to the command and to nobody else', async () => {
    const { image, output } = await build(
      'FROM busybox\nRUN --mount=type=secret,id=s,required=true --mount=type=secret,id=s,env=S cat /run/secrets/s; echo $S\n',
      {},
      { given: { secrets: new Map([['s', Buffer.from('hush')]]), agents: new Map() } },
    );
    expect(output).toBe('hushhush\n');
    expect(JSON.stringify(image.platform.config)).not.toContain('hush');
    await expect(build('FROM busybox\nRUN --mount=type=secret,id=t,required=true x\n')).rejects.toThrow(
      /secret t is required/,
    );
  });

  it('keeps cache mounts from build to build, and binds contexts and stages', async () => {
    const text = (n: number): string =>
      `FROM busybox AS s\nRUN echo stage > /f\nFROM busybox\nRUN --mount=type=cache,target=/c --mount=type=bind,target=/ctx --mount=type=bind,from=s,source=/f,target=/g echo ${n} >> /c/log; cat /c/log /ctx/a /g\n`;
    expect((await build(text(1), { a: 'A\n' })).output).toContain('1\nA\nstage\n');
    expect((await build(text(2), { a: 'A\n' })).output).toContain('1\n2\nA\nstage\n');
  });

  it.each([0, 1_700_000_000])(
    'gives the same digest for the same input, from nothing, with SOURCE_DATE_EPOCH=%i',
    async (epochSec) => {
      const text = 'FROM busybox\nCOPY a /x/\nRUN date > /dev/null; echo b > /b; mkdir -p /q/r\nWORKDIR /new\n';
      const options = { ...OPTIONS, noCache: true };
      const once = await build(text, { a: 'A' }, { epochSec, options });
      const again = await build(text, { a: 'A' }, { epochSec, options });
      expect(again.image.target.digest).toBe(once.image.target.digest);
    },
  );

  it('runs again what --no-cache names, with all that stands on it, and remembers what came out', async () => {
    const text =
      'FROM busybox AS a\nRUN echo a > /a\nFROM busybox AS b\nRUN echo b > /b\nFROM a\nCOPY --from=b /b /b\nRUN cat /a /b\n';
    await build(text);
    const filtered = await build(text, {}, { options: { ...OPTIONS, noCache: new Set(['b']) } });
    expect([filtered.cached, filtered.output]).toEqual([1, 'a\nb\n']);
    expect((await build(text)).cached).toBe(4);
  });

  it('takes what stands on a stage from the cache when the stage was run again and its files came out the same', async () => {
    const text = [
      'FROM busybox AS made',
      'COPY source .',
      'RUN mkdir out && tr a-z A-Z < source | tr -d " " > out/it && chmod 750 out',
      'FROM busybox',
      'COPY --from=made /out /out',
      'RUN cat /out/it > /seen',
    ].join('\n');
    const first = await build(text, { source: 'one two\n' });
    const again = await build(text, { source: 'one  two\n' });
    const ran = again.events.flatMap((e) => (e.at === 'start' ? (again.graph.steps[e.step]?.title ?? '') : []));
    expect(ran.map((title) => title.replace(/^.*\/\d+ /, '').split(' ')[0])).toEqual(['COPY', 'RUN', 'COPY']);
    expect(again.image.id).toBe(first.image.id);
    expect((await build(text, { source: 'one  two\n' })).events.filter((e) => e.at === 'start')).toEqual([]);
    const other = await build(text, { source: 'three\n' });
    expect(other.image.id).not.toBe(first.image.id);
    expect(await fileOf(other, 'seen')).toBe('THREE\n');
  });

  it('builds anew on a named context whose files have changed', async () => {
    const text = 'FROM base\nCOPY --from=busybox / /\nRUN cat given > seen';
    const on = async (given: string): Promise<Outcome> =>
      build(
        text,
        {},
        {
          contexts: new Map([
            ['', (await context({})).get('')],
            ['base', (await context({ given })).get('')],
          ]) as BuildRequest['contexts'],
          options: { ...OPTIONS, contexts: new Set(['base']) },
        },
      );
    expect(await fileOf(await on('one'), 'seen')).toBe('one');
    expect(await fileOf(await on('two'), 'seen')).toBe('two');
    expect((await on('one')).cached).toBeGreaterThan(1);
  });

  it('runs independent stages at once', async () => {
    const stage = (n: string): string => `FROM busybox AS ${n}\nRUN sleep 0.6; echo ${n} > /${n}\n`;
    const startedAtMs = performance.now();
    const result = await build(`${stage('a')}${stage('b')}FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\n`);
    const commands = result.graph.steps.flatMap((step, id) => (step.do === 'run' ? [id] : []));
    const both = result.events.flatMap((e) => (e.at === 'done' && commands.includes(e.step) ? [e.tookMs] : []));
    expect(both).toHaveLength(2);
    expect(performance.now() - startedAtMs).toBeLessThan((both[0] ?? 0) + (both[1] ?? 0));
  });

  it('ends within a second when it is cancelled, and leaves nothing but cache', async () => {
    const cancel = new AbortController();
    let atMs = 0;
    // As soon as the command is known to run.
    const onEvent = (event: BuildEvent): void => {
      if (event.at !== 'output') return;
      atMs = performance.now();
      cancel.abort();
    };
    const running = build('FROM busybox\nRUN echo up; sleep 100\n', {}, {}, cancel.signal, onEvent);
    await expect(running).rejects.toMatchObject({ code: 'BUILD_CANCELLED' });
    expect(performance.now() - atMs).toBeLessThan(1000);
    expect(fixture.images.snapshots.list()).toEqual([]);
  });

  it('keeps owners, modes, links and attributes of what it copies from a stage', async () => {
    const result = await build(
      `FROM busybox AS s
RUN mkdir -p /o/d && echo x > /o/d/f && chown 5:6 /o/d/f && chmod 4711 /o/d/f && ln -s f /o/d/l && ln /o/d/f /o/d/h && mkfifo /o/p
FROM busybox
COPY --from=s /o /t
COPY --from=s --chown=7:8 --chmod=u=rw,go=r /o/d/f /u/
`,
    );
    expect(await listing(result, 't')).toEqual([
      'drwxr-xr-x 0:0 d',
      '-rws--x--x 5:6 d/f',
      '-rws--x--x 5:6 d/h',
      'lrwxrwxrwx 0:0 d/l f',
      'prw-r--r-- 0:0 p',
    ]);
    expect(await listing(result, 'u')).toEqual(['-rw-r--r-- 7:8 f']);
  });

  it('adds archives, files from a URL with their checksum, and repositories', async () => {
    const dir = join(fixture.root, 'served');
    mkdirSync(join(dir, 'repo/sub'), { recursive: true });
    writeFileSync(join(dir, 'repo/sub/script'), '#!/bin/sh\n', { mode: 0o755 });
    const git = (...args: string[]): Buffer =>
      execFileSync('git', ['-C', join(dir, 'repo'), '-c', 'user.name=t', '-c', 'user.email=t@t', ...args]);
    git('init', '-q');
    git('add', '.');
    git('commit', '-qm', 'one');
    const bytes = Buffer.from('from the network\n');
    const server = createServer((_, response) => response.end(bytes)).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/file.txt`;
    const sum = createHash('sha256').update(bytes).digest('hex');
    try {
      const text = `FROM scratch\nADD --checksum=sha256:${sum} ${url} /got/\nADD ${url} /named\n`;
      expect(await listing(await build(text))).toEqual([
        'drwxr-xr-x 0:0 got',
        '-rw------- 0:0 got/file.txt',
        '-rw------- 0:0 named',
      ]);
      const wrong = `FROM scratch\nADD --checksum=sha256:${'0'.repeat(64)} ${url} /got/\n`;
      await expect(build(wrong)).rejects.toThrow(`its sha256 is ${sum}`);
    } finally {
      server.close();
    }
    const tree = await cloneGit(
      `file://${join(dir, 'repo')}#:sub`,
      false,
      fixture.builder.node.files,
      new AbortController().signal,
    );
    expect([...tree.walk()].map(([path, node]) => [path, node.mode])).toEqual([['script', 0o755]]);
  });

  it('runs what a base image left with ONBUILD, and takes named contexts for stages and images', async () => {
    await build(
      'FROM busybox\nONBUILD COPY a /onbuild\nONBUILD RUN echo ran\n',
      {},
      { names: [parseReference('with-triggers:1')] },
    );
    const result = await build('FROM with-triggers:1\n', { a: 'x' });
    expect(result.output).toBe('ran\n');
    expect(result.image.platform.config.config?.OnBuild).toBeUndefined();
    const contexts = new Map([...(await context({})), ['files', (await context({ f: 'named' })).get('') as never]]);
    const options = { ...OPTIONS, contexts: new Set(['files']), imageContexts: new Map([['base', 'busybox']]) };
    const named = await build('FROM base\nCOPY --from=files /f /f\nRUN cat /f\n', {}, { contexts, options });
    expect(named.output).toBe('named');
  });

  it('gives a step that failed as an image, starting where it did', async () => {
    await expect(build('FROM busybox\nWORKDIR /w\nENV A=b\nRUN echo left > file; false\n')).rejects.toThrow(
      /non-zero code: 1/,
    );
    const { image, network } = await fixture.builder.imageOfFailed(undefined);
    expect(network).toBe('none');
    expect(image.platform.config.config).toMatchObject({ WorkingDir: '/w', Env: expect.arrayContaining(['A=b']) });
    expect(await listing({ image } as Finished, 'w')).toEqual(['-rw-r--r-- 0:0 file']);
    await fixture.builder.failed.prune(0);
  });

  it('refuses powers that nobody allowed', async () => {
    await expect(build('FROM busybox\nRUN --security=insecure true\n')).rejects.toMatchObject({
      hint: expect.stringContaining('take it out of the Dockerfile'),
    });
    await expect(build('FROM busybox\nRUN --network=host true\n')).rejects.toMatchObject({
      hint: expect.stringContaining('--allow network.host'),
    });
  });

  it('makes one layer of what was added to the base, with what was removed and replaced', async () => {
    const text = [
      'FROM busybox',
      'RUN mkdir -p /d/e /gone && echo 1 > /d/a && echo 1 > /d/e/f && ln /d/a /d/hard && echo big > /gone/b',
      'RUN rm -r /gone /bin/vi && rm /d/e/f && rm -r /home && mkdir /home && echo mine > /home/x && chmod 700 /d/e',
      'COPY late /d/late',
      'RUN rm -r /d/late && mkdir /d/late && echo new > /d/late/inside',
    ].join('\n');
    const plain = await build(text, { late: 'file' });
    const one = await build(text, { late: 'file' }, { squash: true });
    expect(await listing(one)).toEqual(await listing(plain));
    expect(one.image.platform.config.rootfs.diff_ids).toHaveLength(2);
    expect(plain.image.platform.config.rootfs.diff_ids).toHaveLength(5);
    const history = one.image.platform.config.history ?? [];
    expect(history.filter((line) => !line.empty_layer)).toHaveLength(2);
    expect(history.at(-1)?.comment).toMatch(/^merge sha256:\w+ to sha256:\w+$/);
    expect(await listing(await build('FROM squashed\nRUN true', {}, await named('squashed', one)))).toEqual(
      await listing(plain),
    );
  });

  /** An image as a named context of the next build. */
  async function named(name: string, { image }: Finished): Promise<Partial<BuildRequest>> {
    return { options: { ...OPTIONS, imageContexts: new Map([[name, image.id]]) } };
  }

  it('reaches the agent of whoever builds', async () => {
    const dir = join(fixture.root, 'agents');
    const agents = new Agents(dir, systemClock);
    const path = await agents.listen('default');
    const [mine, theirs] = [new PassThrough(), new PassThrough()];
    const used = agents.offer('default', { input: theirs, output: mine }, new AbortController().signal);
    mine.once('data', (asked: Buffer) => theirs.end(`answer to ${asked}`));
    const socket = connect(path);
    socket.write('question');
    const [answer] = (await once(socket, 'data')) as [Buffer];
    expect(answer.toString()).toBe('answer to question');
    socket.destroy();
    await used;
    await agents.close();
    expect(existsSync(dir)).toBe(false);
  });

  it('prunes what no image stands on, then with `all` the rest, and builds again', async () => {
    await build('FROM busybox\nRUN echo pruned > /p\n');
    const named = await build('FROM busybox\nRUN echo kept > /k\n', {}, { names: [parseReference('kept:1')] });
    const before = (await fixture.builder.usage()).length;
    expect(before).toBeGreaterThan(3);
    await fixture.builder.prune({});
    const shared = (await fixture.builder.usage()).filter((use) => use.type === 'regular');
    expect(shared.every((use) => use.shared)).toBe(true);
    await fixture.builder.prune({ all: true });
    expect(await fixture.builder.usage()).toEqual([]);
    expect(await listing(named)).toContain('-rw-r--r-- 0:0 k');
    expect((await build('FROM busybox\nRUN echo pruned > /p; cat /p\n')).output).toBe('pruned\n');
  });
});
