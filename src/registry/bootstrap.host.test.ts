import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Answer, Machine } from '../../test/cluster/machine.ts';

// Its programs are this host's static ones. They look names up without a library beside them: since 2.34 glibc has files and DNS built in.
// (Debian builds it without wget's timeout: `wget -T 5` ends with SIGSEGV, on the host as in a container.)

describe('the busybox that is made here, on a network of its own', () => {
  let machine: Machine;
  const docker = (...args: string[]): Promise<Answer> => machine.run('docker', args);
  const inside = (...command: string[]): Promise<Answer> =>
    docker('run', '--rm', '--network', 'names', 'busybox', ...command);

  beforeAll(async () => {
    machine = await Machine.open('names', ['--only', 'engine']);
    await docker('network', 'create', 'names');
    const serve = 'echo found > index.html; exec httpd -f -p 80';
    const where = ['--network', 'names', '--network-alias', 'site.example'];
    expect(await docker('run', '-d', '--name', 'web', ...where, 'busybox', 'sh', '-c', serve)).toMatchObject({
      code: 0,
    });
  });
  afterAll(() => machine?.close());

  it.each(['web', 'site.example', 'web.names'])('finds %s with wget, nc, ping and nslookup', async (name) => {
    expect(await inside('wget', '-q', '-O', '-', `http://${name}/`)).toEqual({
      code: 0,
      text: 'found\n',
    });
    const request = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc ${name} 80`;
    expect((await inside('sh', '-c', request)).text).toContain('found');
    expect(await inside('ping', '-c', '1', name)).toMatchObject({ code: 0 });
    expect(await inside('nslookup', name)).toMatchObject({ code: 0 });
  });

  it('says of a name that nobody has that it has no address', async () => {
    const answer = await inside('wget', '-q', '-O', '-', 'http://nobody.names/');
    expect(answer).toEqual({ code: 1, text: "wget: bad address 'nobody.names'\n" });
  });
});
