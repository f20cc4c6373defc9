// Starts a daemon twice for the sake of its code cache, the second time with a container that it knows: what a start runs is in the cache
// then. Everything it makes goes with the namespaces that tools/build.mjs calls this in:
//   unshare -m -n -p -f --kill-child --mount-proc node tools/rehearse.mjs SCRIPT DIRECTORY
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { request } from 'node:http';
import { join } from 'node:path';

const [script, directory] = process.argv.slice(2);
const run = join(directory, 'run');
const roots = ['--data-root', join(directory, 'data'), '--run-root', run];

const first = await start({});
await ask('POST', '/images/create?fromSrc=-&repo=rehearsal', 'application/x-tar', Buffer.alloc(1024)); // an empty archive
await ask('POST', '/containers/create', 'application/json', JSON.stringify({ Image: 'rehearsal', Cmd: ['true'] }));
await end(first);
const second = await start({ ESTIBA_WRITE_CACHE: '1' });
await ask('GET', '/_ping');
await end(second);
process.exit(0);

async function start(env) {
  const daemon = spawn(
    process.execPath,
    [script, '--only', 'engine', '--name', 'rehearsal', ...roots, '--bootstrap', 'off'],
    { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'] },
  );
  // It says what it serves when it is ready.
  await Promise.race([once(daemon.stdout, 'data'), once(daemon, 'exit').then(failed)]);
  return daemon;
}

async function end(daemon) {
  daemon.kill('SIGTERM');
  await once(daemon, 'exit');
}

function failed() {
  throw new Error('the daemon ended before it was ready');
}

async function ask(method, path, type, body) {
  const asked = request({
    socketPath: join(run, 'docker.sock'),
    method,
    path,
    headers: type ? { 'Content-Type': type } : {},
  });
  asked.end(body);
  const [answer] = await once(asked, 'response');
  answer.resume();
  await once(answer, 'end');
  if (answer.statusCode >= 300) throw new Error(`${method} ${path}: ${answer.statusCode}`);
}
