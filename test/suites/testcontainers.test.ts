import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DockerComposeEnvironment, GenericContainer, Network, type StartedTestContainer, Wait } from 'testcontainers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BuildDaemon, run } from './build/daemon.ts';

// testcontainers 11 on our engine: what test suites of others do with it. Its reaper is an image of theirs that cannot be pulled in a
// closed network; TESTCONTAINERS_RYUK_DISABLED is their documented way without it.
describe('testcontainers', () => {
  let daemon: BuildDaemon;
  const before = { ...process.env };
  const directory = mkdtempSync(join(tmpdir(), 'estiba-testcontainers-'));

  beforeAll(async () => {
    daemon = await BuildDaemon.start(`tc${process.pid % 100_000}`);
    Object.assign(process.env, { DOCKER_HOST: daemon.host, TESTCONTAINERS_RYUK_DISABLED: 'true' });
    await docker('pull', '-q', 'busybox'); // made from this machine's own
  });
  afterAll(async () => {
    const left = await docker('ps', '-aq');
    for (const id of left.split('\n').filter(Boolean)) await docker('rm', '-fv', id);
    process.env = before;
    await daemon.stop();
    rmSync(directory, { recursive: true });
    expect(left, 'containers that their owner did not take away').toBe('');
  });

  const docker = (...args: string[]): Promise<string> => run('docker', args, { env: daemon.env() });

  const web = (): GenericContainer =>
    new GenericContainer('busybox')
      .withCopyContentToContainer([{ content: 'served', target: '/www/index.html' }])
      .withCommand(['sh', '-c', 'echo up; exec httpd -f -v -p 8080 -h /www'])
      .withExposedPorts(8080);

  async function fetched(container: StartedTestContainer, path = '/'): Promise<string> {
    const answer = await fetch(`http://${container.getHost()}:${container.getMappedPort(8080)}${path}`);
    return answer.text();
  }

  describe('waits', () => {
    it.each([
      ['for ports', Wait.forListeningPorts()],
      ['for a line of the log', Wait.forLogMessage(/^up$/m)],
      ['for an HTTP answer', Wait.forHttp('/', 8080).forStatusCode(200)],
      ['for a command', Wait.forSuccessfulCommand('test -e /www/index.html')],
      ['for all of them', Wait.forAll([Wait.forListeningPorts(), Wait.forHttp('/', 8080)])],
    ])('%s', async (_, strategy) => {
      const container = await web().withWaitStrategy(strategy).start();
      try {
        // A line of the log and a file say nothing of a port.
        await expect.poll(() => fetched(container).catch(String), { timeout: 20_000 }).toBe('served');
      } finally {
        await container.stop();
      }
    });

    it('for health', async () => {
      const container = await web()
        .withHealthCheck({
          test: ['CMD', 'wget', '-qO-', 'http://127.0.0.1:8080/'],
          interval: 200,
          timeout: 2000,
          retries: 30,
        })
        .withWaitStrategy(Wait.forHealthCheck())
        .start();
      expect(await fetched(container)).toBe('served');
      await container.stop();
    });

    it('for a program that ends', async () => {
      const container = await new GenericContainer('busybox')
        .withCommand(['sh', '-c', 'echo done'])
        .withWaitStrategy(Wait.forOneShotStartup())
        .start();
      await container.stop();
    });

    it('and says why it waits no more', async () => {
      const failing = new GenericContainer('busybox')
        .withCommand(['false'])
        .withWaitStrategy(Wait.forLogMessage('never'));
      await expect(failing.withStartupTimeout(5000).start()).rejects.toThrow(/Log stream ended|not received/);
    });
  });

  it('runs commands, with their environment, user and directory', async () => {
    const container = await web().withEnvironment({ COLOUR: 'blue' }).start();
    expect(await container.exec(['sh', '-c', 'echo $COLOUR; echo no >&2; exit 3'])).toMatchObject({
      output: expect.stringContaining('blue\n'),
      stdout: 'blue\n',
      stderr: 'no\n',
      exitCode: 3,
    });
    const how = { workingDir: '/tmp', user: '1000', env: { X: 'y' } };
    expect((await container.exec(['sh', '-c', 'pwd; id -u; echo $X'], how)).stdout).toBe('/tmp\n1000\ny\n');
    await container.stop();
  });

  it('copies files and directories in and out', async () => {
    writeFileSync(join(directory, 'one'), 'first');
    const container = await web()
      .withCopyDirectoriesToContainer([{ source: directory, target: '/given' }])
      .start();
    await container.copyFilesToContainer([{ source: join(directory, 'one'), target: '/www/one' }]);
    await container.copyContentToContainer([{ content: 'text', target: '/www/two' }]);
    expect((await container.exec(['sh', '-c', 'cat /given/one /www/one /www/two'])).stdout).toBe('firstfirsttext');
    const chunks: Buffer[] = [];
    for await (const chunk of await container.copyArchiveFromContainer('/www')) chunks.push(Buffer.from(chunk));
    expect(Buffer.concat(chunks).toString('latin1')).toContain('www/index.html');
    await container.stop();
  });

  it('follows logs, restarts, stops and starts again', async () => {
    const container = await web().start();
    const lines: string[] = [];
    (await container.logs()).on('data', (line) => lines.push(String(line).trim()));
    await fetched(container);
    await expect.poll(() => lines.join('\n'), { timeout: 20_000 }).toMatch(/up[\s\S]*response:200/);
    await container.restart();
    expect(await fetched(container)).toBe('served');
    const id = container.getId();
    await container.stop({ remove: false });
    expect(await docker('inspect', id, '--format', '{{.State.Status}}')).toBe('exited');
    await docker('rm', id);
  });

  it('joins containers by names on a network', async () => {
    const network = await new Network().start();
    const server = await web().withNetwork(network).withNetworkAliases('site').start();
    const client = await new GenericContainer('busybox').withNetwork(network).withCommand(['sleep', '1000']).start();
    expect((await client.exec(['wget', '-qO-', 'http://site:8080/'])).output).toBe('served');
    expect(server.getIpAddress(network.getName())).toMatch(/^\d+\.\d+\.\d+\.\d+$/);
    for (const container of [client, server]) await container.stop();
    await network.stop();
  });

  it('takes mounts, memory, limits, capabilities and labels', async () => {
    writeFileSync(join(directory, 'bound'), 'from the host');
    const container = await new GenericContainer('busybox')
      .withBindMounts([{ source: join(directory, 'bound'), target: '/bound', mode: 'ro' }])
      .withTmpFs({ '/fast': 'rw,size=1m' })
      .withSharedMemorySize(2 * 1024 * 1024)
      .withResourcesQuota({ memory: 0.0625, cpu: 0.5 })
      .withUlimits({ nofile: { soft: 99, hard: 99 } })
      .withAddedCapabilities('NET_ADMIN')
      .withDroppedCapabilities('CHOWN')
      .withLabels({ team: 'harbour' })
      .withHostname('boat')
      .withExtraHosts([{ host: 'far', ipAddress: '192.0.2.9' }])
      .withUser('root')
      .withWorkingDir('/tmp')
      .withCommand(['sleep', '1000'])
      .start();
    const told = await container.exec([
      'sh',
      '-c',
      'cat /bound; echo; df -k /fast | tail -1 | tr -s " " | cut -d" " -f2; ulimit -n; hostname; grep -c far /etc/hosts; pwd',
    ]);
    expect(told.stdout).toBe('from the host\n1024\n99\nboat\n1\n/tmp\n');
    expect(container.getLabels()).toMatchObject({ team: 'harbour' });
    await container.stop();
  });

  it('uses one container again for the same wish', async () => {
    const wish = (): GenericContainer => web().withReuse();
    const first = await wish().start();
    const second = await wish().start();
    expect(second.getId()).toBe(first.getId());
    await first.stop();
  });

  it('builds images, with arguments and a target', async () => {
    writeFileSync(
      join(directory, 'Dockerfile'),
      'FROM busybox AS base\nARG WORD=none\nRUN echo "built with $WORD" > /word\nFROM base AS other\nRUN exit 1\n',
    );
    const image = await GenericContainer.fromDockerfile(directory)
      .withBuildArgs({ WORD: 'care' })
      .withTarget('base')
      .build('tc-built:1', { deleteOnExit: false });
    const container = await image.withCommand(['sleep', '1000']).start();
    expect((await container.exec(['cat', '/word'])).stdout).toBe('built with care\n');
    await container.stop();
  });

  it('runs nginx and PostgreSQL from Debian packages', async () => {
    const packaged = (name: string, more: string): Promise<GenericContainer> => {
      const context = mkdtempSync(join(directory, `${name}-`));
      const install = `apt-get update && apt-get install -y --no-install-recommends ${name} && rm -rf /var/lib/apt/lists/*`;
      writeFileSync(join(context, 'Dockerfile'), `FROM debian:bookworm\nRUN ${install}\n${more}\n`);
      return GenericContainer.fromDockerfile(context).build(`tc-${name}:1`, { deleteOnExit: false });
    };
    const nginx = await (await packaged('nginx-light', 'CMD ["nginx", "-g", "daemon off;"]'))
      .withExposedPorts(80)
      .withWaitStrategy(Wait.forHttp('/', 80))
      .start();
    const page = await fetch(`http://${nginx.getHost()}:${nginx.getMappedPort(80)}/`);
    expect(await page.text()).toContain('Welcome to nginx');
    await nginx.stop();

    const settings = '-c listen_addresses=* -c config_file=/etc/postgresql/15/main/postgresql.conf';
    const postgres = await (
      await packaged(
        'postgresql',
        `USER postgres\nCMD ["sh", "-c", "exec /usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main ${settings}"]`,
      )
    )
      .withExposedPorts(5432)
      .withWaitStrategy(Wait.forLogMessage(/ready to accept connections/))
      .start();
    const asked = await postgres.exec(['psql', '-tAc', 'select 6 * 7']);
    expect(asked.stdout).toBe('42\n');
    await expect(connects(postgres.getMappedPort(5432))).resolves.toBe(true);
    await postgres.stop();
  });

  it('brings a Compose file up and down', async () => {
    const composed = mkdtempSync(join(directory, 'compose-'));
    const site = 'mkdir /www; echo composed > /www/index.html; exec httpd -f -p 8080 -h /www';
    writeFileSync(
      join(composed, 'compose.yaml'),
      `version: '3'\nservices:\n  site:\n    image: busybox\n    command: ['sh', '-c', '${site}']\n    ports: ['8080']\n  other:\n    image: busybox\n    command: ['sleep', '1000']\n`,
    );
    // The docker-compose of this machine is a program of its own, not docker's plugin.
    const environment = await new DockerComposeEnvironment(composed, 'compose.yaml')
      .withClientOptions({ executable: { executablePath: 'docker-compose', standalone: true } })
      .withWaitStrategy('site_1', Wait.forHttp('/', 8080))
      .up();
    expect(await fetched(environment.getContainer('site_1'))).toBe('composed\n');
    const other = environment.getContainer('other_1');
    expect((await other.exec(['wget', '-qO-', 'http://site:8080/'])).stdout).toBe('composed\n');
    await environment.down();
  });
});

function connects(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}
