import { createContext } from 'preact';
import { useContext, useEffect, useState } from 'preact/hooks';
import type { Figure } from '#web/wire.ts';
import type { Connection, LinkState } from './connection.ts';
import type { Series, Shown, Store } from './store.ts';

export interface PageContext {
  connection: Connection;
  store: Store;
  /** Style elements with it are let through by the page's policy. */
  nonce: string;
  /** Shows what went wrong with something that was asked for. */
  complain: (words: string) => void;
}

export const Context = createContext<PageContext | undefined>(undefined);

export function usePage(): PageContext {
  const page = useContext(Context);
  if (!page) throw new Error('a part of the page stands outside of it');
  return page;
}

export function useShown(): Shown {
  const { store } = usePage();
  const [shown, setShown] = useState(store.shown);
  useEffect(() => {
    setShown(store.shown);
    return store.watch('world', () => setShown(store.shown));
  }, [store]);
  return shown;
}

/** The latest figure of a container, and how it came there. */
export function useFigure(id: string): { figure: Figure | undefined; series: Series } {
  const { store } = usePage();
  const [, setAtMs] = useState(0);
  useEffect(() => store.watch('figures', () => setAtMs(store.latest?.atMs ?? 0)), [store]);
  return { figure: store.latest?.containers[id], series: store.series(id) };
}

export function useLinkState(): LinkState {
  const { connection } = usePage();
  const [state, setState] = useState(connection.state);
  useEffect(() => {
    setState(connection.state);
    return connection.onState(setState);
  }, [connection]);
  return state;
}

const NOW_EVERY_MS = 10_000;

/** The present, for ages: looked at now and then. */
export function useNow(): number {
  const [nowMs, setNowMs] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNowMs(Date.now()), NOW_EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  return nowMs;
}
