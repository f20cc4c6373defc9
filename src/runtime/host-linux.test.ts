import { describe, expect, it } from 'vitest';
import { type Files, hostFiles } from '#kernel/files.ts';
import { readHost } from '#runtime/host-linux.ts';

describe('facts of the machine', () => {
  it('show mounts made after they were first asked for: a shared root is cut off where it lies now', () => {
    let mountinfo = '1 0 0:1 / / rw shared:1 - ext4 /dev/sda rw\n';
    const files: Files = {
      ...hostFiles,
      read: (path) => (path === '/proc/self/mountinfo' ? mountinfo : hostFiles.read(path)),
    };
    const host = readHost({ uid: 0, gid: 0 }, files);
    expect(host.mountOf('/run/roots/1')).toEqual({ point: '/', shared: true });
    mountinfo += '2 1 0:2 / /run/roots/1 rw - overlay none rw\n';
    expect(host.mountOf('/run/roots/1')).toEqual({ point: '/run/roots/1', shared: false });
  });
});
