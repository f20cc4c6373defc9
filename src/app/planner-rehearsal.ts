import { createConnection, createServer, type Socket } from 'node:net';
import { Call, greeting, isPlan, NO_RESULT, type Planner } from '#app/planner-call.ts';

/**
 * Calls without anybody behind them: `argv` is planned, its plan answered with nothing, and the command takes back what it has
 * written. All it runs through is compiled afterwards, and so part of the snapshot that is being taken. Nothing of this host stays
 * in it: commands keep nothing between calls.
 */
export async function rehearse(argv: readonly string[], socketPath: string, planner: () => Planner): Promise<void> {
  const server = createServer((socket) => new Call(socket, planner()));
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(socketPath, resolve));
  // Twice: a profile is compiled by the first call and found on disk by the second.
  for (const turn of [1, 2])
    if (!(await call(argv, socketPath)))
      throw new Error(`rehearsal ${turn} came to no plan: estiba-oci ${argv.join(' ')}`);
  await new Promise((resolve) => server.close(resolve));
}

/** Whether it came to a plan. */
function call(argv: readonly string[], socketPath: string): Promise<boolean> {
  const socket: Socket = createConnection(socketPath);
  let planned = false;
  socket.write(greeting({ argv, cwd: '/', uid: 0, gid: 0, pid: process.pid })); // whoever builds, root's way is the usual one
  socket.on('data', (chunk: Buffer) => {
    if (!isPlan(chunk)) return;
    planned = true;
    socket.write(NO_RESULT);
  });
  return new Promise((resolve) => socket.once('close', () => resolve(planned)));
}
