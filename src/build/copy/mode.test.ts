import { describe, expect, it } from 'vitest';
import { modeChange } from '#build/copy/mode.ts';

describe('modeChange', () => {
  it.each([
    ['755', 0o600, false, 0o755],
    ['1777', 0o755, true, 0o1777],
    ['u=rwX,go=rX', 0o600, false, 0o644],
    ['u=rwX,go=rX', 0o700, false, 0o755],
    ['u=rwX,go=rX', 0o600, true, 0o755],
    ['a+x', 0o644, false, 0o755],
    ['+x', 0o644, false, 0o755],
    ['go-w', 0o777, false, 0o755],
    ['u+s,g+s', 0o755, false, 0o6755],
    ['u=rw', 0o4711, false, 0o611],
    ['+t', 0o777, true, 0o1777],
  ])('%s on %o (directory: %s) is %o', (text, mode, isDirectory, expected) => {
    expect(modeChange(text)(mode, isDirectory)).toBe(expected);
  });

  it.each(['', '8', '77777', 'u', 'x=r', 'u=q'])('%j is refused', (text) => {
    expect(() => modeChange(text)).toThrow(/is no mode/);
  });
});
