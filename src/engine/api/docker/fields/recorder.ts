/**
 * An engine that only notes what it is asked: every call, with its arguments, on anything it has. What it answers is as empty, and
 * calls on that are noted too; a handler that cannot go on with such answers has said by then what it wants.
 */
export function recorder(): { engine: never; calls: string[] } {
  const calls: string[] = [];
  const empty = (path: string): unknown =>
    new Proxy(() => undefined, {
      get: (_, name) => (typeof name === 'symbol' || name === 'then' ? undefined : empty(`${path}.${name}`)),
      apply: (_, __, given: unknown[]) => {
        calls.push(`${path}(${JSON.stringify(given, plain)})`);
        return empty(`${path}()`);
      },
    });
  return { engine: empty('engine') as never, calls };
}

/** The request is kept word for word for inspect: that a field stands in there says nothing of its effect. */
function plain(key: string, value: unknown): unknown {
  if (key === 'request') return undefined;
  if (typeof value === 'bigint') return String(value);
  return value instanceof Map || value instanceof Set ? [...value] : value;
}
