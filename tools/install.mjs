// What package-lock.json names, in node_modules: npm is asked only when something else lies there. npm's own list of what it installed
// is compared, by content: it is written when an install is whole, and no file's time can be wrong about it.
//   node tools/install.mjs [TREE]
import { spawnSync } from 'node:child_process';
import { lstatSync, readFileSync, realpathSync } from 'node:fs';
import { join, resolve } from 'node:path';

const TREE = resolve(process.argv[2] ?? join(import.meta.dirname, '..'));
const MODULES = join(TREE, 'node_modules');

if (!isInstalled()) {
  if (lstatSync(MODULES, { throwIfNoEntry: false })?.isSymbolicLink()) refuse();
  // npm's own pauses (10 s, then a minute) would keep two minutes from whoever has no network.
  const patience = ['--fetch-retry-mintimeout=2000', '--fetch-retry-maxtimeout=10000'];
  const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', ...patience];
  const { status, error } = spawnSync('npm', args, { cwd: TREE, stdio: 'inherit' });
  if (error) process.stderr.write(`npm: ${error.message}\n`);
  process.exitCode = status ?? 1;
}

/** Every package at the place and with the content that the lock file wants; those for other machines may be absent. */
function isInstalled() {
  const wanted = packagesIn(join(TREE, 'package-lock.json'));
  const present = packagesIn(join(MODULES, '.package-lock.json'));
  return Object.entries(wanted).every(([place, { version, integrity, optional }]) => {
    if (place === '') return true; // the tree itself
    const found = present[place];
    return found ? found.version === version && found.integrity === integrity : optional === true;
  });
}

function packagesIn(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8')).packages;
  } catch (error) {
    if (error.code === 'ENOENT') return {};
    throw error;
  }
}

/** `npm ci` empties the directory before it fills it: through a link that is somebody else's, at work. */
function refuse() {
  let target = '(nowhere)';
  try {
    target = realpathSync(MODULES);
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
  }
  process.stderr.write(
    `${MODULES} is a link to ${target}, and what lies there is not what package-lock.json names.\n` +
      'npm ci through the link would empty that directory for everybody who uses it. Either run `make setup` in the tree that it\n' +
      `belongs to, or give this tree packages of its own: rm ${MODULES} && make setup\n`,
  );
  process.exit(1);
}
