import { useEffect, useState } from 'preact/hooks';
import { ContainerPage } from './container.tsx';
import { useLinkState, usePage, useShown } from './context.ts';
import { ContainersPage, EventsPage, PodsPage } from './lists.tsx';
import { AppPage, OverviewPage } from './overview.tsx';
import { Empty } from './parts.tsx';
import { PodPage } from './pod.tsx';
import { hrefOf, useRoute } from './route.ts';

const NAVIGATION = [
  ['', 'Overview'],
  ['containers', 'Containers'],
  ['pods', 'Pods'],
  ['events', 'Events'],
] as const;

export function App() {
  const route = useRoute();
  const state = useLinkState();
  const { connection } = usePage();
  const { containers, pods } = useShown();
  const [place = ''] = route;
  const counts: Record<string, number> = {
    containers: containers.filter((c) => c.phase === 'running').length,
    pods: pods.length,
  };
  // Another place begins at its top.
  useEffect(() => scrollTo(0, 0), [route.join('/')]);
  if (state === 'out') return <LoggedOut />;
  const leave = (): void => {
    void connection.call('POST', '/api/logout').finally(() => location.reload());
  };
  return (
    <>
      <button type="button" class="skip" onClick={() => document.getElementById('main')?.focus()}>
        To the content
      </button>
      <header class="side">
        <a class="brand" href={hrefOf()}>
          <Mark /> Estiba
        </a>
        <nav aria-label="Main">
          {NAVIGATION.map(([name, title]) => (
            <a
              key={name}
              href={hrefOf(...(name === '' ? [] : [name]))}
              aria-current={isAt(name, place) ? 'page' : undefined}
            >
              {title}
              {counts[name] !== undefined && counts[name] > 0 && <span class="count">{counts[name]}</span>}
            </a>
          ))}
        </nav>
        <button type="button" class="quiet" onClick={leave}>
          Log out
        </button>
      </header>
      <main id="main" tabIndex={-1}>
        {state === 'lost' && (
          <p class="alert" role="status">
            The daemon does not answer. What you see is from before; this page goes on by itself when it is back.
          </p>
        )}
        <Place route={route} />
      </main>
      <Complaint />
    </>
  );
}

function isAt(name: string, place: string): boolean {
  return name === place || (name === '' && place === 'apps');
}

function Place({ route }: { route: readonly string[] }) {
  const [place, first, second] = route;
  if (place === undefined) return <OverviewPage />;
  if (place === 'apps' && first !== undefined) return <AppPage name={first} />;
  if (place === 'containers')
    return first === undefined ? (
      <ContainersPage />
    ) : (
      <ContainerPage key={first} id={first} tab={second ?? 'figures'} />
    );
  if (place === 'pods')
    return first === undefined || second === undefined ? <PodsPage /> : <PodPage namespace={first} name={second} />;
  if (place === 'events') return <EventsPage />;
  return (
    <Empty title="There is nothing here">
      <a href={hrefOf()}>Overview</a>
    </Empty>
  );
}

const COMPLAINT_MS = 12_000;

/** What went wrong with the last thing that was asked for; goes by itself. */
function Complaint() {
  const page = usePage();
  const [words, setWords] = useState('');
  useEffect(() => {
    page.complain = setWords;
  }, [page]);
  useEffect(() => {
    if (words === '') return undefined;
    const timer = setTimeout(() => setWords(''), COMPLAINT_MS);
    return () => clearTimeout(timer);
  }, [words]);
  return (
    <div class="complaint" role="alert" hidden={words === ''}>
      <span>{words}</span>
      <button type="button" class="quiet" onClick={() => setWords('')}>
        Close
      </button>
    </div>
  );
}

export function LoggedOut() {
  return (
    <main class="out">
      <Mark />
      <h1>You are not logged in</h1>
      <p>
        Run <code>estiba ui</code> on the machine and open the link it prints. A link is good once, for a minute; a
        log-in for twelve hours, or until the daemon starts again.
      </p>
    </main>
  );
}

/** Crates, stowed: that is what the word means. */
export function Mark() {
  return (
    <svg class="mark" width="22" height="22" viewBox="0 0 22 22" aria-hidden="true">
      <rect x="1" y="11" width="9" height="9" rx="1.5" />
      <rect x="12" y="11" width="9" height="9" rx="1.5" />
      <rect x="6.5" y="1" width="9" height="8.5" rx="1.5" class="top" />
    </svg>
  );
}
