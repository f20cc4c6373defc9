import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { endShim } from '#engine/core/processes.ts';
import { hostFiles } from '#kernel/files.ts';

it('a shim whose directory somebody else removes meanwhile is not waited for until patience ends', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'estiba-no-shim-'));
  const patient = { ...systemClock, monotonic: () => 0 }; // its patience never ends
  const end = endShim(dir, { clock: patient, files: hostFiles });
  setTimeout(() => rmSync(dir, { recursive: true }), 20);
  await expect(end).resolves.toBeUndefined();
});
