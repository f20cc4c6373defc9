import { type Digest, isDigest } from '#spec/image/digest.ts';
import { ReferenceInvalid } from '#spec/image/errors.ts';

/**
 * What an image is called, by Docker's naming rules, with nothing left implicit:
 *
 *     web:1.2                       docker.io / library/web : 1.2
 *     team/web                      docker.io / team/web
 *     localhost/web                 localhost / web
 *     reg.example:5000/a/b@sha256:… reg.example:5000 / a/b @ sha256:…
 */
export interface Reference {
  /** Host with optional port, as written, lower case; `docker.io` when the text names none. */
  registry: string;
  repository: string;
  tag?: string;
  digest?: Digest;
}

export const DEFAULT_REGISTRY = 'docker.io';
export const DEFAULT_TAG = 'latest';
const REPOSITORY_MAX_LENGTH = 255;

const PATH = /^[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*$/;
const TAG = /^\w[\w.-]{0,127}$/;
const HOST =
  /^(?:\[[0-9a-fA-F:.]{2,45}\]|[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*)(?::(\d{1,5}))?$/;

/** As written by a user; neither tag nor digest is made up (see `withDefaultTag`). */
export function parseReference(text: string): Reference {
  if (text === '') throw new ReferenceInvalid({ text, rule: 'it is empty' });
  if (/^[a-f0-9]{64}$/.test(text)) throw new ReferenceInvalid({ text, rule: '64 hex digits are an id, not a name' });
  const { rest, digest } = cutDigest(text);
  const { name, tag } = cutTag(rest, text);
  const { registry, path } = cutRegistry(name);
  checkRegistry(registry, text);
  const repository = registry === DEFAULT_REGISTRY && !path.includes('/') ? `library/${path}` : path;
  checkRepository(repository, text);
  return { registry, repository, ...(tag === undefined ? {} : { tag }), ...(digest === undefined ? {} : { digest }) };
}

/** Like `docker pull web`: a name with neither tag nor digest means `latest`. */
export function withDefaultTag(reference: Reference): Reference {
  return reference.tag === undefined && reference.digest === undefined ? { ...reference, tag: DEFAULT_TAG } : reference;
}

export function isRepository(path: string): boolean {
  return path.length <= REPOSITORY_MAX_LENGTH && PATH.test(path);
}

export function isTag(tag: string): boolean {
  return TAG.test(tag);
}

/** `registry/repository`, with nothing left out. */
export function nameOf(reference: Reference): string {
  return `${reference.registry}/${reference.repository}`;
}

/** The whole reference, with nothing left out: what the store is keyed by. */
export function formatReference(reference: Reference): string {
  return nameOf(reference) + suffixOf(reference);
}

/** As `docker images` writes it: without `docker.io` and `library`. */
export function familiarReference(reference: Reference): string {
  return familiarName(reference) + suffixOf(reference);
}

export function familiarName(reference: Reference): string {
  if (reference.registry !== DEFAULT_REGISTRY) return nameOf(reference);
  const short = reference.repository.replace(/^library\/(?=[^/]+$)/, '');
  // docker.io/a.b/c may exist, but `a.b/c` alone would name the registry a.b.
  return cutRegistry(short).registry === DEFAULT_REGISTRY ? short : nameOf(reference);
}

function suffixOf({ tag, digest }: Reference): string {
  return (tag === undefined ? '' : `:${tag}`) + (digest === undefined ? '' : `@${digest}`);
}

function cutDigest(text: string): { rest: string; digest?: Digest } {
  const at = text.indexOf('@');
  if (at < 0) return { rest: text };
  const digest = text.slice(at + 1);
  if (!isDigest(digest)) throw new ReferenceInvalid({ text, rule: 'what follows @ is not a digest' });
  return { rest: text.slice(0, at), digest };
}

function cutTag(rest: string, text: string): { name: string; tag?: string } {
  // A colon before the last slash belongs to the registry's port.
  const colon = rest.indexOf(':', rest.lastIndexOf('/') + 1);
  if (colon < 0) return { name: rest };
  const tag = rest.slice(colon + 1);
  if (!isTag(tag)) throw new ReferenceInvalid({ text, rule: `${JSON.stringify(tag.slice(0, 130))} is not a tag` });
  return { name: rest.slice(0, colon), tag };
}

/** The first part is a registry if it could not be a path: it has a dot, a port or an upper-case letter, or is `localhost`. */
function cutRegistry(name: string): { registry: string; path: string } {
  const slash = name.indexOf('/');
  const first = name.slice(0, Math.max(slash, 0));
  const isRegistry = slash > 0 && (/[.:[]/.test(first) || first === 'localhost' || first !== first.toLowerCase());
  if (!isRegistry) return { registry: DEFAULT_REGISTRY, path: name };
  const path = name.slice(slash + 1);
  const registry = first.toLowerCase();
  return {
    registry: registry === 'index.docker.io' || registry === 'registry-1.docker.io' ? DEFAULT_REGISTRY : registry,
    path,
  };
}

function checkRegistry(registry: string, text: string): void {
  const match = HOST.exec(registry);
  if (!match || registry.length > 255 + 6)
    throw new ReferenceInvalid({ text, rule: `${JSON.stringify(registry.slice(0, 100))} is not a host name` });
  const port = match[1];
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65_535))
    throw new ReferenceInvalid({ text, rule: `port ${port} is out of range` });
}

function checkRepository(repository: string, text: string): void {
  if (repository.length > REPOSITORY_MAX_LENGTH)
    throw new ReferenceInvalid({ text, rule: `the path is longer than ${REPOSITORY_MAX_LENGTH} characters` });
  if (PATH.test(repository)) return;
  const rule =
    repository !== repository.toLowerCase()
      ? 'repository name must be lowercase'
      : 'the path has a part that no repository can have';
  throw new ReferenceInvalid({ text, rule });
}
