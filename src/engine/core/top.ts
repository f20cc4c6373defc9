import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { defineError, errnoOf, messageOf } from '#base/errors.ts';
import type { Containers } from '#engine/core/containers.ts';
import { WrongPhase } from '#engine/core/errors.ts';
import { isRunning } from '#engine/core/record.ts';
import { processesIn } from '#kernel/cgroup/state.ts';
import type { Files } from '#kernel/files.ts';

export const PsFailed = defineError('PS_FAILED', (d: { reason: string; hint?: string }) => ({
  message: `Error running ps: ${d.reason}`,
  ...(d.hint ? { hint: d.hint } : {}),
}));

export interface ProcessTable {
  titles: string[];
  processes: string[][];
}

const OUTPUT_MAX_BYTES = 16 * 1024 * 1024;
/** `-o pid=NUMBER` would give the column that we look for another name. */
const RENAMED_PID = /(?:^|[\s,])pid\s*=/i;

/** The container's processes as the host's ps shows them, whatever columns are asked for. */
export async function processTable(
  { containers, files }: { containers: Containers; files: Files },
  wish: string,
  psArgs: string,
): Promise<ProcessTable> {
  const record = containers.find(wish);
  if (!isRunning(record.state)) throw new WrongPhase({ message: `Container ${record.id} is not running` });
  if (RENAMED_PID.test(psArgs)) throw new PsFailed({ reason: 'the PID column cannot be renamed' });
  const pids = new Set(processesIn(containers.running(record.id).cgroups, files));
  const table = parsePs(await ps(psArgs.split(/\s+/).filter(Boolean)), pids);
  containers.tell(record, 'top');
  return table;
}

async function ps(args: string[]): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)('ps', args, { maxBuffer: OUTPUT_MAX_BYTES });
    return stdout;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT')
      throw new PsFailed({ reason: 'there is no ps on this host', hint: 'install procps' }, { cause: error });
    const said = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : messageOf(error);
    throw new PsFailed({ reason: said.split('\n')[0] || messageOf(error) }, { cause: error });
  }
}

/** The last column is a command line and may hold blanks; lines whose pid is not among those wanted are left out. */
export function parsePs(text: string, pids: ReadonlySet<number>): ProcessTable {
  const [head = '', ...lines] = text.split('\n');
  const titles = head.trim().split(/\s+/);
  const pidAt = titles.indexOf('PID');
  if (pidAt < 0) throw new PsFailed({ reason: "Couldn't find PID field in ps output" });
  const processes = lines
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const fields = line.trim().split(/\s+/);
      return [...fields.slice(0, titles.length - 1), fields.slice(titles.length - 1).join(' ')];
    })
    .filter((fields) => pids.has(Number(fields[pidAt])));
  return { titles, processes };
}
