import { isIP } from 'node:net';
import { defineError, messageOf } from '#base/errors.ts';
import { array, boolean, type Out, object, optional, record, refine, string } from '#base/shape.ts';
import { inRange } from '#registry/client/proxy.ts';
import { DEFAULT_REGISTRY, formatReference, nameOf, parseReference, type Reference } from '#spec/image/reference.ts';

/**
 * Where names lead, in one file (`registries.yaml`) for docker, kubectl and builds alike:
 *
 *     default: registry.corp/hub            # what `debian` and `team/web` mean; docker.io unless said
 *     aliases:
 *       web: registry.corp/team/web         # a whole first name, tags stay
 *     registries:
 *       docker.io: { mirrors: [http://127.0.0.1:5000, mirror.corp/dockerhub] }
 *       ghcr.io: { mirrors: [mirror.corp/ghcr], only: mirrors }
 *     insecure: [registry.local:5000, 10.0.0.0/8]
 *     rules:                                # the first that fits decides; with none fitting, allowed
 *       - { deny: docker.io/library/evil, because: it is }
 *       - { allow: docker.io/** }
 *       - { deny: "**" }
 *
 * Docker's own words are understood too: `--registry-mirror` is a mirror of docker.io, `--insecure-registry` an entry of
 * `insecure`. Nothing here asks the network.
 */
const Registry = object(
  {
    mirrors: optional(array(string({ nonEmpty: true }), { max: 32 })),
    only: optional(string({ match: /^mirrors$/, says: 'is not "mirrors"' })),
  },
  { unknown: 'reject' },
);
const Rule = refine(
  object(
    {
      allow: optional(string({ nonEmpty: true })),
      deny: optional(string({ nonEmpty: true })),
      because: optional(string()),
    },
    { unknown: 'reject' },
  ),
  (rule) => ((rule.allow === undefined) === (rule.deny === undefined) ? 'needs either allow or deny' : undefined),
);
const File = object(
  {
    default: optional(string({ nonEmpty: true })),
    aliases: optional(record(string({ nonEmpty: true }))),
    registries: optional(record(Registry)),
    insecure: optional(array(string({ nonEmpty: true }), { max: 1000 })),
    rules: optional(array(Rule, { max: 1000 })),
    bootstrap: optional(boolean()),
  },
  { unknown: 'reject' },
);
export type ResolutionTable = Out<typeof File>;

/** One place to ask. Its repositories are called `prefix` + the image's repository. */
export interface Endpoint {
  /** Host with optional port that is connected to. */
  host: string;
  /** Tried in this order. */
  schemes: readonly ('https' | 'http')[];
  /** False: the certificate is not looked at. */
  verify: boolean;
  prefix: string;
  role: 'registry' | 'mirror';
  /** Under which name credentials are kept, where it is not `host`. */
  credentialHost?: string;
}

export interface Resolution {
  /** With alias and default registry applied: what the image is called from here on. */
  reference: Reference;
  /** Mirrors first. */
  endpoints: Endpoint[];
  /** Why it leads there, for `--explain`. */
  because: string[];
}

export const ReferenceDenied = defineError(
  'REFERENCE_DENIED',
  (d: { reference: string; rule: string; because?: string }) => ({
    message: `${d.reference} is denied by the rule "deny: ${d.rule}"${d.because ? ` (${d.because})` : ''}`,
    hint: 'rules stand in registries.yaml; the first that fits decides',
  }),
);

export const TableInvalid = defineError('RESOLUTION_TABLE_INVALID', (d: { path: string; why: string }) => ({
  message: `${d.path}: ${d.why}`,
}));

export async function parseTable(text: string, path: string): Promise<ResolutionTable> {
  const { parse: parseYaml } = await import('yaml'); // few nodes have such a table, and reading the parser takes 30 ms
  try {
    const table = File(parseYaml(text) ?? {}, '$');
    for (const entry of Object.values(table.registries ?? {}))
      for (const mirror of entry.mirrors ?? []) parseMirror(mirror);
    return table;
  } catch (cause) {
    throw new TableInvalid({ path, why: messageOf(cause) }, { cause });
  }
}

/** Docker's flags and `daemon.json` keys as a table; later entries add to earlier ones. */
export function withDockerFlags(
  table: ResolutionTable,
  flags: { registryMirrors?: readonly string[]; insecureRegistries?: readonly string[] },
): ResolutionTable {
  const hub = table.registries?.[DEFAULT_REGISTRY];
  const mirrors = [...(hub?.mirrors ?? []), ...(flags.registryMirrors ?? [])];
  return {
    ...table,
    ...(mirrors.length > 0 ? { registries: { ...table.registries, [DEFAULT_REGISTRY]: { ...hub, mirrors } } } : {}),
    insecure: [...(table.insecure ?? []), ...(flags.insecureRegistries ?? [])],
  };
}

/** What a user's word for an image means and where to ask for it. Refuses REFERENCE_INVALID and REFERENCE_DENIED. */
export function resolveName(text: string, table: ResolutionTable): Resolution {
  const because: string[] = [];
  const named = applyAlias(text, table, because);
  const reference = applyDefault(named, table, because);
  return resolveReference(reference, table, because);
}

/** Like `resolveName` for a reference that is complete: stored names are not subject to aliases again. */
export function resolveReference(reference: Reference, table: ResolutionTable, because: string[] = []): Resolution {
  checkRules(reference, table);
  const entry = table.registries?.[reference.registry];
  const mirrors = (entry?.mirrors ?? []).map((text) => mirrorEndpoint(text, table));
  if (mirrors.length > 0)
    because.push(`${reference.registry} has ${mirrors.length === 1 ? 'a mirror' : `${mirrors.length} mirrors`}`);
  const own = entry?.only === 'mirrors' && mirrors.length > 0 ? [] : [endpointOf(reference.registry, table)];
  return { reference, endpoints: [...mirrors, ...own], because };
}

/** Docker Hub's API does not live at the host it is called by. */
export function endpointOf(registry: string, table: ResolutionTable): Endpoint {
  const host = registry === DEFAULT_REGISTRY ? 'registry-1.docker.io' : registry;
  const own = registry === DEFAULT_REGISTRY ? { credentialHost: DEFAULT_REGISTRY } : {};
  return { host, ...security(registry, table), prefix: '', role: 'registry', ...own };
}

/** Docker takes 127.0.0.0/8, ::1 and localhost for insecure without being told: nobody has certificates for them. */
export function isInsecure(registry: string, table: ResolutionTable): boolean {
  const host = registry.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
  if (host === 'localhost' || inRange(host, '127.0.0.0', 8) || host === '::1') return true;
  return (table.insecure ?? []).some((text) => {
    const entry = text
      .replace(/^https?:\/\//, '')
      .replace(/\/$/, '')
      .toLowerCase();
    const range = /^(.+)\/(\d{1,3})$/.exec(entry);
    if (range && isIP(range[1] ?? '')) return inRange(host, range[1] ?? '', Number(range[2]));
    // An entry without a port means every port of that host.
    return entry === registry || (!/:\d+$/.test(entry) && entry === host);
  });
}

function security(registry: string, table: ResolutionTable): Pick<Endpoint, 'schemes' | 'verify'> {
  return isInsecure(registry, table)
    ? { schemes: ['https', 'http'], verify: false }
    : { schemes: ['https'], verify: true };
}

function mirrorEndpoint(text: string, table: ResolutionTable): Endpoint {
  const { scheme, host, prefix } = parseMirror(text);
  const secure = security(host, table);
  // A mirror written with http:// was meant so, as with --registry-mirror.
  return {
    host,
    ...secure,
    ...(scheme === 'http' ? { schemes: ['http'] as const, verify: false } : {}),
    prefix,
    role: 'mirror',
  };
}

function parseMirror(text: string): { scheme: string | undefined; host: string; prefix: string } {
  const match = /^(?:(https?):\/\/)?([^/\s?#@]+)(\/[^\s?#]*)?$/.exec(text);
  if (!match)
    throw new TableInvalid({ path: 'mirror', why: `${JSON.stringify(text)} is not [http[s]://]host[:port][/path]` });
  const [, scheme, host = '', path = ''] = match;
  const prefix = path.replace(/^\/+|\/+$/g, '');
  return { scheme, host: host.toLowerCase(), prefix: prefix === '' ? '' : `${prefix}/` };
}

/** An alias stands for a whole first name: `web` for `web`, `web:2` and `web@sha256:…`, not for `web/x`. */
function applyAlias(text: string, table: ResolutionTable, because: string[]): string {
  const [, name = text, rest = ''] = /^([^:@/]+)((?:[:@].*)?)$/.exec(text) ?? [];
  const target = Object.hasOwn(table.aliases ?? {}, name) ? table.aliases?.[name] : undefined;
  if (target === undefined) return text;
  because.push(`alias ${name} = ${target}`);
  const full = parseReference(target);
  return rest === '' ? formatReference(full) : nameOf(full) + rest;
}

/** A default registry takes the place of docker.io where the user named none; `docker.io/debian` stays what it says. */
function applyDefault(text: string, table: ResolutionTable, because: string[]): Reference {
  const reference = parseReference(text);
  const explicit = /^(?:index\.|registry-1\.)?docker\.io\//i.test(text);
  if (!table.default || explicit || reference.registry !== DEFAULT_REGISTRY) return reference;
  const [registry = '', ...path] = table.default.split('/');
  // `library/` is Docker Hub's own folder: elsewhere `debian` is just debian.
  const short = reference.repository.replace(/^library\/(?=[^/]+$)/, '');
  because.push(`default registry ${table.default}`);
  return parseReference(formatReference({ ...reference, registry, repository: [...path, short].join('/') }));
}

function checkRules(reference: Reference, table: ResolutionTable): void {
  const name = nameOf(reference);
  const full = formatReference(reference);
  for (const rule of table.rules ?? []) {
    const pattern = rule.allow ?? rule.deny ?? '';
    if (!fits(pattern, name) && !fits(pattern, full)) continue;
    if (rule.deny !== undefined)
      throw new ReferenceDenied({ reference: full, rule: pattern, ...(rule.because ? { because: rule.because } : {}) });
    return;
  }
}

/** `*` is one part of a name, `**` any number of them. */
function fits(pattern: string, name: string): boolean {
  const source = pattern
    .split(/(\*\*|\*)/)
    .map((part) => (part === '**' ? '.*' : part === '*' ? '[^/]*' : part.replace(/[\\^$.|?+()[\]{}]/g, '\\$&')))
    .join('');
  return new RegExp(`^${source}$`).test(name);
}
