import type { PodRow } from '#web/wire.ts';
import { containersOfPod, podHealth } from './apps.ts';
import { useNow, useShown } from './context.ts';
import { span } from './format.ts';
import { EventList } from './lists.tsx';
import { Badge, Cpu, Deeds, Empty, Loading, Memory, Name } from './parts.tsx';
import { hrefOf } from './route.ts';

export function PodPage({ namespace, name }: { namespace: string; name: string }) {
  const { loaded, pods, events } = useShown();
  const nowMs = useNow();
  const pod = pods.find((p) => p.namespace === namespace && p.name === name);
  if (!loaded) return <Loading lines={8} />;
  if (!pod)
    return (
      <Empty title="This pod is gone">
        <a href={hrefOf('pods')}>All pods</a>
      </Empty>
    );
  const own = events.filter((e) => e.from === 'cluster' && e.kind === 'Pod' && e.name === pod.key);
  return (
    <>
      <p class="crumbs muted">
        <a href={hrefOf('pods')}>Pods</a> / <Name>{pod.namespace}</Name>
      </p>
      <div class="head">
        <h1>
          <Name>{pod.name}</Name> <Badge health={podHealth(pod)}>{pod.state}</Badge>
        </h1>
        <Deeds
          deeds={[
            {
              label: 'Delete',
              danger: true,
              path: `/api/pods/${encodeURIComponent(pod.namespace)}/${encodeURIComponent(pod.name)}/delete`,
              leadsTo: hrefOf('pods'),
              ask: {
                title: `Delete pod ${pod.name}?`,
                words: pod.owner
                  ? `Its containers end within their grace. ${pod.owner} makes another one in its place.`
                  : 'Its containers end within their grace. Nobody makes another one in its place.',
              },
            },
          ]}
        />
      </div>
      <p class="muted one-line">
        {pod.node === '' ? 'not placed on a node yet' : `on ${pod.node}`}
        {pod.ip !== '' && ` · ${pod.ip}`} · {span(nowMs - pod.createdAtMs)} old
        {pod.owner !== '' && ` · of ${pod.owner}`}
      </p>
      {pod.message !== '' && <p class="alert">{pod.message}</p>}
      <h2 class="section">Containers</h2>
      <PodContainers pod={pod} />
      <h2 class="section">Events</h2>
      {own.length === 0 ? <Empty title="No events are kept of it" /> : <EventList events={own} />}
    </>
  );
}

function PodContainers({ pod }: { pod: PodRow }) {
  const { containers } = useShown();
  const here = containersOfPod(pod, containers);
  return (
    <table class="rows">
      <thead>
        <tr>
          <th>Name</th>
          <th class="wide">Image</th>
          <th>State</th>
          <th class="right">Restarts</th>
          <th class="right">CPU</th>
          <th class="right">Memory</th>
        </tr>
      </thead>
      <tbody>
        {pod.containers.map((c) => {
          const own = here.get(c.name);
          return (
            <tr key={c.name}>
              <td class="main">
                {own ? (
                  <a href={hrefOf('containers', own.key)}>
                    <Name>{c.name}</Name>
                  </a>
                ) : (
                  <Name>{c.name}</Name>
                )}
                {c.init && <span class="muted sub">before the others</span>}
              </td>
              <td class="wide muted">
                <Name>{c.image}</Name>
              </td>
              <td>
                {c.state}
                {c.state === 'running' && !c.ready && ', not ready'}
              </td>
              <td class="right number">{c.restarts}</td>
              <td class="right">{own ? <Cpu id={own.key} /> : '–'}</td>
              <td class="right">{own ? <Memory id={own.key} /> : '–'}</td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}
