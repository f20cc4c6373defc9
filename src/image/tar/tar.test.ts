import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { aclFromText } from '#image/tar/acl.ts';
import { DEFAULT_LIMITS, type EntryType, entryWith, type TarEntry, type TarLimits } from '#image/tar/entry.ts';
import { TarReader } from '#image/tar/reader.ts';
import { endOfArchive, header, padding } from '#image/tar/writer.ts';

interface Seen {
  entry: TarEntry;
  data: { offset: number; bytes: Buffer }[];
}

function read(archive: Buffer, chunkBytes = archive.length, limits: TarLimits = DEFAULT_LIMITS): Seen[] {
  const seen: Seen[] = [];
  const reader = new TarReader(
    'blob',
    {
      entry: (entry) => seen.push({ entry, data: [] }),
      data: (chunk, offset) => seen.at(-1)?.data.push({ offset, bytes: Buffer.from(chunk) }),
      end: () => undefined,
    },
    limits,
  );
  for (let at = 0; at < archive.length; at += chunkBytes) reader.push(archive.subarray(at, at + chunkBytes));
  reader.finish();
  return seen;
}

function entry(over: Partial<TarEntry> = {}): TarEntry {
  return entryWith({ path: 'a', ...over });
}

function archive(...members: { entry: TarEntry; body?: Buffer }[]): Buffer {
  const parts = members.flatMap(({ entry: e, body = Buffer.alloc(e.size) }) => [header(e), body, padding(body.length)]);
  return Buffer.concat([...parts, endOfArchive()]);
}

/** A header block by hand, for what our writer would never write. */
function raw(
  fields: Partial<Record<'name' | 'mode' | 'uid' | 'size' | 'mtime' | 'type' | 'link' | 'prefix', string | Buffer>>,
  gnu = false,
): Buffer {
  const b = Buffer.alloc(512);
  const at = { name: 0, mode: 100, uid: 108, size: 124, mtime: 136, type: 156, link: 157, prefix: 345 };
  b.write('0000644\0', 100);
  b.write('0000000\0', 108);
  b.write('0000000\0', 116);
  b.write('00000000000\0', 124);
  b.write('00000000000\0', 136);
  b.write('0', 156);
  b.write(gnu ? 'ustar  \0' : 'ustar\u000000', 257, 'latin1');
  for (const [key, value] of Object.entries(fields)) b.set(Buffer.from(value as Buffer), at[key as keyof typeof at]);
  b.fill(0x20, 148, 156);
  b.write(
    `${b
      .reduce((s, x) => s + x, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
  );
  return b;
}

function pax(records: Record<string, string>, type = 'x'): Buffer {
  const body = Buffer.concat(
    Object.entries(records).map(([k, v]) => {
      const rest = Buffer.byteLength(k) + Buffer.byteLength(v) + 3;
      let length = rest + String(rest).length;
      if (String(length).length > String(rest).length) length++;
      return Buffer.from(`${length} ${k}=${v}\n`);
    }),
  );
  return Buffer.concat([
    raw({ name: 'pax', type, size: `${body.length.toString(8).padStart(11, '0')}\0` }),
    body,
    padding(body.length),
  ]);
}

function octal(n: number): string {
  return `${n.toString(8).padStart(11, '0')}\0`;
}

describe('what is written is read back', () => {
  const name = fc.stringMatching(/^[a-zA-Zé0-9_][a-zA-Zé0-9_. -]{0,59}$/);
  const path = fc.array(name, { minLength: 1, maxLength: 8 }).map((p) => p.join('/'));
  const anyEntry = fc
    .record({
      type: fc.constantFrom<EntryType>('file', 'dir', 'symlink', 'hardlink', 'char', 'block', 'fifo'),
      path,
      mode: fc.integer({ min: 0, max: 0o7777 }),
      uid: fc.oneof(fc.integer({ min: 0, max: 70_000 }), fc.constantFrom(0o7777777, 0o7777777 + 1, 0xffff_fffe)),
      gid: fc.integer({ min: 0, max: 0xffff_fffe }),
      uname: fc.constantFrom('', 'root', 'é'.repeat(20)),
      gname: fc.constantFrom('', 'wheel'),
      mtimeSec: fc.integer({ min: -(2 ** 31), max: 2 ** 40 }),
      mtimeNsec: fc.constantFrom(0, 1, 500_000_000, 999_999_999),
      size: fc.constantFrom(0, 1, 511, 512, 513, 3000),
      linkTarget: fc.constantFrom('x', `${'d/'.repeat(70)}x`, 'é', '../../up'),
      deviceMajor: fc.integer({ min: 0, max: 4095 }),
      deviceMinor: fc.integer({ min: 0, max: 0xf_ffff }),
      xattrs: fc.option(
        fc.dictionary(fc.constantFrom('user.a', 'security.capability'), fc.uint8Array({ maxLength: 600 })),
        { nil: undefined },
      ),
    })
    .map((r): TarEntry => {
      const isLink = r.type === 'symlink' || r.type === 'hardlink';
      const isDevice = r.type === 'char' || r.type === 'block';
      const xattrs =
        r.xattrs && Object.keys(r.xattrs).length > 0
          ? new Map(Object.entries(r.xattrs).map(([k, v]) => [k, Buffer.from(v)]))
          : undefined;
      return {
        ...r,
        size: r.type === 'file' ? r.size : 0,
        linkTarget: !isLink ? '' : r.type === 'hardlink' ? r.linkTarget.replaceAll('../', '') : r.linkTarget,
        deviceMajor: isDevice ? r.deviceMajor : 0,
        deviceMinor: isDevice ? r.deviceMinor : 0,
        xattrs,
        sparse: undefined,
      };
    });

  it('whatever the entries, in chunks of any size', () => {
    fc.assert(
      fc.property(fc.array(anyEntry, { maxLength: 6 }), fc.integer({ min: 1, max: 2000 }), (entries, chunkBytes) => {
        const members = entries.map((e, i) => ({ entry: e, body: Buffer.alloc(e.size, i + 1) }));
        const seen = read(archive(...members), chunkBytes);
        expect(seen.map((s) => s.entry)).toEqual(entries);
        for (const [i, s] of seen.entries()) {
          expect(Buffer.concat(s.data.map((d) => d.bytes)).equals(members[i]?.body ?? Buffer.alloc(0))).toBe(true);
        }
      }),
      { numRuns: 200 },
    );
  });

  it('twice the same entries give the same bytes', () => {
    const e = entry({
      xattrs: new Map([
        ['user.b', Buffer.from('1')],
        ['user.a', Buffer.from('2')],
      ]),
      mtimeNsec: 5,
    });
    const turned = entry({ ...e, xattrs: new Map([...(e.xattrs ?? [])].reverse()) });
    expect(header(e).equals(header(turned))).toBe(true);
  });
});

describe('dialects', () => {
  it('GNU long names and long links', () => {
    const long = 'n'.repeat(150);
    const target = 't'.repeat(300);
    const gnu = (type: string, text: string): Buffer =>
      Buffer.concat([
        raw({ name: '././@LongLink', type, size: octal(text.length + 1) }, true),
        Buffer.from(`${text}\0`),
        padding(text.length + 1),
      ]);
    const seen = read(
      Buffer.concat([
        gnu('L', long),
        gnu('K', target),
        raw({ name: 'short', type: '2', link: 'x' }, true),
        endOfArchive(),
      ]),
    );
    expect(seen[0]?.entry).toMatchObject({ path: long, linkTarget: target, type: 'symlink' });
  });

  it('numbers in base 256, also negative times', () => {
    const uid = Buffer.from([0x80, 0, 0, 0, 0, 0x1e, 0x84, 0x80]);
    const mtime = Buffer.alloc(12, 0xff);
    expect(read(Buffer.concat([raw({ name: 'a', uid, mtime }, true), endOfArchive()]))[0]?.entry).toMatchObject({
      uid: 2_000_000,
      mtimeSec: -1,
    });
  });

  it('global pax records hold until taken back, local ones for one entry', () => {
    const seen = read(
      Buffer.concat([
        pax({ uid: '7' }, 'g'),
        pax({ uid: '8', path: 'long' }),
        raw({ name: 'a' }),
        raw({ name: 'b' }),
        endOfArchive(),
      ]),
    );
    expect(seen.map((s) => [s.entry.path, s.entry.uid])).toEqual([
      ['long', 8],
      ['b', 7],
    ]);
  });

  it('old directories by a slash, names with dots and slashes, the root itself', () => {
    const seen = read(
      Buffer.concat([...['./', './a//b/./c', '/abs', 'old/'].map((name) => raw({ name })), endOfArchive()]),
    );
    expect(seen.map((s) => `${s.entry.type} ${s.entry.path}`)).toEqual(['dir ', 'file a/b/c', 'file abs', 'dir old']);
  });

  it('sparse files in all four forms', () => {
    const data = Buffer.concat([Buffer.alloc(100, 1), Buffer.alloc(50, 2)]);
    const body = Buffer.concat([data, padding(data.length)]);
    const gnu = raw({ name: 's', type: 'S', size: octal(150) }, true);
    for (const [i, n] of [4096, 100, 9000, 50].entries()) gnu.write(octal(n), 386 + i * 12);
    gnu.write(octal(10_000), 483);
    gnu.fill(0x20, 148, 156);
    gnu.write(
      `${gnu
        .reduce((s, x) => s + x, 0)
        .toString(8)
        .padStart(6, '0')}\0 `,
      148,
    );
    const map = Buffer.from('2\n4096\n100\n9000\n50\n');
    const forms = [
      [gnu, body],
      [
        pax({ 'GNU.sparse.size': '10000', 'GNU.sparse.numblocks': '2', 'GNU.sparse.map': '4096,100,9000,50' }),
        raw({ name: 's', size: octal(150) }),
        body,
      ],
      [
        pax({
          'GNU.sparse.major': '1',
          'GNU.sparse.minor': '0',
          'GNU.sparse.name': 's',
          'GNU.sparse.realsize': '10000',
        }),
        raw({ name: 'GNUSparseFile.1/s', size: octal(512 + 150) }),
        map,
        padding(map.length),
        body,
      ],
    ];
    for (const form of forms) {
      for (const chunk of [1, 700, 100_000]) {
        const [seen] = read(Buffer.concat([...form, endOfArchive()]), chunk);
        expect(seen?.entry).toMatchObject({
          path: 's',
          size: 10_000,
          sparse: [
            { offset: 4096, length: 100 },
            { offset: 9000, length: 50 },
          ],
        });
        const file = Buffer.alloc(10_000);
        for (const d of seen?.data ?? []) d.bytes.copy(file, d.offset);
        expect([file[4096], file[4195], file[4196], file[9000], file[9049], file[9050]]).toEqual([1, 1, 0, 2, 2, 0]);
      }
    }
  });

  it('attributes of star, bsdtar and SELinux; ACLs as text', () => {
    const records = {
      'LIBARCHIVE.xattr.user.%C3%A9': Buffer.from('v').toString('base64'),
      'RHT.security.selinux': 'ctx',
      'SCHILY.acl.access': 'user::rw-,user:1000:r--,group::r--,mask::rw-,other::---',
    };
    const [seen] = read(Buffer.concat([pax(records), raw({ name: 'a' }), endOfArchive()]));
    expect([...(seen?.entry.xattrs?.keys() ?? [])].sort()).toEqual([
      'security.selinux',
      'system.posix_acl_access',
      'user.é',
    ]);
    expect(Buffer.from(aclFromText('u::rwx,g::r-x,o::r-x')).toString('hex')).toBe(
      '02000000' + '01000700ffffffff' + '04000500ffffffff' + '20000500ffffffff',
    );
  });
});

describe('a hostile archive', () => {
  const refused = (bytes: Buffer, rule: RegExp, limits?: TarLimits): void => {
    let error: unknown;
    try {
      read(bytes, 333, limits);
    } catch (e) {
      error = e;
    }
    expect(error).toMatchObject({ code: 'LAYER_INVALID', data: { blob: 'blob' } });
    expect(String((error as Error).message)).toMatch(rule);
  };
  const one = (...parts: Buffer[]): Buffer => Buffer.concat([...parts, endOfArchive()]);

  it.each([
    ['leaves by its name', one(raw({ name: '../etc/passwd' })), /leaves the image by its name/],
    ['leaves by the prefix', one(raw({ name: 'x', prefix: 'a/../..' })), /leaves the image/],
    ['leaves by a pax path', one(pax({ path: 'a/../../b' }), raw({ name: 'x' })), /leaves the image/],
    [
      'leaves by a hard link',
      one(raw({ name: 'x', type: '1', link: '../../etc/shadow' })),
      /leaves the image by its link target/,
    ],
    [
      'a wrong checksum',
      (() => {
        const b = raw({ name: 'x' });
        b[0] = 121;
        return one(b);
      })(),
      /checksum/,
    ],
    ['a negative size', one(raw({ name: 'x', size: Buffer.alloc(12, 0xff) })), /negative size/],
    [
      'a huge size',
      one(raw({ name: 'x', size: Buffer.concat([Buffer.from([0x80]), Buffer.alloc(11, 0xfe)]) })),
      /size that is too large/,
    ],
    ['a size of 16 TiB', one(pax({ size: String(2 ** 44) }), raw({ name: 'x' })), /larger than/],
    ['a negative pax uid', one(pax({ uid: '-1' }), raw({ name: 'x' })), /negative uid/],
    ['uid -1', one(pax({ uid: '4294967295' }), raw({ name: 'x' })), /uid that is too large/],
    ['digits that are not octal', one(raw({ name: 'x', mode: '0000999\0' })), /mode that is not an octal/],
    ['a name that is not UTF-8', one(raw({ name: Buffer.from([0x61, 0xff, 0xfe]) })), /not UTF-8/],
    ['a NUL in a pax path', one(pax({ path: 'a\0b' }), raw({ name: 'x' })), /NUL/],
    ['a part of 256 bytes', one(pax({ path: 'n'.repeat(256) }), raw({ name: 'x' })), /part longer than/],
    ['a path of 5000 bytes', one(pax({ path: 'n/'.repeat(2500) }), raw({ name: 'x' })), /longer than/],
    ['no name', one(raw({})), /no name/],
    ['an empty link target', one(raw({ name: 'x', type: '2' })), /link target that is empty/],
    ['an unknown type', one(raw({ name: 'x', type: 'Z' })), /unknown type/],
    ['a pax header of 2 MB', one(raw({ name: 'x', type: 'x', size: octal(2_000_000) })), /extension of/],
    [
      'a pax record that lies about its length',
      one(
        Buffer.concat([raw({ name: 'p', type: 'x', size: octal(10) }), Buffer.from('99 a=bcde\n'), padding(10)]),
        raw({ name: 'x' }),
      ),
      /wrong length/,
    ],
    [
      'a sparse map out of order',
      one(
        pax({ 'GNU.sparse.size': '10', 'GNU.sparse.map': '5,2,0,2' }),
        raw({ name: 'x', size: octal(4) }),
        Buffer.alloc(512),
      ),
      /out of order/,
    ],
    [
      'a sparse map beyond the size',
      one(
        pax({ 'GNU.sparse.size': '10', 'GNU.sparse.map': '9,2' }),
        raw({ name: 'x', size: octal(2) }),
        Buffer.alloc(512),
      ),
      /out of order/,
    ],
    [
      'a sparse map that wants other data',
      one(
        pax({ 'GNU.sparse.size': '10', 'GNU.sparse.map': '0,3' }),
        raw({ name: 'x', size: octal(2) }),
        Buffer.alloc(512),
      ),
      /its map wants 3/,
    ],
    ['an ACL with a name', one(pax({ 'SCHILY.acl.access': 'user:joe:rwx' }), raw({ name: 'x' })), /not a number/],
    ['a second part of a volume', one(raw({ name: 'x', type: 'M' })), /type M/],
  ])('%s', (_, bytes, rule) => refused(bytes, rule));

  it('cut at any byte is refused, except between two entries or in the padding behind one', () => {
    const whole = archive({ entry: entry({ path: 'a', size: 700 }) }, { entry: entry({ path: 'b', mtimeNsec: 1 }) });
    const isWhole = (cut: number): boolean => cut === 0 || (cut >= 512 + 700 && cut <= 512 + 1024);
    for (let cut = 0; cut < whole.length - 1024; cut += 16) {
      if (isWhole(cut)) expect(read(whole.subarray(0, cut))).toHaveLength(cut === 0 ? 0 : 1);
      else refused(whole.subarray(0, cut), /ends/);
    }
  });

  it('goes no further than its limits', () => {
    const files = Array.from({ length: 5 }, (_, i) => ({ entry: entry({ path: `f${i}`, size: 1000 }) }));
    refused(archive(...files), /larger than the 3000 bytes/, { ...DEFAULT_LIMITS, contentBytes: 3000 });
    refused(archive(...files), /more than the 3 allowed/, { ...DEFAULT_LIMITS, entries: 3 });
  });

  it('with any bytes changed gives entries or LAYER_INVALID, never anything else', () => {
    const good = archive(
      { entry: entry({ path: 'dir', type: 'dir' }) },
      { entry: entry({ path: 'long/'.repeat(40), mtimeNsec: 7, xattrs: new Map([['user.a', Buffer.from('b')]]) }) },
      { entry: entry({ path: 'file', size: 600 }), body: Buffer.alloc(600, 65) },
    );
    const change = fc.record({ at: fc.nat(good.length - 1), to: fc.nat(255), fixSum: fc.boolean() });
    fc.assert(
      fc.property(
        fc.array(change, { minLength: 1, maxLength: 5 }),
        fc.integer({ min: 1, max: 3000 }),
        (changes, chunk) => {
          const bytes = Buffer.from(good);
          for (const { at, to, fixSum } of changes) {
            bytes[at] = to;
            if (fixSum) resum(bytes, at - (at % 512));
          }
          try {
            read(bytes, chunk);
          } catch (error) {
            expect(error).toMatchObject({ code: 'LAYER_INVALID' });
          }
        },
      ),
      { numRuns: 2000 },
    );
  });
});

function resum(b: Buffer, at: number): void {
  b.fill(0x20, at + 148, at + 156);
  const sum = b.subarray(at, at + 512).reduce((s, x) => s + x, 0);
  b.write(`${sum.toString(8).padStart(6, '0')}\0 `, at + 148);
}
