import { NoSwarm, NotSupported } from '#engine/api/errors.ts';
import { json } from '#engine/api/reply.ts';
import type { Handler, Handlers } from '#engine/api/server.ts';
import { FACTS } from '#spec/docker/facts.gen.ts';

/** What this engine does not do, each with what to do instead. Lists that are empty by nature are empty, so that clients go on. */
export function refusals(): Handlers {
  const swarm: Handler = () => {
    throw new NoSwarm({});
  };
  const plugin: Handler = () => {
    throw new NotSupported({
      what: 'managing plugins',
      instead: 'volumes and networks are built in; log drivers are json-file, local and none',
    });
  };
  const buildkit: Handler = () => {
    throw new NotSupported({
      what: "BuildKit's session protocol",
      instead: 'use DOCKER_BUILDKIT=0 or estiba build',
    });
  };
  const of = (paths: RegExp, handler: Handler): Handlers =>
    Object.fromEntries(FACTS.routes.filter(({ path }) => paths.test(path)).map(({ id }) => [id, handler]));
  return {
    ...of(/^\/(swarm|nodes|services|tasks|secrets|configs)(\/|$)/, swarm),
    ...of(/^\/plugins(\/|$)/, plugin),
    PluginList: () => json([]),
    Grpc: buildkit,
    ImageAttestations: () => {
      throw new NotSupported({ what: 'reading attestations', instead: 'pull them with a registry client' });
    },
  };
}

/** Paths that no Swagger file has and clients ask for all the same. */
export const UNDOCUMENTED_ROUTES = [
  { method: 'POST', path: '/grpc', id: 'Grpc' },
  // `docker rm --link web/store`: a link is called by its owner and its alias.
  { method: 'DELETE', path: '/containers/{id}/{alias}', id: 'ContainerUnlink' },
];
