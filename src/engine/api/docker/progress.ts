import { jsonLines, type Reply } from '#engine/api/reply.ts';
import { dockerProgress, type Progress } from '#engine/core/images.ts';

/**
 * A pull or push as lines while it goes on. The head waits for the first line or the failure: a name that no registry
 * knows is an answer with a status of its own, as Docker's clients expect it.
 */
export async function progressReply(
  doing: 'pull' | 'push',
  work: (onProgress: (event: Progress) => void, signal: AbortSignal) => Promise<void>,
): Promise<Reply> {
  const pending: object[] = [];
  const gone = new AbortController();
  let wake: () => void = () => undefined;
  let ended = false;
  const done = work((event) => {
    pending.push(...dockerProgress(event, doing));
    wake();
  }, gone.signal).finally(() => {
    ended = true;
    wake();
  });
  const settled = done.catch(() => undefined); // a mark that it is over; `done` itself is awaited below
  const news = (): Promise<void> =>
    new Promise((resolve) => {
      wake = resolve;
      if (ended || pending.length > 0) resolve();
    });
  await news();
  if (pending.length === 0) await done;
  return jsonLines(async (put, signal) => {
    signal.addEventListener('abort', () => gone.abort(signal.reason), { once: true });
    try {
      while (!ended || pending.length > 0) {
        for (let next = pending.shift(); next; next = pending.shift()) await put(next);
        await news();
      }
    } catch (error) {
      gone.abort(error); // nobody reads any more: what is half loaded is kept for the next try
      await settled;
      throw error;
    }
    await done;
  });
}
