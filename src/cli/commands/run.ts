import { writeFileSync } from 'node:fs';
import { isCode } from '#base/errors.ts';
import { followSize, joinStreams, parseDetachKeys } from '#cli/attach.ts';
import { attachOf, createBody, environmentOf } from '#cli/commands/create-body.ts';
import { printForeseen, wantsPlan } from '#cli/commands/plan.ts';
import { pullImage } from '#cli/commands/pull.ts';
import { CliUsage, ExitWith } from '#cli/errors.ts';
import type { Command, Flags, Invocation, Io } from '#cli/verb.ts';
import { type EngineClient, refusedStatus } from '#engine/client/client.ts';

/** `estiba run`: create, attach, start, wait. Its exit code is the container's. */
export const runCommand: Command = async (call) => {
  const { flags, io, engine } = call;
  const attach = attachOf(flags);
  if (flags.on('detach') && attach.size > 0)
    throw new CliUsage({ why: 'conflicting options: cannot specify both --attach and --detach' });
  if (flags.on('tty') && attach.has('stdin') && !io.stdin.isTTY)
    throw new CliUsage({ why: 'the input device is not a TTY' });
  if (wantsPlan(flags)) return planCreate(call);
  const id = await createContainer(call);
  if (attach.size === 0) {
    await start(engine, id);
    io.stdout.write(`${id}\n`);
    return 0;
  }
  const ended = await watchEnd(engine, id, flags.on('rm'));
  const attached = await engine.attach({
    path: `/containers/${id}/attach`,
    query: { stream: true, stdin: attach.has('stdin'), stdout: attach.has('stdout'), stderr: attach.has('stderr') },
  });
  try {
    await start(engine, id);
  } catch (error) {
    attached.socket.destroy();
    ended.cancel();
    throw error;
  }
  return follow(engine, id, attached, { flags, io, stdin: attach.has('stdin'), tty: flags.on('tty'), ended });
};

export const createCommand: Command = async (call) => {
  if (wantsPlan(call.flags)) return planCreate(call);
  call.io.stdout.write(`${await createContainer(call)}\n`);
  return 0;
};

/** Pulls nothing: an image that is not here is an error that says so. */
async function planCreate({ flags, args, io, engine }: Invocation): Promise<number> {
  const [image = '', ...command] = args;
  const query = { name: flags.text('name') };
  await printForeseen(
    engine,
    { path: '/estiba/v1/plan/create', query, json: createBody(flags, image, command, io) },
    flags,
    io,
  );
  return 0;
}

/** The id; an image that is not here is pulled first. */
async function createContainer({ flags, args, io, engine }: Invocation): Promise<string> {
  const [image = '', ...command] = args;
  const body = createBody(flags, image, command, io);
  const platform = flags.text('platform');
  const query = { name: flags.text('name'), platform };
  const pull = flags.text('pull') ?? 'missing';
  const wish = { image, platform, quiet: flags.on('quiet'), allTags: false };
  if (pull === 'always') await pullImage(engine, wish, { ...io, stdout: io.stderr });
  const create = (): Promise<{ Id: string; Warnings?: string[] }> =>
    engine.json({ method: 'POST', path: '/containers/create', query, json: body });
  const made = await create().catch(async (error: unknown) => {
    if (refusedStatus(error) !== 404 || pull === 'never') throw error;
    io.stderr.write(`Unable to find image '${image}' locally\n`);
    await pullImage(engine, wish, { ...io, stdout: io.stderr });
    return create();
  });
  for (const warning of made.Warnings ?? []) io.stderr.write(`WARNING: ${warning}\n`);
  const cidfile = flags.text('cidfile');
  if (cidfile !== undefined) writeFileSync(cidfile, made.Id, { flag: 'wx' });
  return made.Id;
}

async function start(engine: EngineClient, id: string): Promise<void> {
  try {
    await engine.send({ method: 'POST', path: `/containers/${id}/start` });
  } catch (error) {
    if (!isCode(error, 'REQUEST_REFUSED')) throw error;
    throw new ExitWith(
      { code: startCode(error.message), says: `Error response from daemon: ${error.message}` },
      { cause: error },
    );
  }
}

/** As docker: 127 no such command, 126 it cannot be run, 125 anything else. */
function startCode(message: string): number {
  if (/executable file not found|no such file or directory|not found in|ENOENT/i.test(message)) return 127;
  return /permission denied|EACCES|is a directory/i.test(message) ? 126 : 125;
}

/** Asks before the start, so that no end is missed. */
async function watchEnd(
  engine: EngineClient,
  id: string,
  removed: boolean,
): Promise<{ code: Promise<number>; cancel: () => void }> {
  const gone = new AbortController();
  const condition = removed ? 'removed' : 'next-exit';
  const response = await engine.open({
    method: 'POST',
    path: `/containers/${id}/wait`,
    query: { condition },
    signal: gone.signal,
  });
  const read = async (): Promise<number> => {
    let text = '';
    for await (const chunk of response) text += String(chunk);
    const { StatusCode, Error: error } = JSON.parse(text) as { StatusCode: number; Error?: { Message?: string } };
    if (error?.Message) throw new ExitWith({ code: 125, says: error.Message });
    return StatusCode;
  };
  const code = read();
  code.catch(() => undefined); // whoever waits for it is told; nobody waits after a failed start
  return { code, cancel: () => gone.abort() };
}

/** `^C` at the client is the container's affair. */
function forwardSignals(engine: EngineClient, id: string): () => void {
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const;
  const handlers = signals.map((signal) => {
    const send = (): void => {
      // It may have ended in this very moment.
      engine.send({ method: 'POST', path: `/containers/${id}/kill`, query: { signal } }).catch(() => undefined);
    };
    process.on(signal, send);
    return () => process.off(signal, send);
  });
  return () => {
    for (const off of handlers) off();
  };
}

export const startCommand: Command = async ({ flags, args, io, engine }) => {
  const attach = flags.on('attach') || flags.on('interactive');
  if (!attach)
    return forEach(args, io, (name) =>
      engine.send({ method: 'POST', path: `/containers/${encodeURIComponent(name)}/start` }),
    );
  const [name = ''] = args;
  if (args.length > 1) throw new CliUsage({ why: 'you cannot start and attach multiple containers at once' });
  const { Id, Config } = await engine.json<{ Id: string; Config: { Tty: boolean; OpenStdin: boolean } }>({
    path: `/containers/${encodeURIComponent(name)}/json`,
  });
  const stdin = flags.on('interactive') && Config.OpenStdin;
  const attached = await engine.attach({
    path: `/containers/${Id}/attach`,
    query: { stream: true, stdin, stdout: true, stderr: true },
  });
  const ended = await watchEnd(engine, Id, false);
  await start(engine, Id);
  return follow(engine, Id, attached, { flags, io, stdin, tty: Config.Tty, ended });
};

export const attachCommand: Command = async ({ flags, args, io, engine }) => {
  const [name = ''] = args;
  const { Id, Config, State } = await engine.json<{
    Id: string;
    Config: { Tty: boolean; OpenStdin: boolean };
    State: { Running: boolean; Paused: boolean };
  }>({ path: `/containers/${encodeURIComponent(name)}/json` });
  if (!State.Running) throw new ExitWith({ code: 1, says: 'You cannot attach to a stopped container, start it first' });
  if (State.Paused) throw new ExitWith({ code: 1, says: 'You cannot attach to a paused container, unpause it first' });
  const stdin = Config.OpenStdin && !flags.on('no-stdin');
  const ended = await watchEnd(engine, Id, false);
  const attached = await engine.attach({
    path: `/containers/${Id}/attach`,
    query: { stream: true, stdin, stdout: true, stderr: true },
  });
  return follow(engine, Id, attached, { flags, io, stdin, tty: Config.Tty, ended });
};

async function follow(
  engine: EngineClient,
  id: string,
  attached: Awaited<ReturnType<EngineClient['attach']>>,
  o: { flags: Flags; io: Io; stdin: boolean; tty: boolean; ended: Awaited<ReturnType<typeof watchEnd>> },
): Promise<number> {
  const { flags, io, stdin, tty, ended } = o;
  const stopSize = tty
    ? followSize(io, (size) => engine.send({ method: 'POST', path: `/containers/${id}/resize`, query: size }))
    : () => undefined;
  const stopSignals =
    tty || (flags.has('sig-proxy') && !flags.on('sig-proxy')) ? () => undefined : forwardSignals(engine, id);
  try {
    await joinStreams(attached, io, { stdin, tty, detachKeys: parseDetachKeys(flags.text('detach-keys')) });
    return await ended.code;
  } catch (error) {
    ended.cancel();
    throw error;
  } finally {
    stopSize();
    stopSignals();
  }
}

export const execCommand: Command = async ({ flags, args, io, engine }) => {
  const [name = '', ...command] = args;
  const detach = flags.on('detach');
  const stdin = flags.on('interactive') && !detach;
  const tty = flags.on('tty');
  if (tty && stdin && !io.stdin.isTTY) throw new CliUsage({ why: 'the input device is not a TTY' });
  const { Id } = await engine.json<{ Id: string }>({
    method: 'POST',
    path: `/containers/${encodeURIComponent(name)}/exec`,
    json: {
      Cmd: command,
      AttachStdin: stdin,
      AttachStdout: !detach,
      AttachStderr: !detach,
      Tty: tty,
      Env: environmentOf(flags, io),
      ...(flags.has('user') ? { User: flags.text('user') } : {}),
      ...(flags.has('workdir') ? { WorkingDir: flags.text('workdir') } : {}),
      ...(flags.on('privileged') ? { Privileged: true } : {}),
      ...(flags.has('detach-keys') ? { DetachKeys: flags.text('detach-keys') } : {}),
    },
  });
  if (detach) {
    await engine.send({ method: 'POST', path: `/exec/${Id}/start`, json: { Detach: true, Tty: tty } });
    return 0;
  }
  const attached = await engine
    .attach({ path: `/exec/${Id}/start`, json: { Detach: false, Tty: tty } })
    .catch((error: unknown) => {
      if (!isCode(error, 'REQUEST_REFUSED')) throw error;
      throw new ExitWith({ code: startCode(error.message), says: error.message }, { cause: error });
    });
  const stopSize = tty
    ? followSize(io, (size) => engine.send({ method: 'POST', path: `/exec/${Id}/resize`, query: size }))
    : () => undefined;
  try {
    await joinStreams(attached, io, { stdin, tty, detachKeys: parseDetachKeys(flags.text('detach-keys')) });
  } finally {
    stopSize();
  }
  const { ExitCode } = await engine.json<{ ExitCode: number | null }>({ path: `/exec/${Id}/json` });
  return ExitCode ?? 0;
};

/** Answered for a name that is not to be printed. */
export const SILENT = Symbol('silent');

/** Does one thing to each name, prints those that went well, goes on after a failure. */
export async function forEach(
  names: readonly string[],
  io: Io,
  act: (name: string) => Promise<unknown>,
): Promise<number> {
  let code = 0;
  for (const name of names) {
    try {
      if ((await act(name)) !== SILENT) io.stdout.write(`${name}\n`);
    } catch (error) {
      if (!isCode(error, 'REQUEST_REFUSED')) throw error;
      io.stderr.write(`Error response from daemon: ${error.message}\n`);
      code = 1;
    }
  }
  return code;
}
