import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Machine, waitFor } from '../cluster/machine.ts';
import { picturesOf } from './pictures.ts';

const SCREENSHOTS = picturesOf('dashboard');
const ESTIBA = fileURLToPath(new URL('../../bin/estiba', import.meta.url));
const WIDE = { width: 1280, height: 860 };
const PHONE = { width: 390, height: 844 };
const HOSTILE = '<img src=x onerror=window.pwned=1>';

/** A busy program whose words are markup and terminal sequences. */
const TALK = `i=0; while :; do i=$((i+1)); echo "line $i"; echo "${HOSTILE}"; printf '\\033[31mred\\033[0m \\033]0;title\\007end\\n' >&2; j=0; while [ $j -lt 20000 ]; do j=$((j+1)); done; sleep 0.3; done`;

describe('the dashboard in a real browser', () => {
  let machine: Machine;
  let browser: Browser;
  let context: BrowserContext;
  let page: Page;
  let address: string;
  let link: string;
  const complaints: string[] = [];

  beforeAll(async () => {
    machine = await Machine.open('ui', ['--ui', '127.0.0.1:8443']);
    address = JSON.parse((await machine.run('cat', [join(machine.runRoot, 'endpoints.json')])).text).ui;
    await machine.run('docker', [
      'run',
      '-d',
      '--name',
      'idle',
      '--label',
      `note=${HOSTILE}`,
      'busybox',
      'sleep',
      '100000',
    ]);
    const talk = [
      'run',
      '-d',
      '--name',
      'talk',
      '-m',
      '64m',
      '--label',
      `com.docker.compose.project=${HOSTILE}`,
      'busybox',
      'sh',
      '-c',
      TALK,
    ];
    expect(await machine.run('docker', talk)).toMatchObject({ code: 0 });
    await machine.run('docker', ['run', '--name', 'failed', 'busybox', 'sh', '-c', 'echo no; exit 3']);
    await machine.kubectl(
      'run hello --image=busybox --image-pull-policy=IfNotPresent --labels=estiba.dev/app=greeter -- sleep 100000',
    );
    await machine.kubectl('run broken --image=busybox --image-pull-policy=IfNotPresent -- sh -c "exit 1"');
    await machine.kubectl('wait --for=condition=Ready pod/hello --timeout=20s');
    // The browser stands in the machine's network: the daemon serves its loopback alone.
    const script = `#!/bin/sh\nexec nsenter -t ${machine.init} -n -- chromium "$@"\n`;
    const executablePath = machine.file('browser', script);
    await machine.run('chmod', ['+x', executablePath]);
    browser = await chromium.launch({ executablePath });
    context = await browser.newContext({ viewport: WIDE, colorScheme: 'light' });
    page = await context.newPage();
    page.on('console', (message) => {
      if (message.type() === 'error') complaints.push(message.text());
    });
    page.on('pageerror', (error) => complaints.push(error.message));
  });
  afterAll(async () => {
    await browser?.close();
    await machine?.close();
  });

  const shot = (name: string): Promise<Buffer> => page.screenshot({ path: join(SCREENSHOTS, `${name}.png`) });
  const go = (...parts: string[]): Promise<unknown> => page.goto(`${address}/#/${parts.join('/')}`);
  const idOf = async (name: string): Promise<string> =>
    (await machine.run('docker', ['inspect', '-f', '{{.Id}}', name])).text.trim();
  const until = (what: string, check: () => Promise<boolean>): Promise<void> => waitFor(what, 20_000, check);
  const sees = (text: string | RegExp): Promise<void> => page.getByText(text).first().waitFor({ timeout: 20_000 });

  it('shows nothing to who is not logged in, and says how to', async () => {
    const answer = await page.goto(address);
    expect(answer?.status()).toBe(401);
    await sees('estiba ui');
    await until('the browser to complain of the 401, rightly', async () => complaints.length > 0);
    complaints.length = 0;
  });

  it('lets in who has a link of `estiba ui`, once', async () => {
    const printed = await machine.run(ESTIBA, ['--run-root', machine.runRoot, 'ui']);
    link = /^http:\S+$/m.exec(printed.text)?.[0] ?? '';
    await page.goto(link);
    await page.getByRole('heading', { name: 'Overview' }).waitFor();
    expect(page.url()).not.toContain('key=');
    const stranger = await browser.newContext();
    const second = await (await stranger.newPage()).goto(link);
    expect(second?.status()).toBe(401);
    // The cookie alone, as another service on this host would have it.
    await stranger.addCookies(await context.cookies());
    const taken = await (await stranger.newPage()).goto(`${address}/api/containers/idle/xray`);
    expect(taken?.status()).toBe(401);
    await stranger.close();
  });

  it('shows the machine, apps, pods and containers', async () => {
    await page.locator('.app', { hasText: 'greeter' }).waitFor();
    await page.locator('.app', { hasText: HOSTILE }).waitFor();
    await page.locator('.app', { hasText: 'needs' }).or(page.locator('.dot.bad')).first().waitFor();
    await until(
      'figures',
      async () => (await page.locator('.spark polyline, [data-testid=plot-cpu] canvas').count()) > 0,
    );
    await page.locator('.plot .strong').first().filter({ hasText: '%' }).waitFor();
    await page.locator('.app-figures').first().filter({ hasText: '%' }).waitFor();
    await shot('overview');
    await go('containers');
    for (const name of ['idle', 'talk', 'failed', 'hello'])
      await page.locator('tr', { hasText: name }).first().waitFor();
    await page.locator('tr', { hasText: 'failed' }).getByText('exit code 3').waitFor();
    await until('a spark', async () => (await page.locator('.spark polyline').count()) > 0);
    await shot('containers');
    await go('pods');
    await page.locator('tr', { hasText: 'hello' }).getByText('1/1').waitFor();
    await shot('pods');
    await page.getByRole('link', { name: 'broken' }).click();
    await sees(/BackOff|Error/);
    await shot('pod');
  });

  it('shows at once what others do', async () => {
    await go('containers');
    await machine.run('docker', ['run', '-d', '--name', 'newcomer', 'busybox', 'sleep', '100000']);
    await page.locator('tr', { hasText: 'newcomer' }).waitFor({ timeout: 5_000 });
    await machine.run('docker', ['rm', '-f', 'newcomer']);
    await page.locator('tr', { hasText: 'newcomer' }).waitFor({ state: 'detached', timeout: 5_000 });
  });

  it('draws CPU and memory, and the drawing moves', async () => {
    await go('containers', await idOf('talk'));
    const canvas = page.locator('[data-testid=plot-cpu] canvas');
    await canvas.waitFor();
    const drawn = (): Promise<string> =>
      canvas.evaluate((element) => (element as unknown as { toDataURL(): string }).toDataURL());
    await page.locator('.plot .strong').first().filter({ hasText: '%' }).waitFor();
    const before = await drawn();
    await until('the plot to move', async () => (await drawn()) !== before);
    await sees('of 64.0 MiB it may have');
    await shot('figures');
  });

  it('follows the log, and what stands in it does nothing', async () => {
    await go('containers', await idOf('talk'), 'logs');
    await sees(/^line \d+$/);
    const last = async (): Promise<string> => (await page.locator('.line').allTextContents()).at(-1) ?? '';
    const count = await page.locator('.line').count();
    await until('more lines', async () => (await page.locator('.line').count()) > count + 2);
    expect(await page.locator('.line', { hasText: HOSTILE }).first().textContent()).toBe(HOSTILE);
    expect(await page.locator('.line.error').first().textContent()).toBe('red end');
    expect(await last()).not.toBe('');
    await shot('log');
    expect(await page.evaluate('"pwned" in window')).toBe(false);
  });

  it('opens a terminal, and its shell ends with the page', async () => {
    const id = await idOf('idle');
    await go('containers', id, 'terminal');
    await page.locator('.xterm-helper-textarea').waitFor({ state: 'attached' });
    await until('a prompt', async () => /[#$]/.test(await page.locator('.xterm-rows').innerText()));
    await page.keyboard.type('echo $((6*7)); stty size; uname -n\n');
    await until('an answer', async () => /^42$/m.test(await page.locator('.xterm-rows').innerText()));
    const [, rows, columns] = /^(\d+) (\d+)$/m.exec(await page.locator('.xterm-rows').innerText()) ?? [];
    expect(Number(rows)).toBeGreaterThan(10);
    expect(Number(columns)).toBeGreaterThan(80);
    await shot('terminal');
    await page.setViewportSize(PHONE);
    await until('the smaller size', async () => {
      await page.keyboard.type('stty size\n');
      const sizes = [...(await page.locator('.xterm-rows').innerText()).matchAll(/^(\d+) (\d+)$/gm)];
      return Number(sizes.at(-1)?.[2] ?? 999) < Number(columns);
    });
    await page.setViewportSize(WIDE);
    await go('containers');
    await until('the shell to end', async () => !/ sh\b/.test((await machine.run('docker', ['top', 'idle'])).text));
  });

  it('lays a container open, each line with its reason', async () => {
    await go('containers', await idOf('talk'), 'xray');
    await page.getByRole('heading', { name: 'What it may use' }).waitFor();
    await page.locator('.xray-line', { hasText: 'limit · memory' }).getByText('because: --memory').waitFor();
    expect(await page.getByText(/^because: /).count()).toBeGreaterThan(15);
    await shot('xray');
  });

  it('asks before it stops something, and does it', async () => {
    await go('containers', await idOf('talk'));
    await page.getByRole('button', { name: 'Stop' }).click();
    await page.getByRole('dialog').waitFor();
    await shot('question');
    await page.keyboard.press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Stop' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Stop' }).click();
    await sees(/^exit code 1\d\d, /);
    await page.getByRole('button', { name: 'Start' }).click();
    await sees(/^running \d+\s+s/);
    await page.getByRole('button', { name: 'Remove' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
    await page.getByRole('heading', { name: 'Containers' }).waitFor();
    expect((await machine.run('docker', ['ps', '-aqf', 'name=talk'])).text).toBe('');
  });

  it('tells what has happened, on the engine and in the cluster', async () => {
    await go('events');
    await page.locator('.events li', { hasText: 'container talk' }).first().waitFor();
    await page.locator('.events li', { hasText: 'pod default/hello' }).first().waitFor();
    await shot('events');
  });

  it('works on a phone and in the dark, without scrolling sideways', async () => {
    await page.emulateMedia({ colorScheme: 'dark' });
    await go();
    await page.locator('.plot canvas').nth(1).waitFor();
    await shot('overview-dark');
    await go('containers', await idOf('idle'), 'xray');
    await page.getByRole('heading', { name: 'What it sees' }).waitFor();
    await shot('xray-dark');
    await page.setViewportSize(PHONE);
    for (const place of ['', 'containers', 'pods', 'events', `containers/${await idOf('idle')}`]) {
      await go(place);
      await page.locator('.rows, .events, .plots').first().waitFor();
      expect([place, await page.evaluate('document.documentElement.scrollWidth <= innerWidth')]).toEqual([place, true]);
      await shot(
        `phone-${
          place
            .split('/')
            .slice(0, 2)
            .map((p) => p.slice(0, 12))
            .join('-') || 'overview'
        }`,
      );
    }
    await page.emulateMedia({ colorScheme: 'light' });
    await page.setViewportSize(WIDE);
  });

  it('is used by the keyboard alone', async () => {
    await go('containers');
    await page.locator('tr', { hasText: 'idle' }).waitFor();
    await page.keyboard.press('/');
    await page.keyboard.type('idle');
    await page.locator('tr', { hasText: 'failed' }).waitFor({ state: 'detached' });
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'idle' }).waitFor();
  });

  it('goes on by itself when the daemon comes back, and still knows who is there', async () => {
    expect(complaints.join('\n')).toBe('');
    await go('containers');
    await machine.kill();
    await sees('The daemon does not answer');
    await machine.start();
    await page.getByText('The daemon does not answer').waitFor({ state: 'detached', timeout: 30_000 });
    await machine.run('docker', ['run', '-d', '--name', 'after', 'busybox', 'sleep', '100000']);
    await page.locator('tr', { hasText: 'after' }).waitFor();
    await page.reload();
    await page.locator('tr', { hasText: 'after' }).waitFor();
    complaints.length = 0; // of the time without a daemon
  });

  it('ends with the log-out', async () => {
    await page.getByRole('button', { name: 'Log out' }).click();
    await sees('estiba ui');
    expect((await page.goto(address))?.status()).toBe(401);
  });
});
