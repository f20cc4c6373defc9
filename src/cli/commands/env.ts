import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { errnoOf } from '#base/errors.ts';
import { ExitWith } from '#cli/errors.ts';
import type { Invocation } from '#cli/verb.ts';

/** What a shell needs so that docker, docker-compose, kubectl and estiba mean this node: `eval "$(estiba env)"`. */
export async function envCommand({ flags, global, io }: Invocation): Promise<undefined> {
  const runRoot = runRootOf({ global, io });
  const path = join(runRoot, 'endpoints.json');
  const endpoints = readEndpoints(path);
  const values = {
    ...(endpoints.docker === undefined ? {} : { DOCKER_HOST: endpoints.docker }),
    ...(endpoints.kube === undefined ? {} : { KUBECONFIG: join(runRoot, 'kubeconfig') }),
    ESTIBA_RUN_ROOT: runRoot,
  };
  const lines = Object.entries(values).map(([name, value]) => `export ${name}=${quoted(value)}\n`);
  io.stdout.write(flags.on('json') ? `${JSON.stringify(values)}\n` : lines.join(''));
}

/** PEM, for `curl --cacert <(estiba cluster ca)`, a browser, or the system's store. */
export async function caCommand({ global, io }: Invocation): Promise<undefined> {
  const path = join(runRootOf({ global, io }), 'ingress-ca.crt');
  try {
    io.stdout.write(readFileSync(path, 'utf8'));
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    throw new ExitWith({
      code: 1,
      says: `${path}: no cluster serves there: start \`estiba daemon\`, or name its --run-root`,
    });
  }
}

function runRootOf({ global, io }: Pick<Invocation, 'global' | 'io'>): string {
  return resolve(io.cwd, global.runRoot ?? io.env['ESTIBA_RUN_ROOT'] ?? '/run/estiba');
}

function readEndpoints(path: string): { docker?: string; kube?: string } {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    const why = errnoOf(error) === 'ENOENT' ? 'no daemon serves there' : 'it cannot be read';
    throw new ExitWith({ code: 1, says: `${path}: ${why}: start \`estiba daemon\`, or name its --run-root` });
  }
}

function quoted(value: string): string {
  return /^[\w/.:-]+$/.test(value) ? value : `'${value.replaceAll("'", "'\\''")}'`;
}
