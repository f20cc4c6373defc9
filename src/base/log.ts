/** Debug scopes: a type, so that a misspelt one does not compile. `DEBUG=runtime,cluster:sched` or `DEBUG=*`. */
export const SCOPES = [
  'kernel',
  'storage',
  'runtime',
  'shim',
  'network',
  'volume',
  'image',
  'registry',
  'engine',
  'build',
  'api',
  'cri',
  'cluster:api',
  'cluster:sched',
  'cluster:ctrl',
  'cluster:node',
  'cluster:proxy',
  'cluster:dns',
  'cluster:ingress',
  'up',
  'web',
  'app',
] as const;
export type Scope = (typeof SCOPES)[number];

export type Fields = Record<string, unknown>;

export interface Logger {
  /** One line per operation: inputs → result. Off costs one boolean test; pass a function for anything dear. */
  debug(what: string, fields?: Fields | (() => Fields)): void;
  info(what: string, fields?: Fields): void;
  warn(what: string, fields?: Fields): void;
  error(what: string, fields?: Fields): void;
}

export interface LogSink {
  write(line: string): void;
  now(): number;
}

export const stderrSink: LogSink = { write: (line) => process.stderr.write(line), now: () => Date.now() };
export const silentSink: LogSink = { write: () => undefined, now: () => 0 };

export function logger(
  scope: Scope,
  sink: LogSink = stderrSink,
  debugSpec: string = process.env['DEBUG'] ?? '',
): Logger {
  const debugging = isOn(scope, debugSpec);
  const put = (level: string, what: string, fields: Fields = {}): void => {
    sink.write(`${new Date(sink.now()).toISOString()} ${level} ${scope} ${what}${formatFields(fields)}\n`);
  };
  return {
    debug: (what, fields) => {
      if (debugging) put('debug', what, typeof fields === 'function' ? fields() : fields);
    },
    info: (what, fields) => put('info', what, fields),
    warn: (what, fields) => put('warn', what, fields),
    error: (what, fields) => put('error', what, fields),
  };
}

function isOn(scope: Scope, spec: string): boolean {
  return spec.split(',').some((s) => s === '*' || s === scope || (s !== '' && scope.startsWith(`${s}:`)));
}

function formatFields(fields: Fields): string {
  return Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(
      ([key, value]) =>
        ` ${key}=${typeof value === 'string' && /^[\w./:@-]+$/.test(value) ? value : JSON.stringify(value)}`,
    )
    .join('');
}
