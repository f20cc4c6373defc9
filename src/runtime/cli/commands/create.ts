import { readFileSync } from 'node:fs';
import { posix } from 'node:path';
import { errnoOf } from '#base/errors.ts';
import { Undo } from '#base/undo.ts';
import { planCgroup } from '#kernel/cgroup/plan.ts';
import { deleteContainer } from '#runtime/cli/commands/delete.ts';
import type { Command, Outcome } from '#runtime/cli/context.ts';
import { count, isOn, text } from '#runtime/cli/flags.ts';
import { identityOf } from '#runtime/cli/identity.ts';
import { carryOut, showPlan } from '#runtime/cli/plans.ts';
import { BundleUnreadable, ContainerExists, Unsupported } from '#runtime/errors.ts';
import { readNetDevices } from '#runtime/net-devices.ts';
import { type CreateOptions, type CreatePlan, planCreate } from '#runtime/plan-create.ts';
import { paths } from '#runtime/state.ts';
import { checkId, loadContainer } from '#runtime/store.ts';
import { type OciConfig, parseConfig } from '#spec/oci/config.ts';

/** runtime.md, "Create". */
export async function create(c: Command): Promise<Outcome> {
  const { made } = await prepare(c, 'later');
  if (c.plan !== 'run') return showPlan(c, made.plan);
  await carryOut(c, 'create', made.plan, { preserveFds: preserved(c) });
  return 0;
}

/** Create and start in one plan; the executor waits for nobody in between. */
export async function run(c: Command): Promise<Outcome> {
  const detach = isOn(c.flags, 'detach');
  const { made, id } = await prepare(c, detach ? 'now' : 'foreground');
  if (c.plan !== 'run') return showPlan(c, made.plan);
  const keep = detach || isOn(c.flags, 'keep');
  await using undo = new Undo((what, error) => c.log.warn(`${what}: ${String(error)}`));
  const result = await carryOut(c, 'run', made.plan, {
    foreground: !detach,
    preserveFds: preserved(c),
    // From here on the container exists; a foreground run takes it away again, whatever happens next.
    onReady: () => {
      if (!keep) undo.add('delete', () => deleteContainer(c, loadContainer(c.root, id, c.files), { force: true }));
    },
  });
  return detach ? 0 : (result.exited?.code ?? 0);
}

function preserved(c: Command): number {
  return count(c.flags, 'preserve-fds') + listenFds(c);
}

/** Socket activation: systemd's LISTEN_FDS come first, from fd 3 on (sd_listen_fds(3)). */
function listenFds(c: Command): number {
  const value = c.env['LISTEN_FDS'];
  return value !== undefined && /^\d{1,4}$/.test(value) ? Number(value) : 0;
}

async function prepare(
  c: Command,
  start: NonNullable<CreateOptions['start']>,
): Promise<{ made: CreatePlan; id: string }> {
  const [id = ''] = c.args;
  checkId(id);
  const bundle = posix.resolve(c.cwd, text(c.flags, 'bundle') ?? '.');
  const config = readBundle(bundle);
  if (c.plan === 'run' && c.files.exists(paths(c.root, id).dir)) throw new ContainerExists({ id });
  const consoleSocket = terminalSocket(c, config, start);
  const host = c.host();
  const { cgroupsPath, resources } = config.linux ?? {};
  const cgroups = planCgroup(
    {
      id,
      rootless: c.rootless,
      unified: !c.rootless,
      ...(cgroupsPath === undefined ? {} : { cgroupsPath }),
      ...(resources === undefined ? {} : { resources }),
    },
    host.cgroups,
    c.files,
  );
  const pidFile = text(c.flags, 'pid-file');
  const made = planCreate(
    config,
    {
      id,
      bundle,
      root: c.root,
      created: new Date(c.clock.now()).toISOString(),
      owner: { uid: c.uid, name: c.userName },
      noPivot: isOn(c.flags, 'no-pivot'),
      noNewKeyring: isOn(c.flags, 'no-new-keyring'),
      preserveFds: preserved(c),
      extraEnv: listenFds(c) > 0 ? [`LISTEN_FDS=${listenFds(c)}`, 'LISTEN_PID=1'] : [],
      cgroups,
      ...(c.seccomp ? { seccomp: c.seccomp } : {}),
      netDevices: await readNetDevices(config, (plan) => c.execute(plan)),
      start,
      creator: identityOf(c),
      ...(pidFile === undefined ? {} : { pidFile: posix.resolve(c.cwd, pidFile) }),
      ...(consoleSocket === undefined ? {} : { consoleSocket }),
    },
    host,
  );
  for (const warning of [...cgroups.warnings, ...made.warnings]) c.log.warn(warning);
  return { made, id };
}

/** Who waits for a terminal gets it by socket; the foreground keeps it. Anything else is a contradiction. */
function terminalSocket(c: Command, config: OciConfig, start: string): string | undefined {
  const socket = text(c.flags, 'console-socket');
  const terminal = config.process?.terminal === true;
  const detached = start !== 'foreground';
  if (terminal && detached && !socket)
    throw new Unsupported({
      path: '$.process.terminal',
      what: 'cannot allocate tty if runc will detach without setting console socket',
    });
  if (socket && !(terminal && detached))
    throw new Unsupported({
      path: '--console-socket',
      what: 'cannot use console socket if runc will not detach or allocate tty',
    });
  return socket === undefined ? undefined : posix.resolve(c.cwd, socket);
}

function readBundle(bundle: string): OciConfig {
  const path = posix.join(bundle, 'config.json');
  let source: string;
  try {
    source = readFileSync(path, 'utf8');
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === undefined) throw error;
    throw new BundleUnreadable({ path, errno });
  }
  return parseConfig(source);
}
