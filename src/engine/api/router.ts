import { FACTS } from '#spec/docker/facts.gen.ts';

/**
 * Which operation a request means. The paths are the API's own table; our calls stand beside them under `/estiba/v1`.
 */
export interface RouteMatch {
  id: string;
  params: Record<string, string>;
}

interface CompiledRoute {
  method: string;
  pattern: RegExp;
  names: string[];
  id: string;
}

export interface RouteRow {
  method: string;
  path: string;
  id: string;
}

/** Names of images and plugins hold slashes; container names and ids never do. */
const WIDE = /^(?:\/estiba\/v1)?\/(images|distribution|plugins)\//;

export class Router {
  /** By the first word of their paths: of hundred routes a handful is left to try. */
  readonly #routes = new Map<string, CompiledRoute[]>();

  constructor(extra: readonly RouteRow[] = []) {
    // Fixed words win over parameters (`/images/json` over `/images/{name}`), so the more literal path stands first.
    const rows = [...FACTS.routes, ...extra].map((row) => ({ word: firstWord(row.path), route: compile(row) }));
    rows.sort((a, b) => literalLength(b.route) - literalLength(a.route));
    for (const { word, route } of rows) this.#routes.set(word, [...(this.#routes.get(word) ?? []), route]);
  }

  /** `undefined`: no such path; `methods`: the path exists for these only. */
  match(method: string, path: string): RouteMatch | { methods: string[] } | undefined {
    const methods: string[] = [];
    for (const route of this.#routes.get(firstWord(path)) ?? []) {
      const found = route.pattern.exec(path);
      if (!found) continue;
      if (route.method !== method) {
        methods.push(route.method);
        continue;
      }
      const values = route.names.map((name, i): [string, string] => [name, decode(found[i + 1] ?? '')]);
      return { id: route.id, params: Object.fromEntries(values) };
    }
    return methods.length > 0 ? { methods } : undefined;
  }
}

function firstWord(path: string): string {
  const end = path.indexOf('/', 1);
  return end < 0 ? path : path.slice(0, end);
}

function compile(row: RouteRow): CompiledRoute {
  const names: string[] = [];
  const segment = WIDE.test(row.path) ? '(.+)' : '([^/]+)';
  const source = row.path.replace(/[.*+?^$()|[\]\\]/g, '\\$&').replace(/\{(\w+)\}/g, (_, name: string) => {
    names.push(name);
    return segment;
  });
  return { method: row.method, pattern: new RegExp(`^${source}$`), names, id: row.id };
}

function literalLength(route: CompiledRoute): number {
  return route.pattern.source.replaceAll('(.+)', '').replaceAll('([^/]+)', '').length;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a bare `%`: no such name exists, and the answer says so with the text as it came
  }
}
