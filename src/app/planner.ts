import { rmSync, statSync } from 'node:fs';
import { createServer, Socket } from 'node:net';
import { dirname } from 'node:path';
import { startupSnapshot } from 'node:v8';
import { Call, type Planner } from '#app/planner-call.ts';
import { rehearse } from '#app/planner-rehearsal.ts';
import { seccompStore } from '#app/seccomp.ts';
import { describeChain } from '#base/errors.ts';
import { archOfNode } from '#kernel/linux/syscalls.ts';
import { SeccompCache } from '#kernel/seccomp/cache.ts';

// Decides for `bin/estiba-oci` what each command does; the native front, which is the caller's own process, carries it out.
//
//   estiba-oci-planner --fd N     for one call, over a descriptor (bin/estiba-oci without a resident planner)
//   estiba-oci-planner SOCKET     prints "ready"; ends by itself after IDLE_MS without a call
//
// A call of its own waits for Node.js to start. `tools/snapshot.mjs` takes a snapshot of a planner that has rehearsed one call: it
// starts with all of its code compiled (`node --snapshot-blob dist/planner-….blob`).

const IDLE_MS = 10 * 60_000;

function main(): void {
  const [socketPath, fd] = process.argv.slice(2);
  if (socketPath === '--fd') {
    // At the other end of our caller's socket pair; it ends us when it has heard enough.
    new Call(new Socket({ fd: Number(fd), readable: true, writable: true }), {
      mayServe: () => true,
      seccomp: seccomp(),
    });
  } else if (socketPath === undefined || socketPath.startsWith('-')) {
    process.stdout.write('usage: estiba-oci-planner SOCKET\n');
  } else {
    serve(socketPath);
  }
}

function serve(path: string): void {
  const home = dirname(dirname(process.argv[1] ?? ''));
  const built = statSync(process.argv[1] ?? '').mtimeMs;
  const planner: Planner = {
    mayServe: (theirs) => theirs === home && statSync(process.argv[1] ?? '').mtimeMs === built,
    seccomp: seccomp(),
  };
  let calls = 0;
  let idle: NodeJS.Timeout | undefined;
  const server = createServer((socket) => {
    calls++;
    clearTimeout(idle);
    new Call(socket, planner);
    socket.once('close', () => {
      calls--;
      if (calls === 0) idle = setTimeout(end, IDLE_MS);
    });
  });
  const end = (): void => {
    rmSync(path, { force: true });
    server.close();
    process.exit(0);
  };
  process.umask(0o177);
  rmSync(path, { force: true });
  server.listen(path, () => {
    process.umask(0o022);
    process.stdout.write('ready\n');
    idle = setTimeout(end, IDLE_MS);
  });
  process.once('SIGTERM', end);
}

/** Every caller is of our own uid (SO_PEERCRED, checked by the front): what was compiled for one serves all. */
function seccomp(run?: string): Planner['seccomp'] {
  const native = archOfNode(process.arch);
  if (!native) return undefined;
  const cache = new SeccompCache({ native }, seccompStore(process.geteuid?.() ?? 0, process.env, run));
  return (profile) => cache.compile(profile);
}

if (startupSnapshot.isBuildingSnapshot()) {
  // node --build-snapshot planner.cjs DIRECTORY ARGUMENT…; DIRECTORY takes what the calls write.
  const [dir = '', ...argv] = process.argv.slice(2);
  startupSnapshot.setDeserializeMainFunction(main);
  const planner = (): Planner => ({ mayServe: () => true, seccomp: seccomp(dir) });
  rehearse(argv, `${dir}/rehearsal.sock`, planner).catch((error: unknown) => {
    process.stderr.write(`${describeChain(error)}\n`);
    process.exit(1); // an exception alone would leave a snapshot all the same
  });
} else {
  main();
}
