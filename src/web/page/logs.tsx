import { useEffect, useRef, useState } from 'preact/hooks';
import type { LogPut } from '#web/wire.ts';
import { usePage } from './context.ts';
import { plain } from './format.ts';
import { Empty, Loading } from './parts.tsx';

type Line = LogPut['lines'][number] & { n: number };

const LINES_MAX = 2_000;
/** So near the end counts as at the end. */
const NEAR_PX = 40;

/** A container's log, following while one looks at its end. `run` changes when the container starts again. */
export function Logs({ container, run }: { container: string; run: number }) {
  const { connection } = usePage();
  const [lines, setLines] = useState<Line[]>();
  const [end, setEnd] = useState<string>();
  const [wrap, setWrap] = useState(true);
  const [times, setTimes] = useState(false);
  const [wish, setWish] = useState('');
  const [following, setFollowing] = useState(true);
  const view = useRef<HTMLDivElement>(null);
  // Another run is another log.
  useEffect(() => {
    let n = 0;
    setLines(undefined);
    setEnd(undefined);
    const quiet = setTimeout(() => setLines((known) => known ?? []), 700);
    const stream = connection.open(
      { kind: 'logs', container },
      {
        put: (item) => {
          const fresh = (item as LogPut).lines.map((line) => ({ ...line, text: plain(line.text), n: n++ }));
          setLines((known = []) => [...known, ...fresh].slice(-LINES_MAX));
        },
        ended: ({ words, hint }) => {
          setLines((known) => known ?? []);
          setEnd([words, hint].filter((t) => t).join('. '));
        },
      },
    );
    return () => {
      clearTimeout(quiet);
      stream.close();
    };
  }, [connection, container, run]);
  // Each new line moves the end.
  useEffect(() => {
    if (following) view.current?.scrollTo({ top: view.current.scrollHeight });
  }, [lines, following, wrap, times]);
  const onScroll = (): void => {
    const el = view.current;
    if (el) setFollowing(el.scrollHeight - el.scrollTop - el.clientHeight < NEAR_PX);
  };
  const shown = (lines ?? []).filter((line) => wish === '' || line.text.toLowerCase().includes(wish.toLowerCase()));
  return (
    <section aria-label="Log">
      <div class="toolbar">
        <input
          type="search"
          placeholder="Lines that contain…"
          value={wish}
          onInput={(e) => setWish(e.currentTarget.value)}
          aria-label="Show only lines that contain"
        />
        <label>
          <input type="checkbox" checked={wrap} onChange={(e) => setWrap(e.currentTarget.checked)} /> Wrap
        </label>
        <label>
          <input type="checkbox" checked={times} onChange={(e) => setTimes(e.currentTarget.checked)} /> Times
        </label>
        <button type="button" disabled={following} onClick={() => setFollowing(true)}>
          {following ? 'Following' : 'Go to the end'}
        </button>
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, by keys as well */}
      <div ref={view} class={`log ${wrap ? 'wrap' : ''}`} onScroll={onScroll} tabIndex={0} role="log" aria-live="off">
        {lines === undefined && <Loading lines={6} />}
        {lines?.length === 0 && end === undefined && (
          <Empty title="It has said nothing yet">What it writes shows here as it comes.</Empty>
        )}
        {lines && lines.length > 0 && shown.length === 0 && <Empty title="No line contains that" />}
        {shown.map((line) => (
          <div key={line.n} class={line.error ? 'line error' : 'line'}>
            {times && <time>{line.at.slice(11, 23)} </time>}
            {line.text}
          </div>
        ))}
        {end !== undefined && <div class="line note">— {end} —</div>}
      </div>
    </section>
  );
}
