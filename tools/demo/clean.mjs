/**
 * `make demo-clean`: what `make demo` brought goes, and what is left on the host is looked for and shown: nothing.
 *
 *     apps down → containers away → daemon, edge, helpers end → mounts → links, tables, cgroups → directories → the audit
 */
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { daemonPid, ensureDaemon, stopDaemon } from './daemon.mjs';
import { cgroups, links, mounts, ours, tables, takeVolatile } from './host.mjs';
import { ask, DAEMON_LOG, ESTIBA, MEDIAWIKI, NAME, ROOT, RUN_ROOT, TREE, WORDPRESS } from './place.mjs';

/** Of the examples, where it was a demo that made them: other daemons under other names did not. */
const SECRETS =
  NAME === 'demo' || existsSync(DAEMON_LOG)
    ? [`${TREE}/examples/wordpress/secrets`, `${TREE}/examples/mediawiki/manifests/secrets`]
    : [];
const say = (text) => process.stdout.write(`${text}\n`);

if (existsSync(ROOT) && existsSync(ESTIBA)) await takeDown();
await takeVolatile();
for (const path of [ROOT, RUN_ROOT, ...SECRETS]) await rm(path, { recursive: true, force: true });
process.exitCode = await audit();

/** By the daemon itself, as a user would; what it cannot do any more is done below. */
async function takeDown() {
  try {
    if ((await daemonPid()) === undefined) await ensureDaemon(() => {});
    for (const { app } of [WORDPRESS, MEDIAWIKI]) {
      const { length } = (await ask(ESTIBA, ['app', 'ls'])).split('\n').filter((line) => line.startsWith(`${app} `));
      if (length > 0) say((await ask(ESTIBA, ['down', '--volumes', app])).trim());
    }
    const ids = (await ask(ESTIBA, ['ps', '--all', '--quiet'])).split('\n').filter((id) => id !== '');
    if (ids.length > 0) await ask(ESTIBA, ['rm', '--force', '--volumes', ...ids]);
    await stopDaemon();
  } catch (error) {
    say(`the daemon could not do it all (${error.message}); the rest goes by hand`);
  }
}

async function audit() {
  const left = {
    processes: await ours(),
    mounts: await mounts(),
    links: await links(),
    'nftables tables': await tables(),
    cgroups: await cgroups(),
    directories: [ROOT, RUN_ROOT].filter((path) => existsSync(path)),
  };
  say(`left of ${NAME} on this host:`);
  for (const [what, found] of Object.entries(left))
    say(`  ${what.padEnd(16)} ${found.length === 0 ? 'none' : found.join(', ')}`);
  return Object.values(left).every((found) => found.length === 0) ? 0 : 1;
}
