import type { Clock } from '#base/clock.ts';
import { defineError, describeChain, isCode } from '#base/errors.ts';
import type { EventText } from '#cluster/client/events.ts';
import type { Credential, NodeImages } from '#cluster/node/seams.ts';
import type { FoundImage } from '#engine/core/parts.ts';
import { nameOf, parseReference } from '#spec/image/reference.ts';
import type { Container, Secret } from '#spec/kubernetes/types.gen.ts';

/** Why a container has no image, in the kubelet's words; `retry` is false for what only a change of the pod can mend. */
export const ImageProblem = defineError('IMAGE_PROBLEM', (d: { reason: string; message: string; retry: boolean }) => ({
  message: d.message,
}));

/** Images of this node's pods: by policy, with the pod's secrets, each pulled once however many ask. */
export class PodImages {
  readonly #images: NodeImages;
  readonly #clock: Clock;
  readonly #pulls = new Map<string, Promise<{ bytes: number }>>();

  constructor(images: NodeImages, clock: Clock) {
    this.#images = images;
    this.#clock = clock;
  }

  /** The image, present. IMAGE_PROBLEM when it cannot be had. */
  async ensure(
    container: Container,
    secrets: readonly Secret[],
    tell: (event: EventText) => void,
  ): Promise<FoundImage> {
    const name = container.image ?? '';
    const policy = container.imagePullPolicy ?? 'IfNotPresent';
    const registry = checkedName(name);
    const present = policy === 'Always' ? undefined : await this.#images.find(name);
    if (present) {
      tell({ type: 'Normal', reason: 'Pulled', message: `Container image "${name}" already present on machine` });
      return present;
    }
    if (policy === 'Never') {
      const message = `Container image "${name}" is not present with pull policy of Never`;
      throw new ImageProblem({ reason: 'ErrImageNeverPull', message, retry: true });
    }
    await this.#pull(name, credentialsFor(registry, secrets), tell);
    const found = await this.#images.find(name);
    if (!found)
      throw new ImageProblem({
        reason: 'ErrImagePull',
        message: `image "${name}" is not here after its pull`,
        retry: true,
      });
    return found;
  }

  async #pull(name: string, credentials: readonly Credential[], tell: (event: EventText) => void): Promise<void> {
    const startedMs = this.#clock.monotonic();
    tell({ type: 'Normal', reason: 'Pulling', message: `Pulling image "${name}"` });
    const key = JSON.stringify([name, credentials]);
    const pull = this.#pulls.get(key) ?? this.#images.pull(name, credentials).finally(() => this.#pulls.delete(key));
    this.#pulls.set(key, pull);
    try {
      const { bytes } = await pull;
      const seconds = ((this.#clock.monotonic() - startedMs) / 1000).toFixed(3);
      const message = `Successfully pulled image "${name}" in ${seconds}s. Image size: ${bytes} bytes.`;
      tell({ type: 'Normal', reason: 'Pulled', message });
    } catch (error) {
      const message = `Failed to pull image "${name}": ${describeChain(error)}`;
      tell({ type: 'Warning', reason: 'Failed', message });
      throw new ImageProblem({ reason: 'ErrImagePull', message: describeChain(error), retry: true }, { cause: error });
    }
  }
}

function checkedName(name: string): string {
  try {
    return nameOf(parseReference(name));
  } catch (error) {
    if (!isCode(error, 'REFERENCE_INVALID')) throw error;
    const message = `Failed to apply default image tag "${name}": couldn't parse image name "${name}": invalid reference format`;
    throw new ImageProblem({ reason: 'InvalidImageName', message, retry: false }, { cause: error });
  }
}

interface AuthEntry {
  username?: string;
  password?: string;
  auth?: string;
}

/** What the pull secrets hold for an image, the closest match first. Keys are hosts, perhaps with a path: `reg.example:5000/team`. */
export function credentialsFor(name: string, secrets: readonly Secret[]): Credential[] {
  const found: { length: number; credential: Credential }[] = [];
  for (const secret of secrets) {
    for (const [key, entry] of Object.entries(authsOf(secret))) {
      const place = key
        .replace(/^https?:\/\//, '')
        .replace(/\/v[12]\/?$/, '')
        .replace(/\/$/, '');
      const normal = place === 'index.docker.io' ? 'docker.io' : place;
      if (name !== normal && !name.startsWith(`${normal}/`)) continue;
      const [username = '', ...rest] = entry.auth
        ? Buffer.from(entry.auth, 'base64').toString('utf8').split(':')
        : [entry.username, entry.password ?? ''];
      found.push({ length: normal.length, credential: { username, password: rest.join(':') } });
    }
  }
  return found.sort((a, b) => b.length - a.length).map((f) => f.credential);
}

/** A secret that cannot be read helps nobody and harms nobody: the pull says what the registry answered. */
function authsOf(secret: Secret): Record<string, AuthEntry> {
  const read = (key: string): unknown => {
    const text = secret.data?.[key];
    try {
      return text === undefined ? undefined : JSON.parse(Buffer.from(text, 'base64').toString('utf8'));
    } catch {
      return undefined;
    }
  };
  const config = read('.dockerconfigjson') as { auths?: Record<string, AuthEntry> } | undefined;
  return config?.auths ?? (read('.dockercfg') as Record<string, AuthEntry> | undefined) ?? {};
}
