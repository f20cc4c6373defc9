import { broken } from '#image/tar/header.ts';

/**
 * ACLs travel as text (`user::rw-,user:1000:r--,mask::rw-`, acl(5)) and live as binary (`linux/posix_acl_xattr.h`):
 * u32 version 2, then per entry u16 tag, u16 permissions, u32 id, all little endian.
 */
const TAGS: Record<string, { own: number; named: number | undefined }> = {
  user: { own: 0x01, named: 0x02 },
  group: { own: 0x04, named: 0x08 },
  mask: { own: 0x10, named: undefined },
  other: { own: 0x20, named: undefined },
};
const LETTERS: Record<string, string> = { u: 'user', g: 'group', m: 'mask', o: 'other' };
const NO_ID = 0xffff_ffff;
const ENTRIES_MAX = 1024;

export function aclFromText(text: string): Uint8Array {
  const lines = text
    .split(/[,\n]/)
    .map((line) => line.replace(/#.*/, '').trim())
    .filter((line) => line !== '');
  if (lines.length > ENTRIES_MAX) broken(`has an ACL of more than ${ENTRIES_MAX} entries`);
  const entries = lines.map(entryFromText).sort((a, b) => a.tag - b.tag || a.id - b.id);
  const bytes = Buffer.alloc(4 + entries.length * 8);
  bytes.writeUInt32LE(2, 0);
  for (const [i, { tag, permissions, id }] of entries.entries()) {
    bytes.writeUInt16LE(tag, 4 + i * 8);
    bytes.writeUInt16LE(permissions, 6 + i * 8);
    bytes.writeUInt32LE(id, 8 + i * 8);
  }
  return bytes;
}

/** star writes the numeric id as a fourth field after names. */
function entryFromText(line: string): { tag: number; permissions: number; id: number } {
  const [kind = '', name = '', rights = '', numeric] = line.split(':');
  const tags = TAGS[LETTERS[kind] ?? kind];
  const permissions = /^([r-])([w-])([x-])/.exec(rights);
  if (!tags || !permissions) return broken(`has an ACL entry ${JSON.stringify(line.slice(0, 80))} that cannot be read`);
  const bits = (permissions[1] === 'r' ? 4 : 0) + (permissions[2] === 'w' ? 2 : 0) + (permissions[3] === 'x' ? 1 : 0);
  if (name === '') return { tag: tags.own, permissions: bits, id: NO_ID };
  const id = numeric ?? name;
  if (tags.named === undefined || !/^\d{1,10}$/.test(id) || Number(id) >= NO_ID) {
    return broken(`has an ACL for ${JSON.stringify(name.slice(0, 80))}, which is not a number`);
  }
  return { tag: tags.named, permissions: bits, id: Number(id) };
}
