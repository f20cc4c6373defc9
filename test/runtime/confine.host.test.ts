import { execFile } from 'node:child_process';
import { chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { OciConfig } from '#spec/oci/config.ts';
import { type Bundle, makeBundle } from './bundle.ts';

// Wishes that a container's own eyes can judge: what is in force inside, on this kernel.

const OCI = fileURLToPath(new URL('../../bin/estiba-oci', import.meta.url));
const ID = `estiba-confine-${process.pid}`;
type Answer = { code: number; out: string; err: string };

let bundle: Bundle;
beforeEach(() => {
  bundle = makeBundle('confine');
});
afterEach(async () => {
  await oci('delete', '--force', ID);
  bundle[Symbol.dispose]();
});

function oci(...args: string[]): Promise<Answer> {
  return new Promise((resolve) => {
    const child = execFile(
      OCI,
      ['--root', join(bundle.dir, 'state'), ...args],
      { cwd: bundle.dir, timeout: 20_000 },
      (error, out, err) => resolve({ code: typeof error?.code === 'number' ? error.code : error ? -1 : 0, out, err }),
    );
    child.stdin?.end();
  });
}

function run(script: string, change: (config: OciConfig) => void): Promise<Answer> {
  bundle.write(
    bundle.config((config) => {
      if (config.process) config.process.args = ['sh', '-c', script];
      change(config);
    }),
  );
  return oci('run', ID);
}

describe('Landlock, by annotation', () => {
  const annotations = { 'estiba.landlock.rx': '/bin', 'estiba.landlock.ro': '/etc', 'estiba.landlock.rw': '/data' };
  beforeEach(() => {
    for (const name of ['etc', 'data', 'other']) mkdirSync(join(bundle.rootfs, name));
    writeFileSync(join(bundle.rootfs, 'etc/file'), 'readable\n');
    writeFileSync(join(bundle.rootfs, 'other/file'), 'secret\n');
  });
  const confined = (config: OciConfig): void => {
    config.annotations = annotations;
    config.root = { path: 'rootfs', readonly: false };
  };

  it('closes every path that is not named, and of those all but the named kinds of access', async () => {
    const script =
      'cat /etc/file; cat /other/file; echo x > /data/made && cat /data/made; echo x > /etc/made; echo end';
    const { out, err } = await run(script, confined);
    expect(out.split('\n').filter(Boolean)).toEqual(['readable', 'x', 'end']);
    expect(err).toMatch(/other\/file.*Permission denied/);
    expect(err).toMatch(/etc\/made.*Permission denied/);
  });

  it('holds for create and start, and for processes that are added later', async () => {
    bundle.write(
      bundle.config((config) => {
        confined(config);
        if (config.process) config.process.args = ['sleep', '60'];
      }),
    );
    // Streams that the container keeps would keep this promise waiting.
    const shell = `'${OCI}' --root '${join(bundle.dir, 'state')}' create ${ID} </dev/null >/dev/null 2>&1`;
    await new Promise<void>((resolve, reject) => {
      execFile('sh', ['-c', shell], { cwd: bundle.dir }, (error) => (error ? reject(error) : resolve()));
    });
    expect(await oci('start', ID)).toMatchObject({ code: 0 });
    expect(await oci('exec', ID, 'cat', '/etc/file')).toMatchObject({ code: 0, out: 'readable\n' });
    expect((await oci('exec', ID, 'cat', '/other/file')).err).toContain('Permission denied');
  });

  it('is refused without no_new_privs, which it needs', async () => {
    const { code, err } = await run('true', (config) => {
      confined(config);
      if (config.process) config.process.noNewPrivileges = false;
    });
    expect({ code, err }).toMatchObject({ code: 1, err: expect.stringContaining('$.process.noNewPrivileges') });
  });
});

describe('a bind mount with an id map', () => {
  it('shows files as the mapped owner’s, and leaves them as they are outside', async () => {
    const data = join(bundle.dir, 'data');
    mkdirSync(data);
    for (const [name, id] of [
      ['zero', 0],
      ['seven', 7],
    ] as const) {
      writeFileSync(join(data, name), '');
      chownSync(join(data, name), id, id);
    }
    const maps = [{ containerID: 0, hostID: 5000, size: 8 }];
    const { out, err } = await run('stat -c "%n %u %g" /data/zero /data/seven', (config) => {
      config.mounts?.push({
        destination: '/data',
        source: data,
        options: ['bind', 'idmap'],
        uidMappings: maps,
        gidMappings: maps,
      });
    });
    expect({ out, err }).toEqual({ out: '/data/zero 5000 5000\n/data/seven 5007 5007\n', err: '' });
  });
});

describe('a seccomp filter that notifies', () => {
  it('hands its listener to the agent, with the state of the container and the agent’s metadata', async () => {
    const socket = join(bundle.dir, 'agent.sock');
    const got = new Promise<string>((resolve) => {
      const server = createServer((connection) => {
        let text = '';
        connection.on('data', (chunk) => {
          text += chunk;
        });
        // Node takes no descriptors from a socket: the kernel closes ours, and calls that were to be judged get ENOSYS.
        connection.on('close', () => {
          server.close();
          resolve(text);
        });
      });
      server.listen(socket);
    });
    const { out } = await run('touch /tmp/x 2>/dev/null; mkdir /made 2>/dev/null && echo made; echo end', (config) => {
      if (config.linux)
        config.linux.seccomp = {
          defaultAction: 'SCMP_ACT_ALLOW',
          listenerPath: socket,
          listenerMetadata: 'for the agent',
          syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_NOTIFY' }],
        };
    });
    expect(out).toBe('end\n');
    const state = JSON.parse(await got);
    expect(state).toMatchObject({
      fds: ['seccompFd'],
      metadata: 'for the agent',
      state: { id: ID, bundle: bundle.dir, status: 'creating' },
    });
    expect(state.pid).toBeGreaterThan(1);
    expect(state.state.pid).toBe(state.pid);
  });
});

describe('memory policy and CPU affinity', () => {
  it('the kernel shows the policy on the program’s memory', async () => {
    const { out } = await run('cat /proc/self/numa_maps', (config) => {
      if (config.linux) config.linux.memoryPolicy = { mode: 'MPOL_BIND', nodes: '0', flags: ['MPOL_F_STATIC_NODES'] };
    });
    expect(out).toMatch(/ bind=static:0 /);
    const unknown = await run('true', (config) => {
      if (config.linux) config.linux.memoryPolicy = { mode: 'MPOL_BIND', nodes: '60', flags: [] };
    });
    expect(unknown).toMatchObject({ code: 1, err: expect.stringContaining('wanted by $.linux.memoryPolicy') });
  });

  it('an exec runs on the CPUs that it names, and fails on CPUs that are not there', async () => {
    const shell = `'${OCI}' --root '${join(bundle.dir, 'state')}' run --detach ${ID} </dev/null >/dev/null 2>&1`;
    bundle.write(bundle.config((config) => config.process && Object.assign(config.process, { args: ['sleep', '60'] })));
    await new Promise<void>((resolve, reject) => {
      execFile('sh', ['-c', shell], { cwd: bundle.dir }, (error) => (error ? reject(error) : resolve()));
    });
    const exec = (final: string): Promise<Answer> => {
      const spec = { ...bundle.config().process, args: ['cat', '/proc/self/status'], execCPUAffinity: { final } };
      writeFileSync(join(bundle.dir, 'process.json'), JSON.stringify(spec));
      return oci('exec', '--process', join(bundle.dir, 'process.json'), ID);
    };
    expect((await exec('1')).out).toMatch(/^Cpus_allowed_list:\s+1$/m);
    expect(await exec('900')).toMatchObject({ code: 255, err: expect.stringContaining('execCPUAffinity.final') });
  });
});

describe('Intel RDT', () => {
  it('without resctrl is an error by path', async () => {
    const { code, err } = await run('true', (config) => {
      if (config.linux) config.linux.intelRdt = { closID: 'gold' };
    });
    expect({ code, err }).toMatchObject({ code: 1, err: expect.stringContaining('$.linux.intelRdt: no resctrl') });
  });
});
