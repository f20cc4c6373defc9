import { chmod, chown, readFile, rm } from 'node:fs/promises';
import type { Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { defineError, errnoOf } from '#base/errors.ts';

export const AddressInUse = defineError('ADDRESS_IN_USE', (d: { address: string; hint: string }) => ({
  message: `cannot listen on ${d.address}: it is in use`,
  hint: d.hint,
}));

const SOCKET_MODE = 0o660;

/** On a unix socket for root and one group. A socket file that nobody answers at is a dead daemon's, and is replaced. */
export async function listenUnix(server: Server, path: string, group: string): Promise<string> {
  if (await answers(path)) throw new AddressInUse({ address: path, hint: 'another daemon serves there' });
  await rm(path, { force: true });
  await listening(server, { path });
  const gid = groupId(await readFile('/etc/group', 'utf8'), group);
  if (gid !== undefined) await chown(path, 0, gid);
  await chmod(path, SOCKET_MODE);
  return `unix://${path}`;
}

/** Answers `ADDRESS:PORT`, with the port that was found when 0 was asked for. */
export async function listenTcp(server: Server, wish: { host: string; port: number }, hint: string): Promise<string> {
  try {
    await listening(server, wish);
  } catch (error) {
    if (errnoOf(error) !== 'EADDRINUSE') throw error;
    throw new AddressInUse({ address: `${wish.host}:${wish.port}`, hint }, { cause: error });
  }
  const { address, port, family } = server.address() as AddressInfo;
  return `${family === 'IPv6' ? `[${address}]` : address}:${port}`;
}

/** Every connection of a server, upgraded ones too: those are the server's no more, and yet its close waits for them. */
export function connectionsOf(server: Server): ReadonlySet<Socket> {
  const open = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
  });
  return open;
}

/** Answers under way get `graceMs` to end; streams that last as long as a container are cut. */
export async function closeServer(server: Server, open: ReadonlySet<Socket>, graceMs: number): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  const timer = setTimeout(() => {
    for (const socket of open) socket.destroy();
  }, graceMs);
  await closed;
  clearTimeout(timer);
}

function listening(server: Server, where: { path: string } | { host: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(where, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

function groupId(etcGroup: string, name: string): number | undefined {
  const line = etcGroup.split('\n').find((entry) => entry.startsWith(`${name}:`));
  const gid = line?.split(':')[2];
  return gid === undefined ? undefined : Number(gid);
}
