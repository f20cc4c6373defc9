import type { IngressEntry, PathRule } from '#cluster/ingress/model.ts';

/** A rule with what decides between two of them. */
export interface Match {
  rule: PathRule;
  /** `namespace/name` of the Ingress, for logs and pages. */
  ingress: string;
}

interface Candidate extends Match {
  createdAtMs: number;
  segments: readonly string[];
}

/**
 * Which backend a request goes to. Pure. The host decides first (a full name before a wildcard before none), then the longer
 * path, then Exact before Prefix, then the older Ingress.
 */
export class Routes {
  readonly #exactHosts = new Map<string, Candidate[]>();
  readonly #wildcards = new Map<string, Candidate[]>();
  readonly #anyHost: Candidate[] = [];
  readonly #default: { backend: string; ingress: string } | undefined;

  constructor(ingresses: readonly IngressEntry[]) {
    const byAge = [...ingresses].sort((a, b) => a.createdAtMs - b.createdAtMs || (nameOf(a) < nameOf(b) ? -1 : 1));
    for (const entry of byAge) {
      for (const rule of entry.rules) {
        const candidate = {
          rule,
          ingress: nameOf(entry),
          createdAtMs: entry.createdAtMs,
          segments: segmentsOf(rule.path),
        };
        this.#listFor(rule.host.toLowerCase()).push(candidate);
      }
    }
    for (const list of [...this.#exactHosts.values(), ...this.#wildcards.values(), this.#anyHost]) list.sort(before);
    const first = byAge.find((entry) => entry.defaultBackend !== undefined);
    this.#default =
      first?.defaultBackend === undefined ? undefined : { backend: first.defaultBackend, ingress: nameOf(first) };
  }

  /** `host` without a port; `path` without a query, as it came. */
  find(host: string, path: string): { backend: string; ingress: string } | undefined {
    const name = host.toLowerCase().replace(/\.$/, '');
    const segments = segmentsOf(path);
    const lists = [this.#exactHosts.get(name), this.#wildcards.get(name.slice(name.indexOf('.') + 1)), this.#anyHost];
    for (const list of lists) {
      const found = list?.find((candidate) => fits(candidate, path, segments));
      if (found) return { backend: found.rule.backend, ingress: found.ingress };
    }
    return this.#default;
  }

  #listFor(host: string): Candidate[] {
    if (host === '') return this.#anyHost;
    const map = host.startsWith('*.') ? this.#wildcards : this.#exactHosts;
    const name = host.startsWith('*.') ? host.slice(2) : host;
    const list = map.get(name) ?? [];
    map.set(name, list);
    return list;
  }
}

function nameOf(entry: IngressEntry): string {
  return `${entry.namespace}/${entry.name}`;
}

function before(a: Candidate, b: Candidate): number {
  const exact = (c: Candidate): number => (c.rule.type === 'Exact' ? 1 : 0);
  return b.segments.length - a.segments.length || exact(b) - exact(a) || a.createdAtMs - b.createdAtMs;
}

/** Prefixes are compared element by element; a slash at the end does not count. */
function fits({ rule, segments }: Candidate, path: string, asked: readonly string[]): boolean {
  if (rule.type === 'Exact') return rule.path === path;
  return segments.length <= asked.length && segments.every((segment, n) => segment === asked[n]);
}

function segmentsOf(path: string): string[] {
  const parts = path.split('/').slice(1);
  while (parts.at(-1) === '') parts.pop();
  return parts;
}
