import { FitAddon } from '@xterm/addon-fit';
import { Terminal as Xterm } from '@xterm/xterm';
import { useEffect, useRef, useState } from 'preact/hooks';
import { usePage } from './context.ts';

const THEME = { background: '#10151c', foreground: '#d7dee7', cursor: '#7fb4ff', selectionBackground: '#33507a' };
const SCROLLBACK_LINES = 5_000;

/** A shell in the container. Leaving the page ends it. */
export function Terminal({ container }: { container: string }) {
  const { connection, nonce } = usePage();
  const holder = useRef<HTMLDivElement>(null);
  const [end, setEnd] = useState<string>();
  const [turn, setTurn] = useState(0);
  // Another turn is another shell.
  useEffect(() => {
    const element = holder.current;
    if (!element) return;
    setEnd(undefined);
    const xterm = new Xterm({
      theme: THEME,
      fontSize: 13,
      fontFamily: 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace',
      scrollback: SCROLLBACK_LINES,
      cursorBlink: true,
      // A program may write links that say one thing and lead to another.
      linkHandler: { activate: () => undefined },
    });
    const fit = new FitAddon();
    xterm.loadAddon(fit);
    withNonce(nonce, () => xterm.open(element));
    fit.fit();
    const stream = connection.open(
      { kind: 'terminal', container, rows: xterm.rows, columns: xterm.cols },
      {
        put: (text) => xterm.write(String(text)),
        ended: ({ words, hint }) => setEnd([words, hint].filter((t) => t).join('. ')),
      },
    );
    xterm.onData((text) => stream.input(text));
    xterm.onResize(({ rows, cols }) => stream.resize(rows, cols));
    const resized = new ResizeObserver(() => fit.fit());
    resized.observe(element);
    xterm.focus();
    return () => {
      resized.disconnect();
      stream.close();
      xterm.dispose();
    };
  }, [connection, container, nonce, turn]);
  return (
    <section aria-label="Terminal">
      <div class="shell" ref={holder} />
      <div class="shell-foot">
        <span class="muted" role="status">
          {end === undefined ? 'A shell of its own beside the program; it ends when you leave.' : `${end}.`}
        </span>
        {end !== undefined && (
          <button type="button" onClick={() => setTurn(turn + 1)}>
            Open another shell
          </button>
        )}
      </div>
    </section>
  );
}

/** xterm.js writes measures of its letters into `<style>` elements; the page's policy takes those that carry its nonce. */
function withNonce(nonce: string, open: () => void): void {
  const create = document.createElement;
  document.createElement = function createWithNonce(this: Document, name: string, options?: ElementCreationOptions) {
    const element = create.call(this, name, options);
    if (name === 'style') element.nonce = nonce;
    return element;
  } as typeof document.createElement;
  try {
    open();
  } finally {
    document.createElement = create;
  }
}
