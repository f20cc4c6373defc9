import { describe, expect, it } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { systemRandom } from '#base/random.ts';
import { LABEL } from '#cluster/node/pod/runs.ts';
import type { NodeEngine } from '#cluster/node/seams.ts';
import { PodStreams } from '#cluster/node/streams.ts';
import { WrongPhase } from '#engine/core/errors.ts';

const PLACE = { namespace: 'default', pod: 'web', uid: 'u1', container: 'c' };
const OPTIONS = { stdin: false, stdout: true, stderr: true, tty: false };

/** An engine after a boot: its record still says "running", and nothing of that name lives. */
function afterBoot(): NodeEngine {
  const gone = new WrongPhase({ message: 'container 1 is not running' });
  const record = {
    id: '1',
    image: { id: 'i' },
    createdAtMs: 0,
    spec: { labels: { [LABEL.uid]: 'u1', [LABEL.container]: 'c' } },
    state: { phase: 'running', startedAtMs: 1, finishedAtMs: 0, exitCode: 0, oomKilled: false, error: '' },
  };
  const containers = {
    list: () => [record],
    running: () => {
      throw gone;
    },
    execs: { launch: () => Promise.reject(gone) },
  };
  return { containers } as unknown as NodeEngine;
}

describe('streams of a pod whose container a boot has ended', () => {
  const streams = new PodStreams({
    engine: afterBoot(),
    host: { connect: () => Promise.reject(new Error('not asked')) },
    clock: systemClock,
    random: systemRandom,
  });
  const refusal = { code: 'POD_CONTAINER_NOT_RUNNING', message: expect.stringContaining('container not found ("c")') };

  it('exec says that the container is not there, which kubectl’s user can wait out', async () => {
    await expect(streams.exec(PLACE, { ...OPTIONS, command: ['true'] })).rejects.toMatchObject(refusal);
  });

  it('attach says so too', async () => {
    await expect(streams.attach(PLACE, OPTIONS)).rejects.toMatchObject(refusal);
  });
});
