import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Health } from './apps.ts';
import { useFigure, usePage } from './context.ts';
import { bytes, percent } from './format.ts';

/** Small things that several pages show. */

const HEALTH_WORDS: Record<Health, string> = { good: 'well', busy: 'on its way', bad: 'needs a look', off: 'at rest' };

export function Dot({ health }: { health: Health }) {
  return <span class={`dot ${health}`} role="img" aria-label={HEALTH_WORDS[health]} title={HEALTH_WORDS[health]} />;
}

export function Badge({ health, children }: { health: Health; children: ComponentChildren }) {
  return <span class={`badge ${health}`}>{children}</span>;
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p class="empty-title">{title}</p>
      {children && <div class="muted">{children}</div>}
    </div>
  );
}

/** Holds the place of what comes, so that nothing jumps. */
export function Loading({ lines = 3 }: { lines?: number }) {
  return (
    <div class="loading" role="status" aria-label="Loading">
      {Array.from({ length: lines }, (_, i) => (
        <div key={i} class="bone" />
      ))}
    </div>
  );
}

const SPARK = { width: 72, height: 20, points: 30 };

/** The last minute of CPU, and the figure of now. */
export function Cpu({ id }: { id: string }) {
  const { series } = useFigure(id);
  const recent = series.cpu.slice(-SPARK.points);
  const last = recent.at(-1);
  return (
    <span class="figure">
      <Spark values={recent} />
      <span class="number">{last === undefined ? '–' : percent(last)}</span>
    </span>
  );
}

export function Memory({ id }: { id: string }) {
  const { figure } = useFigure(id);
  return <span class="number">{figure ? bytes(figure.memoryBytes) : '–'}</span>;
}

function Spark({ values }: { values: readonly number[] }) {
  const { width, height, points } = SPARK;
  const top = Math.max(5, ...values);
  const x = (i: number): number => ((points - values.length + i) / (points - 1)) * width;
  const y = (v: number): number => height - 1 - (v / top) * (height - 3);
  const line = values.map((v, i) => `${x(i).toFixed(1)},${y(v).toFixed(1)}`).join(' ');
  return (
    <svg class="spark" width={width} height={height} viewBox={`0 0 ${width} ${height}`} aria-hidden="true">
      {values.length > 1 && <polyline points={line} />}
    </svg>
  );
}

export interface Deed {
  label: string;
  /** What is asked before; absent: it is done at once. */
  ask?: { title: string; words: string };
  danger?: boolean;
  path: string;
  /** Where to be when it is done. */
  leadsTo?: string;
}

/** Buttons that do something: each asks first where something ends, and shows that it is under way. */
export function Deeds({ deeds }: { deeds: readonly Deed[] }) {
  const { connection, complain } = usePage();
  const [asked, setAsked] = useState<Deed>();
  const [busy, setBusy] = useState<string>();
  const run = async (deed: Deed): Promise<void> => {
    setAsked(undefined);
    setBusy(deed.label);
    try {
      await connection.call('POST', deed.path);
      if (deed.leadsTo !== undefined) location.hash = deed.leadsTo;
    } catch (error) {
      complain(`${deed.label}: ${error instanceof Error ? error.message : String(error)}`);
    }
    setBusy(undefined);
  };
  return (
    <div class="deeds">
      {deeds.map((deed) => (
        <button
          key={deed.label}
          type="button"
          class={deed.danger ? 'danger' : ''}
          disabled={busy !== undefined}
          aria-busy={busy === deed.label}
          onClick={() => (deed.ask ? setAsked(deed) : void run(deed))}
        >
          {deed.label}
          {busy === deed.label && '…'}
        </button>
      ))}
      {asked?.ask && (
        <Confirm
          title={asked.ask.title}
          words={asked.ask.words}
          yes={asked.label}
          danger={asked.danger ?? false}
          onYes={() => void run(asked)}
          onNo={() => setAsked(undefined)}
        />
      )}
    </div>
  );
}

interface Question {
  title: string;
  words: string;
  yes: string;
  danger: boolean;
  onYes: () => void;
  onNo: () => void;
}

function Confirm({ title, words, yes, danger, onYes, onNo }: Question) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} onClose={onNo} aria-labelledby="question">
      <h2 id="question">{title}</h2>
      <p>{words}</p>
      <div class="deeds end">
        <button type="button" onClick={onNo}>
          Leave it
        </button>
        <button type="button" class={danger ? 'danger solid' : 'solid'} onClick={onYes}>
          {yes}
        </button>
      </div>
    </dialog>
  );
}

/** A name that somebody else chose: letters of another direction stay inside. */
export function Name({ children }: { children: string }) {
  return <bdi class="name">{children}</bdi>;
}
