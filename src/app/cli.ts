import { userInfo } from 'node:os';
import { parseArgs } from 'node:util';
import { VERSION } from '#app/version.ts';
import { defineError, describeChain, isCode } from '#base/errors.ts';
import { diagnose, renderDiagnosis } from '#kernel/doctor.ts';
import { hostFiles } from '#kernel/files.ts';
import { readHostFacts } from '#kernel/host-facts.ts';

const HELP = `estiba: containers from clone(2) to kubectl apply

  estiba doctor [--json] [--problems]         what this machine can do for containers, with the fix for what it cannot
  estiba build … DIRECTORY                    a Dockerfile and its files → an image: estiba build --help
  estiba debug-build                          a shell in what a failed build step left
  estiba registry …                           a registry for OCI and Docker images: estiba registry --help
  estiba daemon …                             containers, registry and Kubernetes API of one node: estiba daemon --help
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
    case 'build':
    case 'debug-build':
      return build(command, rest);
    case 'edge':
      return edge(rest);
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

async function build(command: 'build' | 'debug-build', args: string[]): Promise<void> {
  const cancel = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => cancel.abort(new Error('cancelled')));
  const world = { env: process.env, stdin: process.stdin, stdout: process.stdout, stderr: process.stderr };
  const { buildCommand } = await import('#cli/build.ts'); // no other command needs to read them
  const { debugBuildCommand } = await import('#cli/debug-build.ts');
  const run = command === 'build' ? buildCommand : debugBuildCommand;
  process.exitCode = await run(args, { ...world, signal: cancel.signal });
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

main(process.argv.slice(2)).catch((error: unknown) => {
  process.stderr.write(`estiba: ${describeChain(error)}${isCode(error, 'USAGE') ? `\n\n${error.hint}` : ''}\n`);
  process.exitCode = 1;
});
