import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { parse } from 'yaml';
import { optionsFor } from '../compose-options.ts';
import type { ApiServer } from '../room/engine.ts';
import type { Answer, Room } from '../room/room.ts';

/** A file of the corpus in a directory of its own, with docker-compose 1.29 as its reader. */
export interface Project {
  compose(line: string): Promise<Answer>;
  dir: string;
}

/** What `docker-compose config` makes of the file, as much as stand-ins need. */
export interface Resolved {
  services: Record<string, ResolvedService>;
  networks?: Record<string, { external?: unknown; name?: string } | null>;
  volumes?: Record<string, { external?: unknown; name?: string } | null>;
  secrets?: Record<string, { file?: string }>;
  configs?: Record<string, { file?: string }>;
}

interface ResolvedService {
  image: string;
  container_name?: string;
  ports?: unknown[];
  volumes?: (string | { type: string; source?: string; target: string })[];
  network_mode?: string;
  profiles?: string[];
}

/** No name that a file of the corpus extends. */
const FILE = 'corpus.yaml';
const COMMAND_MS = 180_000;

/** An image is called by its name alone: no stand-in has the digest of what it stands for. */
export function openProject(room: Room, server: ApiServer, path: string, name: string): Project {
  const dir = join(room.dir, name);
  mkdirSync(dir);
  const text = readFileSync(path, 'utf8');
  writeFileSync(join(dir, FILE), text.replaceAll(/@sha256:[0-9a-f]{64}/g, ''));
  const variables = Object.fromEntries(
    Object.entries(optionsFor(path, text).environment ?? {}).map(([key, value]) => [key, value ?? '']),
  );
  const env = {
    // A path of the user's own would be the host's: what the file binds is in the project's directory.
    ...Object.fromEntries(Object.entries(variables).map(([key, v]) => [key, v === '/1' ? join(dir, 'given') : v])),
    COMPOSE_PROJECT_NAME: name,
    DOCKER_HOST: `unix://${server.socket}`,
    HOME: room.dir,
  };
  return {
    dir,
    compose: (line) =>
      room.runLong('sh', ['-c', `exec docker-compose -f ${FILE} ${line} < /dev/null`], {
        cwd: dir,
        env,
        timeoutMs: COMMAND_MS,
      }),
  };
}

export function readResolved(config: string): Resolved {
  return parse(config) as Resolved;
}

/** What the file takes from beside it: empty files where a file's name is mounted, directories elsewhere. */
export function makeFixtures(dir: string, resolved: Resolved): void {
  const file = (path: string): void => {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, '');
  };
  for (const { file: path } of [...Object.values(resolved.secrets ?? {}), ...Object.values(resolved.configs ?? {})])
    if (path !== undefined) file(path);
  for (const service of Object.values(resolved.services))
    for (const [source, target] of bindsOf(service)) {
      if (!source.startsWith(`${dir}/`)) continue;
      if (/\.\w+$/.test(basename(target))) file(source);
      else mkdirSync(source, { recursive: true });
    }
}

function bindsOf({ volumes = [] }: ResolvedService): [string, string][] {
  return volumes.flatMap((volume): [string, string][] => {
    if (typeof volume !== 'string')
      return volume.type === 'bind' && volume.source ? [[volume.source, volume.target]] : [];
    const [source = '', target = ''] = volume.split(':');
    return source.startsWith('/') ? [[source, target]] : [];
  });
}

/** Services of which there may be two on one host. */
export function scalable({ services }: Resolved): string | undefined {
  const fits = ({ container_name, ports = [], network_mode, profiles }: ResolvedService): boolean =>
    container_name === undefined && ports.length === 0 && network_mode === undefined && !profiles;
  return Object.entries(services).find(([, service]) => fits(service))?.[0];
}

/**
 * One image for all: it runs the command it is given where there is such a program, and otherwise waits, listening where the
 * corpus' health checks look. Programs that health checks and set-up services call end well.
 */
export const STAND_IN = `FROM busybox
RUN mkdir -p /usr/local/bin /usr/bin /opt/antithesis/entrypoint \\
 && for p in /usr/local/bin/curl /usr/bin/mc; do printf '#!/bin/sh\\n' > $p; chmod 755 $p; done \\
 && printf '#!/bin/sh\\n[ $# -gt 0 ] && command -v "$1" > /dev/null && exec "$@"\\necho stand-in\\nfor p in 17912 12800; do httpd -p $p; done\\ntrap "exit 0" TERM\\nsleep 100000 &\\nwait\\n' > /stand-in \\
 && chmod 755 /stand-in && cp /stand-in /opt/antithesis/entrypoint/entrypoint
ENTRYPOINT ["/stand-in"]
CMD []
`;
