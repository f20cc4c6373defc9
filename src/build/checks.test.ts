import { describe, expect, it } from 'vitest';
import { checkDockerfile, heedDirective } from '#build/checks.ts';
import { parseIgnore } from '#spec/dockerfile/ignore.ts';
import { parseDockerfile } from '#spec/dockerfile/instructions.ts';

const checks = (source: string, ignore?: string): string[] =>
  checkDockerfile(parseDockerfile(source), ignore === undefined ? undefined : parseIgnore(ignore)).map(
    (w) => `${w.check}:${w.lines.start}`,
  );

// One row a documented check: what it complains of, and what is right.
describe('checkDockerfile', () => {
  it.each([
    ['ConsistentInstructionCasing:2', 'FROM a\nRun x\nRUN y', 'from a\nrun x'],
    ['DuplicateStageName:2', 'FROM a AS x\nFROM b AS x', 'FROM a AS x\nFROM b AS y'],
    ['ExposeInvalidFormat:2', 'FROM a\nEXPOSE 127.0.0.1:80:80', 'FROM a\nEXPOSE 80'],
    ['ExposeProtoCasing:2', 'FROM a\nEXPOSE 80/TcP', 'FROM a\nEXPOSE 80/tcp'],
    ['FromAsCasing:1', 'FROM a as x', 'from a as x'],
    [
      'FromPlatformFlagConstDisallowed:1',
      'FROM --platform=linux/amd64 a AS x',
      'FROM --platform=linux/amd64 a AS x_amd64',
    ],
    ['InvalidDefaultArgInFrom:2', 'ARG TAG\nFROM busybox:${TAG}', 'ARG TAG=1\nFROM busybox:${TAG}'],
    ['JSONArgsRecommended:2', 'FROM a\nCMD x y', 'FROM a\nSHELL ["sh"]\nCMD x y'],
    ['LegacyKeyValueFormat:2', 'FROM a\nENV a b', 'FROM a\nENV a=b'],
    ['MaintainerDeprecated:2', 'FROM a\nMAINTAINER x', 'FROM a\nLABEL x=y'],
    ['MultipleInstructionsDisallowed:2', 'FROM a\nCMD ["x"]\nCMD ["y"]', 'FROM a\nCMD ["x"]\nFROM b\nCMD ["y"]'],
    ['NoEmptyContinuation:2', 'FROM a\nEXPOSE \\\n\n80', 'FROM a\nEXPOSE \\\n# port\n80'],
    ['RedundantTargetPlatform:1', 'FROM --platform=$TARGETPLATFORM a', 'FROM --platform=$BUILDPLATFORM a'],
    ['ReservedStageName:1', 'FROM a AS scratch', 'FROM a AS b'],
    ['SecretsUsedInArgOrEnv:2', 'FROM a\nARG AWS_SECRET_ACCESS_KEY', 'FROM a\nARG PUBLIC_KEY\nENV KEYBOARD=us'],
    ['StageNameCasing:1', 'FROM a AS BuilderBase', 'FROM a AS builder-base'],
  ])('%s', (expected, bad, good) => {
    expect(checks(bad)).toEqual([expected]);
    expect(checks(good)).toEqual([]);
  });

  it('CopyIgnoredFile', () => {
    expect(checks('FROM a\nCOPY ./tmp/f /f', '*/f')).toEqual(['CopyIgnoredFile:2']);
    expect(checks('FROM a\nCOPY ./other/g /f', '*/f')).toEqual([]);
    expect(checks('FROM a\nCOPY --from=x /tmp/f /f', '*/f')).toEqual([]);
  });

  it('heeds the file itself: skipped checks, and warnings that fail the build', () => {
    const warnings = checkDockerfile(parseDockerfile('FROM a as x\nCMD y'));
    expect(heedDirective(undefined, warnings)).toMatchObject({ warnings, fail: false });
    expect(heedDirective('skip=FromAsCasing;error=true', warnings)).toMatchObject({
      warnings: [{ check: 'JSONArgsRecommended' }],
      fail: true,
    });
    expect(heedDirective('skip=all;error=true', warnings)).toEqual({ warnings: [], fail: false });
  });
});
