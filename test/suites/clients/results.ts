import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { ApiServer } from '../room/engine.ts';
import type { Room } from '../room/room.ts';

/** What became of each case of somebody's suite, by name: `passed`, `skipped`, or why it failed. */
export type Results = ReadonlyMap<string, string>;

export const PASSED = 'passed';
export const SKIPPED = 'skipped';

const FILE_MS = 400_000;
const PYTEST_MS = 1_200_000;

export function passes(results: Results): number {
  return [...results.values()].filter((result) => result === PASSED).length;
}

export function failures(results: Results): Map<string, string> {
  return new Map([...results].filter(([, result]) => result !== PASSED && result !== SKIPPED));
}

/** mocha's files one by one, so that one that hangs does not take the others' results with it. */
export async function mocha(
  room: Room,
  server: ApiServer,
  checkout: string,
  files: readonly string[],
): Promise<Results> {
  const results = new Map<string, string>();
  for (const file of files) {
    const out = join(room.dir, `${basename(file)}.json`);
    const args = ['-R', 'json', '--reporter-option', `output=${out}`, '--exit', file];
    const ended = await room.runLong(join(checkout, 'node_modules/.bin/mocha'), args, {
      cwd: checkout,
      // The suite's DOCKER_SOCKET is broken by operator precedence: any value sends it to DOCKER_HOST.
      env: { DOCKER_SOCKET: 'x', DOCKER_HOST: `unix://${server.socket}`, HOME: room.dir },
      timeoutMs: FILE_MS,
    });
    if (!existsSync(out)) {
      results.set(`${file}: gives no result`, `${ended.out}${ended.err}`.slice(-1000));
      continue;
    }
    const report = JSON.parse(readFileSync(out, 'utf8')) as MochaReport;
    const pending = new Set(report.pending.map((t) => t.fullTitle));
    // A hook that fails is no test, and takes the tests after it with it.
    for (const test of [...report.tests, ...report.failures.filter((f) => f.fullTitle.includes(' hook '))]) {
      const failed = Object.keys(test.err).length > 0;
      const result = failed ? oneLine(test.err.message ?? 'failed') : pending.has(test.fullTitle) ? SKIPPED : PASSED;
      results.set(free(results, `${basename(file, '.js')}: ${test.fullTitle}`), result);
    }
  }
  return results;
}

interface MochaTest {
  fullTitle: string;
  err: { message?: string };
}

interface MochaReport {
  tests: MochaTest[];
  pending: MochaTest[];
  failures: MochaTest[];
}

/** Python's `tests/integration`, without the files named. The checkout itself is the library under test. */
export async function pytest(
  room: Room,
  server: ApiServer,
  checkout: string,
  without: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<Results> {
  const out = join(room.dir, 'junit.xml');
  // Without a configuration of its own the client keeps its contexts in the working directory, for the next run to find.
  mkdirSync(join(room.dir, '.docker'), { recursive: true });
  writeFileSync(join(room.dir, '.docker/config.json'), '{}');
  const options = ['-q', '-p', 'no:cacheprovider', '--timeout', '90', '--timeout-method=signal', '--tb=line'];
  const ignored = without.map((name) => `--ignore=tests/integration/${name}_test.py`);
  const ended = await room.runLong(
    '/usr/bin/python3',
    ['-m', 'pytest', ...options, '--junitxml', out, ...ignored, 'tests/integration'],
    {
      cwd: checkout,
      env: {
        DOCKER_HOST: `unix://${server.socket}`,
        DOCKER_TEST_API_VERSION: '1.41',
        PYTHONPATH: checkout,
        PYTHONDONTWRITEBYTECODE: '1',
        HOME: room.dir,
        ...env,
      },
      timeoutMs: PYTEST_MS,
    },
  );
  if (!existsSync(out)) throw new Error(`pytest gives no result: ${ended.out}${ended.err}`.slice(-2000));
  return junit(readFileSync(out, 'utf8'));
}

function junit(xml: string): Results {
  const results = new Map<string, string>();
  const cases =
    /<testcase classname="tests\.integration\.([^"]+)" name="([^"]+)"[^>]*?(?:\/>|>([\s\S]*?)<\/testcase>)/g;
  for (const [, suite = '', name = '', inside = ''] of xml.matchAll(cases)) {
    const failure = /<(?:failure|error) message="([^"]*)"/.exec(inside)?.[1];
    const result = failure === undefined ? (inside.includes('<skipped') ? SKIPPED : PASSED) : oneLine(failure);
    // A test whose tear-down fails stands twice: once as passed.
    const known = `${suite}.${name}`.replace(/^(\w+?)_test\./, '$1: ');
    if (results.get(known) === undefined || result !== PASSED) results.set(known, result);
  }
  return results;
}

function oneLine(text: string): string {
  return text.replaceAll('&quot;', '"').replaceAll('&#10;', ' ').replace(/\s+/g, ' ').slice(0, 300);
}

/** Two tests of one name are two tests. */
function free(results: Results, name: string): string {
  let unused = name;
  for (let n = 2; results.has(unused); n++) unused = `${name} (${n})`;
  return unused;
}

/** What both engines make of one suite, for the reader of the run: a figure each, and what fails with both. */
export function summary(suite: string, ours: Results, dockerds: Results): string {
  const theirs = failures(dockerds);
  const both = [...failures(ours)].filter(([name]) => theirs.has(name));
  const dockerdAlone = [...theirs].filter(([name]) => !failures(ours).has(name));
  return [
    `${suite}: ${ours.size} cases; we pass ${passes(ours)}, dockerd ${passes(dockerds)}`,
    ...both.map(([name, why]) => `  fails with both: ${name}: ${why.slice(0, 160)}`),
    ...dockerdAlone.map(([name, why]) => `  fails with dockerd alone: ${name}: ${why.slice(0, 160)}`),
  ].join('\n');
}

/** What fails with us and not with dockerd, and is not named with its reason. */
export function unexplained(ours: Results, dockerds: Results, reasons: Readonly<Record<string, string>>): object {
  const theirs = failures(dockerds);
  return Object.fromEntries([...failures(ours)].filter(([name]) => !theirs.has(name) && !Object.hasOwn(reasons, name)));
}
