import { spawn } from 'node:child_process';
import type { Command, Io } from '#cli/verb.ts';

interface Link {
  url: string;
  expiresAtMs: number;
}

/** The link goes to standard output alone, so that a script can take it; what is said about it goes beside. */
export const uiCommand: Command = async ({ engine, flags, io }) => {
  const { url, expiresAtMs } = await engine.json<Link>({ method: 'POST', path: '/estiba/v1/ui-login' });
  io.stdout.write(`${url}\n`);
  const seconds = Math.max(0, Math.round((expiresAtMs - io.now()) / 1000));
  const opened = !flags.on('no-open') && (await openBrowser(url, io));
  const where = opened
    ? 'It opens in your browser.'
    : 'Open it in a browser on this machine, or through a tunnel (ssh -L).';
  io.stderr.write(`The link is good once, within ${seconds} seconds. ${where}\n`);
  return 0;
};

/** Where a person sits at a terminal with a display. Root's programs do not belong on somebody's desktop, unless root says which. */
async function openBrowser(url: string, io: Io): Promise<boolean> {
  const { env } = io;
  const wished = env['BROWSER'];
  const hasDisplay = Boolean(env['DISPLAY'] || env['WAYLAND_DISPLAY']) && process.getuid?.() !== 0;
  if (!io.stdout.isTTY || !(wished || hasDisplay)) return false;
  const child = spawn(wished ?? 'xdg-open', [url], { detached: true, stdio: 'ignore' });
  child.unref();
  return new Promise((resolve) => {
    child.once('spawn', () => resolve(true));
    child.once('error', () => resolve(false)); // there is no such program: the link is printed
  });
}
