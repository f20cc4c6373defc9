import { PassThrough, Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { execToEnd } from '#engine/core/exec-output.ts';
import type { ExecProcess } from '#engine/core/parts.ts';

describe('execToEnd', () => {
  it('has all that a program said which had ended before anybody read it', async () => {
    const said = (...chunks: string[]): Readable => {
      const stream = new Readable({ read: () => undefined });
      for (const chunk of chunks) stream.push(chunk);
      stream.push(null);
      return stream;
    };
    const exec: ExecProcess = {
      pid: 1,
      streams: {
        stdin: new PassThrough(),
        stdout: said('one ', 'two '),
        stderr: said('three'),
        detach: () => undefined,
      },
      start: async () => undefined,
      wait: async () => ({ code: 3, oomKilled: false, atMs: 0 }),
      signal: async () => undefined,
      resize: async () => undefined,
    };
    const bounds = { clock: systemClock, timeoutMs: 1_000, outputBytes: 100 };
    expect(await execToEnd(exec, bounds)).toEqual({ code: 3, output: 'one two three', late: false });
  });
});
