import { describe, expect, it } from 'vitest';
import { plainRecord } from '#engine/core/fakes.ts';
import { SHOW_FORMS, show } from '#engine/core/insight/show.ts';
import { namespaces, plain, textOf, WISHED } from '#engine/core/insight/wishes.ts';

const POD = { kind: 'sandbox', id: 'p' } as const;

describe.each(SHOW_FORMS)('a container as %s', (form) => {
  it.each(WISHED)('loses no wish without a word: %s', async (_, { base, spec }) => {
    expect(await textOf(form, spec)).not.toBe(await textOf(form, base));
  });
});

describe.each(['docker-run', 'compose'] as const)('a container of a pod as %s', (form) => {
  it('has no namespaces of its own, and says so', async () => {
    const record = plainRecord({ ...plain, ...namespaces({ network: POD, ipc: POD, uts: POD }) });
    const text = await show(record, form);
    expect(text).toMatch(/^# not said here: the network, IPC, UTS namespace of its pod$/m);
    expect(text).not.toContain('sandbox');
  });
});
