import { useEffect, useRef, useState } from 'preact/hooks';
import type { ContainerRow, EventRow, PodRow } from '#web/wire.ts';
import { containerHealth, podHealth } from './apps.ts';
import { useNow, useShown } from './context.ts';
import { clockTime, dateTime, span } from './format.ts';
import { Cpu, Dot, Empty, Loading, Memory, Name } from './parts.tsx';
import { hrefOf } from './route.ts';

const ROWS_MAX = 500;

export function ContainersPage() {
  const { loaded, containers } = useShown();
  return (
    <Filtered
      title="Containers"
      loaded={loaded}
      rows={containers}
      text={(c) => `${c.name} ${c.image} ${c.app ?? ''} ${c.pod?.name ?? ''} ${c.pod?.namespace ?? ''} ${c.phase}`}
      empty={
        <Empty title="No containers yet">
          Start one with <code>docker run</code>, an app with <code>estiba up</code>: it shows here at once.
        </Empty>
      }
    >
      {(rows) => <ContainerTable containers={rows} />}
    </Filtered>
  );
}

export function PodsPage() {
  const { loaded, pods, machine } = useShown();
  const empty = machine?.cluster ? (
    <Empty title="No pods yet">
      <code>kubectl apply</code> or <code>estiba up</code> makes them.
    </Empty>
  ) : (
    <Empty title="This daemon serves no Kubernetes API">Containers of Docker and compose are under Containers.</Empty>
  );
  return (
    <Filtered
      title="Pods"
      loaded={loaded}
      rows={pods}
      text={(p) => `${p.key} ${p.app} ${p.state} ${p.node}`}
      empty={empty}
    >
      {(rows) => <PodTable pods={rows} />}
    </Filtered>
  );
}

export function EventsPage() {
  const { loaded, events } = useShown();
  const [warnings, setWarnings] = useState(false);
  return (
    <Filtered
      title="Events"
      loaded={loaded}
      rows={warnings ? events.filter((e) => e.warning) : events}
      text={(e) => `${e.kind} ${e.name} ${e.action} ${e.text}`}
      empty={
        <Empty title={warnings ? 'No warnings' : 'Nothing has happened yet'}>New ones show here as they come.</Empty>
      }
      tools={
        <label>
          <input type="checkbox" checked={warnings} onChange={(e) => setWarnings(e.currentTarget.checked)} /> Warnings
          alone
        </label>
      }
    >
      {(rows) => <EventList events={rows} />}
    </Filtered>
  );
}

interface FilteredProps<T> {
  title: string;
  loaded: boolean;
  rows: readonly T[];
  text: (row: T) => string;
  empty: preact.ComponentChildren;
  tools?: preact.ComponentChildren;
  children: (rows: readonly T[]) => preact.ComponentChildren;
}

/** A list under its title, with a field that narrows it down; `/` goes there. */
function Filtered<T>({ title, loaded, rows, text, empty, tools, children }: FilteredProps<T>) {
  const [wish, setWish] = useState('');
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      if (event.key !== '/' || event.target instanceof HTMLInputElement) return;
      event.preventDefault();
      field.current?.focus();
    };
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  }, []);
  const words = wish.toLowerCase().split(/\s+/);
  const found = rows.filter((row) => words.every((word) => text(row).toLowerCase().includes(word)));
  return (
    <>
      <div class="head">
        <h1>
          {title} <span class="count">{loaded ? rows.length : ''}</span>
        </h1>
        <div class="toolbar">
          {tools}
          <input
            ref={field}
            type="search"
            placeholder="Find… ( / )"
            aria-label={`Find in ${title}`}
            value={wish}
            onInput={(e) => setWish(e.currentTarget.value)}
          />
        </div>
      </div>
      {!loaded ? (
        <Loading lines={6} />
      ) : rows.length === 0 ? (
        empty
      ) : found.length === 0 ? (
        <Empty title="Nothing matches">
          <button type="button" onClick={() => setWish('')}>
            Show all
          </button>
        </Empty>
      ) : (
        <>
          {children(found.slice(0, ROWS_MAX))}
          {found.length > ROWS_MAX && (
            <p class="muted">
              The first {ROWS_MAX} of {found.length}: narrow it down.
            </p>
          )}
        </>
      )}
    </>
  );
}

export function ContainerTable({ containers }: { containers: readonly ContainerRow[] }) {
  const nowMs = useNow();
  return (
    <table class="rows">
      <thead>
        <tr>
          <th>Name</th>
          <th class="wide">Image</th>
          <th>State</th>
          <th class="right">CPU</th>
          <th class="right">Memory</th>
        </tr>
      </thead>
      <tbody>
        {containers.map((c) => (
          <tr key={c.key}>
            <td class="main">
              <span class="lead">
                <Dot health={containerHealth(c)} />
                <a href={hrefOf('containers', c.key)}>
                  <Name>{c.pod ? c.pod.container : c.name}</Name>
                </a>
              </span>
              {c.pod && (
                <span class="muted sub">
                  in pod <Name>{c.pod.name}</Name>
                </span>
              )}
              {!c.pod && c.app !== undefined && (
                <span class="muted sub">
                  of <Name>{c.app}</Name>
                </span>
              )}
            </td>
            <td class="wide muted">
              <Name>{c.image}</Name>
            </td>
            <td>{stateText(c, nowMs)}</td>
            <td class="right">
              <Cpu id={c.key} />
            </td>
            <td class="right">
              <Memory id={c.key} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function stateText(c: ContainerRow, nowMs: number): string {
  if (c.phase === 'running') {
    const health = c.health === undefined || c.health === 'healthy' ? '' : `, ${c.health}`;
    return `running ${span(nowMs - c.startedAtMs)}${health}`;
  }
  if (c.phase === 'exited')
    return `${c.oomKilled ? 'out of memory' : `exit code ${c.exitCode}`}, ${span(nowMs - c.finishedAtMs)} ago`;
  return c.phase;
}

export function PodTable({ pods }: { pods: readonly PodRow[] }) {
  const nowMs = useNow();
  return (
    <table class="rows">
      <thead>
        <tr>
          <th>Name</th>
          <th>State</th>
          <th class="right">Ready</th>
          <th class="right">Restarts</th>
          <th class="wide">Node</th>
          <th class="right wide">Age</th>
        </tr>
      </thead>
      <tbody>
        {pods.map((pod) => (
          <tr key={pod.key}>
            <td class="main">
              <span class="lead">
                <Dot health={podHealth(pod)} />
                <a href={hrefOf('pods', pod.namespace, pod.name)}>
                  <Name>{pod.name}</Name>
                </a>
              </span>
              <span class="muted sub">
                in <Name>{pod.namespace}</Name>
              </span>
            </td>
            <td>{pod.state}</td>
            <td class="right number">
              {pod.ready}/{pod.wanted}
            </td>
            <td class="right number">{pod.restarts}</td>
            <td class="wide muted">{pod.node || 'not placed yet'}</td>
            <td class="right wide number">{span(nowMs - pod.createdAtMs)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function EventList({ events }: { events: readonly EventRow[] }) {
  return (
    <ol class="events">
      {events.map((event) => (
        <li key={event.key} class={event.warning ? 'warning' : ''}>
          <time dateTime={new Date(event.atMs).toISOString()} title={dateTime(event.atMs)}>
            {clockTime(event.atMs)}
          </time>
          <div>
            <span class="event-what">
              {event.kind.toLowerCase()} <EventName event={event} />
            </span>{' '}
            <span class={event.warning ? 'badge bad' : 'badge'}>{event.action}</span>
            {event.count > 1 && <span class="muted"> {event.count} times</span>}
            {event.text !== '' && <div class="muted event-text">{event.text}</div>}
          </div>
        </li>
      ))}
    </ol>
  );
}

function EventName({ event }: { event: EventRow }) {
  const href = hrefOfEvent(event);
  return href === undefined ? (
    <Name>{event.name}</Name>
  ) : (
    <a href={href}>
      <Name>{event.name}</Name>
    </a>
  );
}

function hrefOfEvent({ container, from, kind, name }: EventRow): string | undefined {
  if (container !== undefined) return hrefOf('containers', container);
  return from === 'cluster' && kind === 'Pod' ? hrefOf('pods', ...name.split('/')) : undefined;
}
