import { fail } from '#base/shape.ts';
import { applyChanges } from '#build/change.ts';
import { healthcheckSetting, type ImageSettings } from '#build/settings.ts';
import { healthOf } from '#engine/api/docker/create.ts';
import { flag, textOf } from '#engine/api/docker/query.ts';
import { json } from '#engine/api/reply.ts';
import type { Handlers } from '#engine/api/server.ts';
import { type CommitParts, commit, mergeConfig } from '#engine/core/commit.ts';
import { checkBody } from '#spec/docker/body.ts';
import type { ContainerConfig } from '#spec/docker/types.gen.ts';
import type { RunConfig } from '#spec/image/manifest.ts';

/** `docker commit`. */
export function commitHandlers(parts: CommitParts): Handlers {
  return {
    ImageCommit: async (request) => {
      const { query } = request;
      const body = checkBody('ImageCommit', await request.json());
      const wished = applyChanges(commitSettings(body), query.getAll('changes').flatMap(lines));
      const repository = textOf(query, 'repo');
      const tag = textOf(query, 'tag');
      const image = await commit(parts, containerOf(query), {
        name: repository === undefined ? undefined : tag === undefined ? repository : `${repository}:${tag}`,
        comment: textOf(query, 'comment') ?? '',
        author: textOf(query, 'author') ?? '',
        pause: flag(query, 'pause', true),
        change: (config) => mergeConfig(wished as RunConfig, config),
      });
      return json({ Id: image.id }, 201);
    },
  };
}

function containerOf(query: URLSearchParams): string {
  return textOf(query, 'container') ?? fail('query container', null, 'is required: the container to make an image of');
}

/** Several instructions may come in one value, a line each. */
function lines(text: string): string[] {
  return text.split('\n').filter((line) => line.trim() !== '');
}

/** Of a container's configuration, what an image has too. Empty means "as the container". */
export function commitSettings(body: ContainerConfig): ImageSettings {
  const settings: ImageSettings = {};
  if (body.User) settings.User = body.User;
  if (body.WorkingDir) settings.WorkingDir = body.WorkingDir;
  if (body.StopSignal) settings.StopSignal = body.StopSignal;
  if (body.Env?.length) settings.Env = body.Env;
  if (body.Cmd?.length) settings.Cmd = body.Cmd;
  if (body.Entrypoint?.length) settings.Entrypoint = body.Entrypoint;
  if (body.OnBuild?.length) settings.OnBuild = body.OnBuild;
  if (body.Shell?.length) settings.Shell = body.Shell;
  if (body.Healthcheck?.Test?.length) settings.Healthcheck = healthcheckSetting(healthOf(body.Healthcheck));
  if (body.Labels) settings.Labels = body.Labels;
  if (body.ExposedPorts) settings.ExposedPorts = keys(body.ExposedPorts);
  if (body.Volumes) settings.Volumes = keys(body.Volumes);
  return settings;
}

function keys(map: Record<string, unknown>): Record<string, object> {
  return Object.fromEntries(Object.keys(map).map((key) => [key, {}]));
}
