import type { NodeRow } from '#web/wire.ts';
import { type AppRow, appsOf } from './apps.ts';
import { useFigure, useNow, usePage, useShown } from './context.ts';
import { bytes, percent, span } from './format.ts';
import { ContainerTable, EventList, PodTable } from './lists.tsx';
import { Badge, Dot, Empty, Loading, Name } from './parts.tsx';
import { Plot } from './plot.tsx';
import { hrefOf } from './route.ts';

const EVENTS_SHOWN = 8;

export function OverviewPage() {
  const { loaded, containers, pods, events } = useShown();
  const apps = appsOf(containers, pods);
  return (
    <>
      <div class="head">
        <h1>Overview</h1>
      </div>
      <Machine />
      <h2 class="section">Apps</h2>
      {!loaded ? (
        <Loading />
      ) : apps.length === 0 ? (
        <Empty title="Nothing runs here yet">
          <p>
            <code>docker run -d busybox sleep 1000</code> starts a container, <code>estiba up DIR</code> an app from a
            compose file, from manifests or from a Dockerfile.
          </p>
        </Empty>
      ) : (
        <div class="cards">
          {apps.map((app) => (
            <AppCard key={app.name} app={app} />
          ))}
        </div>
      )}
      <h2 class="section">
        Latest events <a href={hrefOf('events')}>all</a>
      </h2>
      {!loaded ? (
        <Loading />
      ) : events.length === 0 ? (
        <Empty title="Nothing has happened yet" />
      ) : (
        <EventList events={events.slice(0, EVENTS_SHOWN)} />
      )}
    </>
  );
}

function Machine() {
  const { loaded, machine, nodes } = useShown();
  const { store } = usePage();
  const { series } = useFigure('machine');
  const cpu = series.cpu.at(-1);
  const memory = store.latest?.machine.memoryBytes;
  if (!loaded || !machine) return <div class="card machine-place" />;
  const own =
    nodes.find((n) => n.name === machine.hostname.toLowerCase()) ?? (nodes.length === 1 ? nodes[0] : undefined);
  const others = nodes.filter((n) => n !== own);
  return (
    <section class="card" aria-label="Nodes">
      <div class="machine-head">
        <h2>
          <Name>{own?.name ?? machine.hostname}</Name>
        </h2>
        {own && <NodeBadge node={own} />}
        <span class="muted">
          {machine.cpus} CPUs · {bytes(machine.memoryBytes)} · Linux {machine.kernel} · Estiba {machine.version}
        </span>
      </div>
      <div class="plots">
        <Plot
          id="machine"
          of="cpu"
          title="CPU, 100 % is one core"
          value={cpu === undefined ? '–' : percent(Math.min(cpu, machine.cpus * 100))}
          limit={machine.cpus * 100}
        />
        <Plot
          id="machine"
          of="memory"
          title={`Memory, of ${bytes(machine.memoryBytes)}`}
          value={memory === undefined ? '–' : bytes(memory)}
          limit={machine.memoryBytes}
        />
      </div>
      {others.length > 0 && <NodeTable nodes={others} />}
    </section>
  );
}

function NodeBadge({ node }: { node: NodeRow }) {
  return (
    <span title={node.note}>
      <Badge health={!node.ready ? 'bad' : node.note === '' ? 'good' : 'busy'}>
        {!node.ready ? 'not ready' : node.note === '' ? 'ready' : node.note}
      </Badge>
    </span>
  );
}

function NodeTable({ nodes }: { nodes: readonly NodeRow[] }) {
  const nowMs = useNow();
  return (
    <table class="rows">
      <thead>
        <tr>
          <th>Other nodes</th>
          <th>State</th>
          <th class="wide">Address</th>
          <th class="right wide">CPUs</th>
          <th class="right">Memory</th>
          <th class="right wide">Age</th>
        </tr>
      </thead>
      <tbody>
        {nodes.map((node) => (
          <tr key={node.key}>
            <td class="main">
              <Name>{node.name}</Name>
            </td>
            <td>
              <NodeBadge node={node} />
            </td>
            <td class="wide number">{node.address}</td>
            <td class="right wide number">{node.cpus}</td>
            <td class="right number">{bytes(node.memoryBytes)}</td>
            <td class="right wide number">{span(nowMs - node.createdAtMs)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Figures of an app are those of its containers together. */
function useSum(app: AppRow): { cpu: number; memory: number } {
  const { store } = usePage();
  useFigure('machine'); // each look brings all figures
  const cpu = app.containers.reduce((sum, c) => sum + (store.series(c.key).cpu.at(-1) ?? 0), 0);
  const memory = app.containers.reduce((sum, c) => sum + (store.latest?.containers[c.key]?.memoryBytes ?? 0), 0);
  return { cpu, memory };
}

function AppCard({ app }: { app: AppRow }) {
  const { cpu, memory } = useSum(app);
  return (
    <a class="card app" href={hrefOf('apps', app.name)}>
      <div class="app-name">
        <Dot health={app.health} />
        <Name>{app.name}</Name>
      </div>
      <div class="muted">{app.wanted === 0 ? 'at rest' : `${app.ready} of ${app.wanted} ready`}</div>
      <div class="app-figures number">
        <span>{percent(cpu)}</span>
        <span>{bytes(memory)}</span>
      </div>
    </a>
  );
}

export function AppPage({ name }: { name: string }) {
  const { loaded, containers, pods } = useShown();
  const app = appsOf(containers, pods).find((a) => a.name === name);
  if (!loaded) return <Loading lines={6} />;
  if (!app)
    return (
      <Empty title="There is no such app (any more)">
        <a href={hrefOf()}>Overview</a>
      </Empty>
    );
  return (
    <>
      <div class="head">
        <h1>
          <Dot health={app.health} /> <Name>{app.name}</Name>{' '}
          <span class="count">{app.wanted === 0 ? 'at rest' : `${app.ready} of ${app.wanted} ready`}</span>
        </h1>
      </div>
      {app.pods.length > 0 && (
        <>
          <h2 class="section">Pods</h2>
          <PodTable pods={app.pods} />
        </>
      )}
      {app.containers.length > 0 && (
        <>
          <h2 class="section">Containers on this machine</h2>
          <ContainerTable containers={app.containers} />
        </>
      )}
    </>
  );
}
