import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { expandWord, expandWords } from '#spec/dockerfile/expand.ts';
import { type Instruction, parseDockerfile } from '#spec/dockerfile/instructions.ts';
import { parseMount } from '#spec/dockerfile/mount.ts';

/** The instructions of the only stage, without their syntax. */
function instructions(...lines: string[]): Instruction[] {
  const { stages } = parseDockerfile(['FROM scratch', ...lines].join('\n'));
  return stages[0]?.instructions.map(({ node: _, ...instruction }) => instruction) ?? [];
}

function mount(text: string): unknown {
  return parseMount(text, (problem, rule) => {
    throw new Error(`${problem}; ${rule}`);
  });
}

describe('Dockerfile', () => {
  it('has stages with names, platforms and arguments before the first of them', () => {
    const file = parseDockerfile(
      '# syntax=docker/dockerfile:1\nARG V=1\nFROM --platform=linux/arm64 debian:$V AS Build\nRUN a\n\nFROM build\nCOPY --from=build /a /b\n',
    );
    expect(file.directives).toEqual({ escape: '\\', syntax: 'docker/dockerfile:1' });
    expect(file.metaArgs.map((a) => a.args)).toEqual([[{ name: 'V', value: '1' }]]);
    expect(file.stages.map((s) => [s.name, s.base, s.platform, s.lines])).toEqual([
      ['build', 'debian:$V', 'linux/arm64', { start: 3, end: 4 }],
      [undefined, 'build', undefined, { start: 6, end: 7 }],
    ]);
  });

  it('joins continued lines, skipping comments and blank lines between them', () => {
    expect(instructions('RUN a \\', '  # no', '', '  && b')).toEqual([
      { do: 'run', command: { form: 'shell', line: 'a   && b' }, mounts: [], network: 'default', security: 'sandbox' },
    ]);
  });

  it('takes ` for the escape when a directive says so', () => {
    const { stages } = parseDockerfile('# escape=`\nFROM scratch\nCOPY a `\n  c:\\\\');
    expect(stages[0]?.instructions[0]).toMatchObject({ sources: ['a'], destination: 'c:\\\\' });
  });

  it('reads here-documents as scripts, input and files', () => {
    expect(instructions('RUN <<EOF', 'a', '  b', 'EOF', 'RUN python3 <<-EOF', '\tprint(1)', '\tEOF')).toMatchObject([
      { command: { form: 'shell', line: 'a\n  b\n' } },
      { command: { form: 'shell', line: 'python3 <<-EOF\n\tprint(1)\nEOF' } },
    ]);
    expect(instructions('COPY <<a.txt <<-"b.txt" c /dir/', 'hi $X', 'a.txt', '\tho', 'b.txt')).toMatchObject([
      {
        sources: ['c'],
        destination: '/dir/',
        inline: [
          { name: 'a.txt', text: 'hi $X\n', expand: true },
          { name: 'b.txt', text: 'ho\n', expand: false },
        ],
      },
    ]);
  });

  it('reads every option of COPY, ADD, RUN and HEALTHCHECK', () => {
    expect(
      instructions(
        'COPY --from=x --chown=1:2 --chmod=644 --link --parents --exclude=*.md --exclude=b a /c',
        'ADD --checksum=sha256:ab --keep-git-dir=true --unpack=false u /d',
        'RUN --mount=type=cache,target=/x --mount=type=tmpfs,target=/y --network=none --security=insecure ["a","b"]',
        'HEALTHCHECK --interval=5s --timeout=1m --start-period=0s --start-interval=100ms --retries=3 CMD a b',
        'HEALTHCHECK NONE',
      ),
    ).toEqual([
      {
        do: 'copy',
        from: 'x',
        parents: true,
        sources: ['a'],
        inline: [],
        destination: '/c',
        chown: '1:2',
        chmod: '644',
        link: true,
        excludes: ['*.md', 'b'],
      },
      {
        do: 'add',
        keepGitDir: true,
        checksum: 'sha256:ab',
        unpack: false,
        sources: ['u'],
        inline: [],
        destination: '/d',
        link: false,
        excludes: [],
      },
      {
        do: 'run',
        command: { form: 'exec', argv: ['a', 'b'] },
        mounts: ['type=cache,target=/x', 'type=tmpfs,target=/y'],
        network: 'none',
        security: 'insecure',
      },
      {
        do: 'healthcheck',
        healthcheck: {
          test: ['CMD-SHELL', 'a b'],
          intervalNs: 5e9,
          timeoutNs: 60e9,
          startPeriodNs: 0,
          startIntervalNs: 1e8,
          retries: 3,
        },
      },
      { do: 'healthcheck', healthcheck: { test: ['NONE'] } },
    ]);
  });

  const bad: [string, string][] = [
    ['', 'Dockerfile:1: the file has no instructions'],
    ['# only\n', 'Dockerfile:1: the file has no instructions'],
    ['RUN a', 'Dockerfile:1: RUN stands before the first FROM'],
    ['ARG a', 'Dockerfile:1: there is no FROM'],
    ['FROM a b', 'Dockerfile:1: FROM takes one image'],
    ['FROM a AS 1x', 'Dockerfile:1: 1x cannot name a stage'],
    ['FROM a\nRUNN x', 'Dockerfile:2: unknown instruction RUNN'],
    ['FROM a\n\nRUN', 'Dockerfile:3: RUN has no command'],
    ['FROM a\nRUN [1]', 'Dockerfile:2: RUN: the list holds something that is no string'],
    ['FROM a\nCOPY x', 'Dockerfile:2: COPY needs a source and a destination'],
    ['FROM a\nCOPY --chwn=1 a b', 'Dockerfile:2: COPY: unknown flag --chwn'],
    ['FROM a\nCOPY --link=maybe a b', 'Dockerfile:2: COPY: --link=maybe is neither true nor false'],
    ['FROM a\nCOPY --from=x --from=y a b', 'Dockerfile:2: COPY: --from stands twice'],
    ['FROM a\nRUN <<EOF\nx', 'Dockerfile:2: the here-document EOF does not end'],
    ['FROM a\nENV a', 'Dockerfile:2: ENV a has no value'],
    ['FROM a\nENV a=b c', 'Dockerfile:2: ENV: there is no = in c'],
    ['FROM a\nONBUILD ONBUILD RUN x', 'Dockerfile:2: ONBUILD ONBUILD'],
    ['FROM a\nONBUILD COPY x', 'Dockerfile:2: COPY needs a source and a destination'],
    ['FROM a\nSHELL sh -c', 'Dockerfile:2: SHELL takes the JSON form'],
    ['FROM a\nHEALTHCHECK TCP 1', 'Dockerfile:2: HEALTHCHECK TCP is unknown'],
    ['FROM a\nHEALTHCHECK --interval=1us CMD x', 'Dockerfile:2: --interval=1us is less than a millisecond'],
    ['FROM a\nHEALTHCHECK --retries=-1 CMD x', 'Dockerfile:2: --retries=-1 is no whole number'],
    ['# escape=x\nFROM a', 'Dockerfile:1: x cannot be the escape character'],
    ['# escape=`\n# escape=`\nFROM a', 'Dockerfile:2: a second escape directive'],
    ['FROM a\nUSER', 'Dockerfile:2: USER has no argument'],
    ['FROM a\n__proto__ x', 'Dockerfile:2: unknown instruction __proto__'],
  ];
  it.each(bad)('%j is refused by line and rule', (source, message) => {
    expect(() => parseDockerfile(source)).toThrow(message);
  });

  it('names the nearest instruction and flag', () => {
    expect(() => parseDockerfile('FROM a\nWORKDRI /x')).toThrow(
      expect.objectContaining({ hint: 'did you mean WORKDIR?' }),
    );
    expect(() => parseDockerfile('FROM a\nRUN --mnt=a b')).toThrow(
      expect.objectContaining({ hint: expect.stringContaining('--mount') }),
    );
  });

  it('answers any text with a Dockerfile or an error of its own', () => {
    const token = fc.constantFrom(
      'FROM a\n',
      'RUN ',
      'COPY ',
      'ENV ',
      '<<EOF',
      'EOF\n',
      '\\\n',
      '"',
      "'",
      '[',
      ']',
      '$',
      '{',
      '}',
      '--',
      '=',
      ' ',
      '\n',
      'x',
      '#',
      '\t',
      '\r',
      '\0',
      'ONBUILD ',
    );
    fc.assert(
      fc.property(fc.array(token, { maxLength: 40 }), (tokens) => {
        try {
          parseDockerfile(tokens.join(''));
        } catch (error) {
          expect(error).toMatchObject({ code: 'DOCKERFILE_INVALID' });
        }
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('RUN --mount', () => {
  it('has the defaults of its type', () => {
    expect(mount('target=/x')).toEqual({ type: 'bind', source: '', target: '/x', readonly: true });
    expect(mount('type=cache,dst=/x')).toEqual({
      type: 'cache',
      source: '',
      target: '/x',
      readonly: false,
      sharing: 'shared',
      owner: {},
    });
    expect(mount('type=tmpfs,target=/x,size=1m')).toEqual({ type: 'tmpfs', target: '/x', sizeBytes: 2 ** 20 });
    expect(mount('type=secret,target=/run/key')).toEqual({
      type: 'secret',
      id: 'key',
      target: '/run/key',
      required: false,
      owner: {},
    });
    expect(mount('type=ssh,required,mode=0600,uid=5')).toEqual({
      type: 'ssh',
      id: 'default',
      required: true,
      owner: { mode: 0o600, uid: 5 },
    });
    expect(mount('type=bind,rw,"source=a,b",target=/x')).toMatchObject({ source: 'a,b', readonly: false });
  });

  it.each([
    ['type=bnd,target=/x', 'there is no mount type bnd; did you mean bind?'],
    ['type=tmpfs,target=/x,mode=1', 'a tmpfs mount has no mode'],
    ['target', 'target has no value'],
    ['tagret=/x', 'a mount has no option tagret; did you mean target?'],
    ['type=cache', 'the cache mount has no target'],
    ['type=secret', 'the secret has neither id nor target'],
    ['type=secret,id=a,source=b', 'a secret has either id or source'],
    ['type=cache,target=/x,sharing=no', 'sharing=no is unknown'],
    ['type=ssh,uid=x', 'uid=x is no number'],
    ['type=tmpfs,target=/x,size=much', 'size=much is no size'],
  ])('%s is refused', (text, message) => {
    expect(() => mount(text)).toThrow(message);
  });
});

describe('expansion', () => {
  const env = new Map([
    ['A', 'x y'],
    ['F', 'foo.tar.gz'],
    ['E', ''],
    ['P', '/a/b/a'],
  ]);
  it.each([
    ['$A', 'x y'],
    ['"$A"z', 'x yz'],
    ["'$A'", '$A'],
    ['\\$A', '$A'],
    ['${E:-d}${E-d}', 'd'],
    ['${E+set}${N+set}', 'set'],
    ['${F%.*}', 'foo.tar'],
    ['${F%%.*}', 'foo'],
    ['${F#*.}', 'tar.gz'],
    ['${F##*.}', 'gz'],
    ['${P/a/c}', '/c/b/a'],
    ['${P//a/c}', '/c/b/c'],
    ['${P//\\//-}', '-a-b-a'],
    ['${N:-${A}!}', 'x y!'],
  ])('%s is %s', (word, value) => {
    expect(expandWord(word, env)).toBe(value);
  });

  it('splits only what is not quoted', () => {
    expect(expandWords('p$A"$A" q', env)).toEqual(['px', 'yx y', 'q']);
  });

  it('fails aloud on ${X?message}, bad modifiers and endless nesting', () => {
    expect(() => expandWord('${N:?give N}', env)).toThrow('N: give N');
    expect(() => expandWord('${A:=x}', env)).toThrow('unsupported modifier (:=)');
    expect(() => expandWord('${A', env)).toThrow('missing }');
    expect(() => expandWord(`${'${A:-'.repeat(5_000)}`, env)).toThrow('nested deeper');
  });

  it('tells which names were looked up in vain', () => {
    const unset: string[] = [];
    expandWord('$A $N ${M:-d}', env, { onUnset: (name) => unset.push(name) });
    expect(unset).toEqual(['N']);
  });
});
