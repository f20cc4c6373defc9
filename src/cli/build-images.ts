import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ignoreOf } from '#cli/build.ts';
import { failureText, LiveProgress, PlainProgress } from '#cli/build-progress.ts';
import { ExitWith } from '#cli/errors.ts';
import { registryAuth } from '#cli/registry-auth.ts';
import type { Io } from '#cli/verb.ts';
import { BuildError, runBuild } from '#engine/client/build.ts';
import type { EngineClient } from '#engine/client/client.ts';
import type { BuildWish } from '#up/objects.ts';

/** Builds what an app needs, one after the other: they share layers. Answers the images' ids by service. */
export async function buildImages(
  engine: EngineClient,
  wishes: readonly BuildWish[],
  io: Io,
): Promise<Record<string, string>> {
  const ids: Record<string, string> = {};
  for (const wish of wishes) {
    io.stderr.write(`building ${wish.image}\n`);
    ids[wish.service] = await buildOne(engine, wish, io);
  }
  return ids;
}

async function buildOne(engine: EngineClient, wish: BuildWish, io: Io): Promise<string> {
  const name = wish.dockerfile ?? 'Dockerfile';
  const path = join(wish.context, name);
  const text = wish.dockerfileInline ?? (await readFile(path, 'utf8'));
  const { ignore, ignoreText } = await ignoreOf(wish.context, path);
  const screen = {
    write: (t: string) => void io.stderr.write(t),
    columns: io.stderr.columns ?? 80,
    now: () => performance.now(),
  };
  const view = io.stderr.isTTY ? new LiveProgress(screen) : new PlainProgress(screen);
  const call = {
    contexts: { '': { directory: wish.context, ignore } },
    dockerfile: { name, text },
    tags: [wish.image],
    ...(wish.target === undefined ? {} : { target: wish.target }),
    buildArgs: { ...wish.args },
    labels: {},
    noCache: false,
    noCacheFilter: [],
    pull: false,
    check: false,
    secrets: {},
    ssh: {},
    allow: [],
    network: 'default',
    addHosts: [],
    limits: { ulimits: [] },
    squash: false,
    ...(ignoreText === undefined ? {} : { ignore: ignoreText }),
    ...registryAuth(io),
  };
  try {
    const result = await runBuild(engine.connection, call, (line) => view.take(line), new AbortController().signal);
    if (!result) throw new ExitWith({ code: 1, says: `building ${wish.image} gave no image` });
    return result.imageId;
  } catch (error) {
    if (!(error instanceof BuildError)) throw error;
    throw new ExitWith({ code: 1, says: `${wish.image}: ${failureText(error.failure).trimEnd()}` }, { cause: error });
  } finally {
    view.close();
  }
}
