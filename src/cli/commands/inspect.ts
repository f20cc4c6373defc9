import { isCode } from '#base/errors.ts';
import { ExitWith } from '#cli/errors.ts';
import { printInspected } from '#cli/output.ts';
import type { Command, Invocation } from '#cli/verb.ts';
import { refusedStatus } from '#engine/client/client.ts';

const PATHS: Readonly<Record<string, (name: string) => string>> = {
  container: (name) => `/containers/${encodeURIComponent(name)}/json`,
  image: (name) => `/images/${name}/json`,
  network: (name) => `/networks/${encodeURIComponent(name)}`,
  volume: (name) => `/volumes/${encodeURIComponent(name)}`,
};

/** `inspect NAME`, or `container inspect NAME`: objects that are found are printed, the others named. */
export const inspectCommand: Command = async (call) => {
  const { verb, flags, args, io } = call;
  const group = verb.name.split(' ').length > 1 ? verb.name.split(' ')[0] : flags.text('type');
  const found: unknown[] = [];
  const problems: string[] = [];
  for (const name of args) {
    const object = await find(call, name, group === undefined ? Object.keys(PATHS) : [group]);
    if (object === undefined) problems.push(`Error: No such ${group ?? 'object'}: ${name}`);
    else found.push(object);
  }
  printInspected(io, flags, found);
  if (problems.length > 0) {
    io.stderr.write(`${problems.join('\n')}\n`);
    throw new ExitWith({ code: 1, says: '' });
  }
  return 0;
};

async function find({ engine, flags }: Invocation, name: string, kinds: readonly string[]): Promise<unknown> {
  for (const kind of kinds) {
    const query =
      kind === 'container'
        ? { size: flags.on('size') || undefined }
        : kind === 'network'
          ? { verbose: flags.on('verbose') || undefined }
          : {};
    try {
      return await engine.json({ path: (PATHS[kind] ?? String)(name), query });
    } catch (error) {
      // A name that is no name of this kind is none at all.
      if (!isCode(error, 'REQUEST_REFUSED') || ![400, 404].includes(refusedStatus(error) ?? 0)) throw error;
    }
  }
  return undefined;
}
