import { createHash } from 'node:crypto';
import { connect } from 'node:net';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { EstibaError } from '#base/errors.ts';
import type { DaemonConnection } from '#engine/client/connection.ts';
import { contextBody, filesBody, type ScannedContext, scanContext } from '#engine/client/context.ts';
import type { Ignore } from '#spec/dockerfile/ignore.ts';
import {
  BUILD_API,
  type BuildFailure,
  type BuildLine,
  type BuildWish,
  contextAnswer,
  type ExportType,
} from '#spec/estiba/build.ts';

/** A wish before its contexts have been sent: directories stand beside ids, images and URLs. */
export interface BuildCall extends Omit<BuildWish, 'contexts' | 'ssh'> {
  contexts: Readonly<Record<string, ContextWish>>;
  /** Name → socket of the agent. */
  ssh: Readonly<Record<string, string>>;
}

export type ContextWish =
  | { directory: string; ignore: Ignore }
  | { tar: AsyncIterable<Uint8Array> }
  | { image: string }
  | { url: string };

export interface BuildResult {
  imageId: string;
  digest: string;
  tags: string[];
  tookMs: number;
}

/** A build that failed, as the daemon tells it. */
export class BuildError extends EstibaError {
  readonly failure: BuildFailure;

  constructor(failure: BuildFailure) {
    super(failure.code, failure.message, { hint: failure.hint, data: failure });
    this.failure = failure;
  }
}

/** Sends what has changed, builds, and tells each line. `undefined`: only checks were asked for. */
export async function runBuild(
  daemon: DaemonConnection,
  call: BuildCall,
  tell: (line: BuildLine) => void,
  signal: AbortSignal,
): Promise<BuildResult | undefined> {
  const contexts = await sendContexts(daemon, call.contexts, signal);
  const { ssh, ...rest } = call;
  const wish: BuildWish = { ...rest, contexts, ssh: Object.keys(ssh) };
  const tunnels = new AbortController();
  let result: BuildResult | undefined;
  try {
    for await (const raw of daemon.lines(BUILD_API, { method: 'POST', json: wish, signal })) {
      const line = raw as BuildLine;
      if (line.at === 'build')
        for (const [name, socket] of Object.entries(ssh))
          void openTunnel(daemon, line.id, name, socket, tunnels.signal);
      if (line.at === 'error') throw new BuildError(line.error);
      if (line.at === 'result') result = line;
      tell(line);
    }
    return result;
  } finally {
    tunnels.abort();
  }
}

/** The result as a tar; see `EXPORT_TYPES`. */
export function exportBuild(
  daemon: DaemonConnection,
  imageId: string,
  type: ExportType,
  signal: AbortSignal,
): Promise<AsyncIterable<Buffer>> {
  return daemon.stream(`${BUILD_API}/exports/${imageId}?type=${type}`, { signal });
}

async function sendContexts(
  daemon: DaemonConnection,
  contexts: BuildCall['contexts'],
  signal: AbortSignal,
): Promise<BuildWish['contexts']> {
  const sent: BuildWish['contexts'] = {};
  for (const [name, wish] of Object.entries(contexts)) {
    if ('image' in wish) sent[name] = { image: wish.image };
    else if ('url' in wish) sent[name] = { url: wish.url };
    else if ('tar' in wish) sent[name] = { id: (await announceTar(daemon, wish.tar, signal)).id };
    else {
      const scanned = await scanContext(wish.directory, wish.ignore, hashFile(wish.directory));
      sent[name] = { id: await sendContext(daemon, scanned, signal) };
      await scanned.noted;
    }
  }
  return sent;
}

async function sendContext(daemon: DaemonConnection, scanned: ScannedContext, signal: AbortSignal): Promise<string> {
  const path = `${BUILD_API}/contexts`;
  const { id, missing } = contextAnswer(
    await daemon.json(path, { method: 'POST', body: contextBody(scanned), signal }),
    path,
  );
  if (missing.length > 0) {
    const body = filesBody(missing, (hex) => scanned.files.get(hex));
    await daemon.json(`${BUILD_API}/files`, { method: 'POST', body, signal });
  }
  return id;
}

async function announceTar(
  daemon: DaemonConnection,
  tar: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<{ id: string }> {
  const path = `${BUILD_API}/contexts`;
  const headers = { 'Content-Type': 'application/x-tar' };
  return contextAnswer(await daemon.json(path, { method: 'POST', headers, body: tar, signal }), path);
}

/** One file a directory, so that contexts do not push each other out. */
function hashFile(directory: string): string {
  const home = process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache');
  const name = createHash('sha256').update(resolve(directory)).digest('hex').slice(0, 32);
  return join(home, 'estiba/contexts', name);
}

/** Waits until a command of the build talks to the agent; then the next tunnel is opened, for the next one. */
async function openTunnel(
  daemon: DaemonConnection,
  build: string,
  name: string,
  agentSocket: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    const { socket, head } = await daemon.upgrade(`${BUILD_API}/agents/${build}/${encodeURIComponent(name)}`, signal);
    signal.addEventListener('abort', () => socket.destroy(), { once: true });
    socket.on('error', () => undefined); // the build has ended
    const begin = (first: Buffer): void => {
      void openTunnel(daemon, build, name, agentSocket, signal);
      const agent = connect(agentSocket);
      agent.on('error', () => socket.destroy());
      agent.write(first);
      socket.pipe(agent).pipe(socket);
    };
    if (head.length > 0) begin(head);
    else socket.once('data', begin);
  } catch {
    // The build has ended; or no tunnel can be had, and then the command itself says that its agent does not answer.
  }
}
