import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { compileSeccomp } from '#kernel/seccomp/compile.ts';
import type { SeccompProfile } from '#kernel/seccomp/profile.ts';
import { SeccompStore } from '#kernel/seccomp/store.ts';

const PROFILE: SeccompProfile = {
  defaultAction: 'SCMP_ACT_ERRNO',
  syscalls: [
    { names: ['read', 'write'], action: 'SCMP_ACT_ALLOW' },
    { names: ['socket'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: 2n ** 60n, op: 'SCMP_CMP_EQ' }] },
  ],
};
const uid = process.getuid?.() ?? 0;

let parent: string;
let dir: string;
beforeEach(() => {
  parent = mkdtempSync(join(tmpdir(), 'estiba-seccomp-'));
  dir = join(parent, 'programs');
});
afterEach(() => rmSync(parent, { recursive: true, force: true }));

const store = (build = 'a'): SeccompStore => new SeccompStore({ dir, uid, build, native: 'x86_64' });
const bytes = (profile = PROFILE): Buffer => Buffer.from(compileSeccomp(profile, { native: 'x86_64' }).filter);

describe('compiled programs on disk', () => {
  it('are what the compiler gives, the first time and from the disk, for our eyes alone', () => {
    for (let round = 0; round < 2; round++) {
      const program = store().compile(PROFILE);
      expect(Buffer.from(program.filter).equals(bytes())).toBe(true);
      expect(program).toMatchObject({ flags: compileSeccomp(PROFILE, { native: 'x86_64' }).flags, notify: false });
    }
    expect(readdirSync(dir)).toHaveLength(1);
    expect(statSync(dir).mode & 0o777).toBe(0o700);
  });

  it('are told apart by build, architecture and every part of the profile that counts', () => {
    store().compile(PROFILE);
    store('b').compile(PROFILE);
    store().compile({ ...PROFILE, listenerMetadata: 'an agent reads this' });
    expect(readdirSync(dir)).toHaveLength(2);
    store().compile({ ...PROFILE, defaultErrnoRet: 38 });
    expect(readdirSync(dir)).toHaveLength(3);
  });

  it('are made again when a byte of theirs has changed or is missing', () => {
    store().compile(PROFILE);
    const file = join(dir, readdirSync(dir)[0] ?? '');
    const whole = readFileSync(file);
    for (const bad of [whole.subarray(0, 40), Buffer.alloc(0), Buffer.from(whole).fill(0xff, 12, 13)]) {
      writeFileSync(file, bad);
      expect(Buffer.from(store().compile(PROFILE).filter).equals(bytes())).toBe(true);
      expect(readFileSync(file).equals(whole)).toBe(true);
    }
  });

  it('are neither read from nor written to a directory that others may write', () => {
    mkdirSync(dir);
    chmodSync(dir, 0o777);
    expect(Buffer.from(store().compile(PROFILE).filter).equals(bytes())).toBe(true);
    expect(readdirSync(dir)).toEqual([]);
  });

  it('are no more than a few', () => {
    for (let n = 0; n < 70; n++) store().compile({ ...PROFILE, defaultErrnoRet: n + 1 });
    expect(readdirSync(dir).length).toBeLessThanOrEqual(65);
  });
});
