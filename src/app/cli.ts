import { spawn } from 'node:child_process';
import { copyFile, writeFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { startControlPlane } from '#app/control-plane.ts';
import { VERSION } from '#app/version.ts';
import { defineError, describeChain, isCode } from '#base/errors.ts';
import { diagnose, renderDiagnosis } from '#kernel/doctor.ts';
import { hostFiles } from '#kernel/files.ts';
import { readHostFacts } from '#kernel/host-facts.ts';

const HELP = `estiba: containers from clone(2) to kubectl apply

  estiba doctor [--json] [--problems]         what this machine can do for containers, with the fix for what it cannot
  estiba registry …                           a registry for OCI and Docker images: estiba registry --help
  estiba daemon --only kube [--kube ADDRESS:PORT] [--data-root D] [--run-root R]
                                              the Kubernetes API with scheduler and controllers; prints where it serves what
  estiba edge [--run-root R]                  names and published ports of containers; the daemon starts it itself
  estiba version

estiba-oci is the OCI runtime, with runc's command line. Every other command says that it is not there yet: docs/ROADMAP.md.
`;

const Usage = defineError('USAGE', (d: { why: string }) => ({ message: d.why, hint: HELP }));

async function main(args: readonly string[]): Promise<void> {
  const [command = 'help', ...rest] = args;
  switch (command) {
    case 'doctor':
      return doctor(rest);
    case 'daemon':
      return daemon(rest);
    case 'edge':
      return edge(rest);
    case 'registry':
      return another('registry', rest);
    case 'version':
    case '--version':
      process.stdout.write(`estiba ${VERSION.version} (${VERSION.commit})\n`);
      return;
    case 'help':
    case '--help':
    case '-h':
      process.stdout.write(HELP);
      return;
    default:
      throw new Usage({ why: `estiba ${command}: there is no such command yet` });
  }
}

async function edge(args: string[]): Promise<void> {
  const { values } = parseArgs({ args, options: { 'run-root': { type: 'string', default: '/run/estiba' } } });
  const { runEdge } = await import('#app/edge.ts'); // no other command needs to read it
  const runRoot = values['run-root'];
  if (!(await runEdge(runRoot))) throw new Usage({ why: `an edge process serves ${runRoot} already` });
}

function doctor(args: string[]): void {
  const { values } = parseArgs({ args, options: { json: { type: 'boolean' }, problems: { type: 'boolean' } } });
  const facts = readHostFacts({
    files: hostFiles,
    uid: process.getuid?.() ?? 0,
    nodeArch: process.arch,
    nodeVersion: process.versions.node,
    userName: userInfo().username,
    path: process.env['PATH'] ?? '',
  });
  const diagnosis = diagnose(facts);
  process.stdout.write(
    values.json
      ? `${JSON.stringify(diagnosis, null, 2)}\n`
      : renderDiagnosis(diagnosis, values.problems ? 'problems' : 'all'),
  );
}

/** A process of its own, in our place: its signals and its exit are ours. */
function another(name: string, args: string[]): Promise<void> {
  const child = spawn(process.execPath, [join(dirname(process.argv[1] ?? ''), `${name}.run.cjs`), ...args], {
    stdio: 'inherit',
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      process.exitCode = signal ? 1 : (code ?? 1);
      resolve();
    });
  });
}

async function daemon(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      only: { type: 'string' },
      kube: { type: 'string', default: '127.0.0.1:6443' },
      'data-root': { type: 'string', default: '/var/lib/estiba' },
      'run-root': { type: 'string', default: '/run/estiba' },
    },
  });
  if (values.only !== 'kube')
    throw new Usage({ why: 'estiba daemon serves --only kube so far; the engine, CRI and dashboard are being built' });
  const [, host, port] = /^(.+):(\d{1,5})$/.exec(values.kube) ?? [];
  if (host === undefined || Number(port) > 65_535)
    throw new Usage({ why: `--kube ${values.kube} is not ADDRESS:PORT` });
  const runRoot = values['run-root'];
  const plane = await startControlPlane({ dataRoot: values['data-root'], runRoot, host, port: Number(port) });
  await copyFile(plane.kubeconfigPath, join(runRoot, 'kubeconfig'));
  const endpoints = `${JSON.stringify({ kube: plane.url })}\n`;
  await writeFile(join(runRoot, 'endpoints.json'), endpoints);
  process.stdout.write(endpoints);
  await new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve());
  });
  await plane.close();
  // All that is durable is closed. What is left are controllers' timers, of up to five minutes.
  process.exit(0);
}

main(process.argv.slice(2)).catch((error: unknown) => {
  process.stderr.write(`estiba: ${describeChain(error)}${isCode(error, 'USAGE') ? `\n\n${error.hint}` : ''}\n`);
  process.exitCode = 1;
});
