import { posix } from 'node:path';
import type { Command, Outcome } from '#runtime/cli/context.ts';
import { BadUsage, count, isOn, text, texts } from '#runtime/cli/flags.ts';
import { carryOut, showPlan, wrongState } from '#runtime/cli/plans.ts';
import { Unsupported } from '#runtime/errors.ts';
import { planExec } from '#runtime/plan-exec.ts';
import { loadContainer } from '#runtime/store.ts';
import { type OciConfig, type OciProcess, parseProcess } from '#spec/oci/config.ts';

/** Another process in a container. 255 for every failure of ours, as runc has it: 1 to 254 are the program's. */
export const EXEC_FAILED = 255;

export async function exec(c: Command): Promise<Outcome> {
  const [id = '', ...argv] = c.args;
  const { record, config, init, status } = loadContainer(c.root, id, c.files);
  if (status === 'stopped' || status === 'creating' || !init)
    throw wrongState(id, `cannot exec in a ${status === 'creating' ? 'creating' : 'stopped'} container`);
  if (status === 'paused' && !isOn(c.flags, 'ignore-paused'))
    throw wrongState(id, 'cannot exec in a paused container (use --ignore-paused to override)');

  const process = await processOf(c, config, argv);
  const detach = isOn(c.flags, 'detach');
  const socket = text(c.flags, 'console-socket');
  if (process.terminal && detach && !socket)
    throw new Unsupported({
      path: '--tty',
      what: 'cannot allocate tty if runc will detach without setting console socket',
    });
  const pidFile = text(c.flags, 'pid-file');
  const preserveFds = count(c.flags, 'preserve-fds');
  const { plan, warnings } = planExec(
    record,
    config,
    process,
    {
      init,
      path: text(c.flags, 'process') === undefined ? 'flags' : '$',
      preserveFds,
      cgroups: texts(c.flags, 'cgroup'),
      foreground: !detach,
      ...(c.seccomp ? { seccomp: c.seccomp } : {}),
      ...(pidFile === undefined ? {} : { pidFile: posix.resolve(c.cwd, pidFile) }),
      ...(socket === undefined ? {} : { consoleSocket: posix.resolve(c.cwd, socket) }),
    },
    c.host(),
    c.files,
  );
  for (const warning of warnings) c.log.warn(warning);
  if (c.plan !== 'run') return showPlan(c, plan);
  const result = await carryOut(c, 'exec', plan, { foreground: !detach, preserveFds });
  return detach ? 0 : (result.exited?.code ?? 0);
}

async function processOf(c: Command, config: OciConfig, argv: readonly string[]): Promise<OciProcess> {
  const file = text(c.flags, 'process');
  if (file !== undefined) {
    const process = parseProcess(await c.readFile(posix.resolve(c.cwd, file)));
    return isOn(c.flags, 'tty') ? { ...process, terminal: true } : process;
  }
  if (argv.length === 0) throw new BadUsage({ message: 'process args cannot be empty', command: 'exec' });
  const base = config.process ?? { cwd: '/', user: { uid: 0, gid: 0 }, args: [] };
  return applyFlags(c, { ...base, args: [...argv], terminal: isOn(c.flags, 'tty') });
}

/** The container's own process with the flags over it. */
function applyFlags(c: Command, base: OciProcess): OciProcess {
  const { flags } = c;
  const cwd = text(flags, 'cwd');
  const apparmorProfile = text(flags, 'apparmor');
  const selinuxLabel = text(flags, 'process-label');
  return {
    ...base,
    ...(cwd === undefined ? {} : { cwd }),
    ...(apparmorProfile === undefined ? {} : { apparmorProfile }),
    ...(selinuxLabel === undefined ? {} : { selinuxLabel }),
    ...(isOn(flags, 'no-new-privs') ? { noNewPrivileges: true } : {}),
    env: [...(base.env ?? []), ...texts(flags, 'env')],
    user: userOf(c, base),
    capabilities: withCapabilities(base.capabilities ?? {}, texts(flags, 'cap')),
  };
}

function userOf(c: Command, base: OciProcess): OciProcess['user'] {
  const wish = text(c.flags, 'user');
  const more = texts(c.flags, 'additional-gids').map((gid) => idOf(gid, 'additional-gids'));
  const additionalGids = [...(base.user.additionalGids ?? []), ...more];
  const user = { ...base.user, ...(additionalGids.length > 0 ? { additionalGids } : {}) };
  if (wish === undefined) return user;
  const [uid = '', gid] = wish.split(':');
  return { ...user, uid: idOf(uid, 'user'), ...(gid === undefined ? {} : { gid: idOf(gid, 'user') }) };
}

function idOf(word: string, flag: string): number {
  if (!/^\d{1,10}$/.test(word) || Number(word) > 0xffff_fffe)
    throw new BadUsage({ message: `parsing ${JSON.stringify(word)} as a numeric id for --${flag} failed` });
  return Number(word);
}

/** `--cap` adds to all sets that a program started by root would use; ambient follows what is inheritable. */
function withCapabilities(base: NonNullable<OciProcess['capabilities']>, added: readonly string[]) {
  if (added.length === 0) return base;
  const plus = (names: readonly string[] = []): string[] => [...new Set([...names, ...added])];
  return {
    ...base,
    bounding: plus(base.bounding),
    effective: plus(base.effective),
    permitted: plus(base.permitted),
    ...(base.inheritable?.length ? { inheritable: plus(base.inheritable), ambient: plus(base.ambient) } : {}),
  };
}
