import type { ContainerRow, Figure } from '#web/wire.ts';
import { containerHealth } from './apps.ts';
import { useFigure, useNow, useShown } from './context.ts';
import { bytes, dateTime, percent } from './format.ts';
import { EventList, stateText } from './lists.tsx';
import { Logs } from './logs.tsx';
import { Badge, type Deed, Deeds, Empty, Loading, Name } from './parts.tsx';
import { Plot } from './plot.tsx';
import { hrefOf } from './route.ts';
import { Terminal } from './terminal.tsx';
import { Xray } from './xray.tsx';

const TABS = [
  ['figures', 'Figures'],
  ['logs', 'Log'],
  ['terminal', 'Terminal'],
  ['xray', 'X-ray'],
] as const;

export function ContainerPage({ id, tab }: { id: string; tab: string }) {
  const { loaded, containers } = useShown();
  const nowMs = useNow();
  const container = containers.find((c) => c.key === id);
  if (!loaded) return <Loading lines={8} />;
  if (!container)
    return (
      <Empty title="This container is gone">
        <a href={hrefOf('containers')}>All containers</a>
      </Empty>
    );
  return (
    <>
      <p class="crumbs muted">
        <a href={hrefOf('containers')}>Containers</a>
        {container.pod && (
          <>
            {' / pod '}
            <a href={hrefOf('pods', container.pod.namespace, container.pod.name)}>
              <Name>{container.pod.name}</Name>
            </a>
          </>
        )}
      </p>
      <div class="head">
        <h1>
          <Name>{container.pod?.container ?? container.name}</Name>{' '}
          <Badge health={containerHealth(container)}>{stateText(container, nowMs)}</Badge>
        </h1>
        <Deeds deeds={deedsOf(container)} />
      </div>
      <p class="muted one-line">
        <Name>{container.image}</Name> · <code>{container.key.slice(0, 12)}</code>
      </p>
      {container.error !== '' && <p class="alert">{container.error}</p>}
      <nav class="tabs" aria-label="Of this container">
        {TABS.map(([name, title]) => (
          <a key={name} href={hrefOf('containers', id, name)} aria-current={name === tab ? 'page' : undefined}>
            {title}
          </a>
        ))}
      </nav>
      <Tab container={container} tab={tab} />
    </>
  );
}

function Tab({ container, tab }: { container: ContainerRow; tab: string }) {
  if (tab === 'logs') return <Logs container={container.key} run={container.startedAtMs} />;
  if (tab === 'xray') return <Xray container={container.key} run={container.startedAtMs} />;
  if (tab !== 'terminal') return <FiguresTab container={container} />;
  if (container.phase === 'running') return <Terminal key={container.startedAtMs} container={container.key} />;
  return <Empty title="It does not run">A terminal opens in a container that runs.</Empty>;
}

function FiguresTab({ container }: { container: ContainerRow }) {
  const { figure, series } = useFigure(container.key);
  const { events } = useShown();
  const own = events.filter((e) => e.container === container.key).slice(0, 10);
  const cpu = series.cpu.at(-1);
  const limit = figure?.memoryLimitBytes;
  return (
    <>
      {container.phase === 'running' || container.phase === 'paused' ? (
        <div class="plots">
          <div class="card">
            <Plot
              id={container.key}
              of="cpu"
              title="CPU, 100 % is one core"
              value={cpu === undefined ? '–' : percent(cpu)}
            />
          </div>
          <div class="card">
            <Plot
              id={container.key}
              of="memory"
              title={limit === undefined ? 'Memory' : `Memory, of ${bytes(limit)} it may have`}
              value={figure ? bytes(figure.memoryBytes) : '–'}
              {...(limit === undefined ? {} : { limit })}
            />
          </div>
        </div>
      ) : (
        <div class="card">
          <Empty title="It does not run">
            It uses no CPU and no memory; what it wrote is kept until it is removed.
          </Empty>
        </div>
      )}
      <Facts container={container} figure={figure} />
      {own.length > 0 && (
        <>
          <h2 class="section">Its latest events</h2>
          <EventList events={own} />
        </>
      )}
    </>
  );
}

function Facts({ container, figure }: { container: ContainerRow; figure: Figure | undefined }) {
  const labels = Object.entries(container.labels);
  const facts: [string, preact.ComponentChildren][] = [
    ['Command', <code key="c">{container.command}</code>],
    ['Made', dateTime(container.createdAtMs)],
    ...fact('Published', container.ports),
    ...fact('Networks', container.networks),
    ...fact(
      'Mounts',
      container.mounts.map((m) => `${m.target} ← ${m.source}${m.readOnly ? ', read-only' : ''}`),
    ),
    ...fact('Processes', figure ? [String(figure.processes)] : []),
    ...fact('Network', figure ? [`${bytes(figure.rxBytes)} in, ${bytes(figure.txBytes)} out`] : []),
    ...fact('Restarts by itself', container.restarts > 0 ? [String(container.restarts)] : []),
    ...fact(
      'Labels',
      labels.map(([name, value]) => `${name}=${value}`),
    ),
  ];
  return (
    <dl class="card facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function fact(name: string, values: readonly string[]): [string, preact.ComponentChildren][] {
  if (values.length === 0) return [];
  return [
    [
      name,
      values.map((value) => (
        <div key={value}>
          <bdi>{value}</bdi>
        </div>
      )),
    ],
  ];
}

function deedsOf(container: ContainerRow): Deed[] {
  const path = (action: string): string => `/api/containers/${encodeURIComponent(container.key)}/${action}`;
  const name = container.pod?.container ?? container.name;
  const again = container.pod ? ' Its pod will start another one.' : '';
  const runs = container.phase === 'running' || container.phase === 'paused' || container.phase === 'restarting';
  const restart = {
    label: 'Restart',
    path: path('restart'),
    ask: {
      title: `Restart ${name}?`,
      words: 'It is asked to end, killed when it does not within its grace, and started again.',
    },
  };
  const stop = {
    label: 'Stop',
    path: path('stop'),
    ask: { title: `Stop ${name}?`, words: `It is asked to end, and killed when it does not within its grace.${again}` },
  };
  const remove = {
    label: 'Remove',
    danger: true,
    path: path('remove'),
    leadsTo: hrefOf('containers'),
    ask: {
      title: `Remove ${name}?`,
      words: `${runs ? 'It is killed. ' : ''}What it wrote outside of volumes is gone for good; volumes stay.${again}`,
    },
  };
  // What a pod wants is its node's to see to: starting its containers by hand would be undone.
  if (container.pod) return runs ? [stop] : [];
  return runs ? [restart, stop, remove] : [{ label: 'Start', path: path('start') }, remove];
}
