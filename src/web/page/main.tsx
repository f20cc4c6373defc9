import { render } from 'preact';
import { App, LoggedOut } from './app.tsx';
import { Connection } from './connection.ts';
import { Context } from './context.ts';
import { Store } from './store.ts';

const KEY = 'estiba.key';

/** The key comes once, behind the address that the log-in leads to, and is kept where only this origin's scripts can read it. */
function takeKey(): string | null {
  const key = /^#key=([\w-]+)$/.exec(location.hash)?.[1];
  if (key !== undefined) {
    localStorage.setItem(KEY, key);
    history.replaceState(null, '', '/');
  }
  return localStorage.getItem(KEY);
}

function start(root: HTMLElement): void {
  const key = takeKey();
  if (key === null) {
    render(<LoggedOut />, root);
    return;
  }
  const connection = new Connection(key);
  const nonce = document.querySelector('script')?.nonce ?? '';
  const page = { connection, store: new Store(connection), nonce, complain: () => undefined };
  render(
    <Context.Provider value={page}>
      <App />
    </Context.Provider>,
    root,
  );
}

const root = document.getElementById('root');
if (root) start(root);
