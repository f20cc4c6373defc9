import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { loadKustomization } from '#up/kustomize/load.ts';
import { inOrder } from '#up/objects.ts';

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

function folderOf(files: Record<string, string>): string {
  const folder = mkdtempSync(join(tmpdir(), 'up-kustomize-'));
  folders.push(folder);
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(folder, name, '..'), { recursive: true });
    writeFileSync(join(folder, name), text);
  }
  return folder;
}

const POD = 'apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: x}]}\n';

describe('loadKustomization', () => {
  it('makes of an overlay what kubectl kustomize makes of it', async () => {
    const objects = await loadKustomization(join(import.meta.dirname, 'case/overlay/overlay'));
    const text = inOrder(objects)
      .map((o) => stringify(o, { lineWidth: 0, sortMapEntries: true }))
      .join('---\n');
    await expect(text).toMatchFileSnapshot(join(import.meta.dirname, 'case/overlay/objects.yaml'));
  });

  it.each([
    ['replacements: []', 'is no kustomization that is understood here'],
    ['resources: [https://example.org/base]', 'is not on this machine'],
    ['resources: [missing.yaml]', 'there is no missing.yaml'],
    ['resources: [.]', 'nested deeper than'],
    ['configMapGenerator: [{name: a, behavior: merge}]', 'behavior merge'],
    ['configMapGenerator: [{name: a, files: [../../etc/passwd]}]', 'lies outside the folder'],
    [
      'resources: [pod.yaml]\npatches: [{patch: "kind: Pod\\napiVersion: v1\\nmetadata: {name: q}"}]',
      'no resource matches the patch',
    ],
    ['resources: [pod.yaml]\npatches: [{target: {kind: Pod}, patch: "- {op: test, path: /spec/x, value: 1}"}]', 'test'],
  ])('refuses %s', async (text, problem) => {
    const folder = folderOf({ 'kustomization.yaml': text, 'pod.yaml': POD });
    const refusal = await loadKustomization(folder).then(
      () => 'none',
      (error: Error) => error.message,
    );
    expect(refusal).toContain(problem);
  });
});
