import { isCode } from '#base/errors.ts';
import { ExitWith } from '#cli/errors.ts';
import { printInspected } from '#cli/output.ts';
import type { Command, Invocation } from '#cli/verb.ts';
import { type Query, refusedStatus } from '#engine/client/client.ts';

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
    try {
      return await engine.json({ path: (PATHS[kind] ?? String)(name), query: queryOf(kind, flags) });
    } catch (error) {
      // A name that is no name of this kind is none at all. Which platforms an image has instead, only the daemon can say.
      const absent = isCode(error, 'REQUEST_REFUSED') && [400, 404].includes(refusedStatus(error) ?? 0);
      if (!absent || flags.has('platform')) throw error;
    }
  }
  return undefined;
}

function queryOf(kind: string, flags: Invocation['flags']): Query {
  switch (kind) {
    case 'container':
      return { size: flags.on('size') || undefined };
    case 'network':
      return { verbose: flags.on('verbose') || undefined };
    case 'image':
      return { platform: flags.text('platform') };
    default:
      return {};
  }
}
