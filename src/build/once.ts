/**
 * Work that several wait for is done once. Its failure goes to each of them; when nobody waits any more (the build has failed
 * elsewhere, and that is what is told) it goes to nobody, and must not end the process as an unhandled rejection.
 */
export function once<K, T>(known: Map<K, Promise<T>>, key: K, start: () => Promise<T>): Promise<T> {
  const running = known.get(key) ?? start();
  known.set(key, running);
  running.catch(() => undefined); // see above: a mark that it is handled; `running` itself still rejects
  return running;
}
