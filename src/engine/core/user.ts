import { defineError } from '#base/errors.ts';

export const NoSuchUser = defineError('NO_SUCH_USER', (d: { kind: 'user' | 'group'; name: string; file: string }) => ({
  message: `unable to find ${d.kind} ${d.name}: no matching entries in ${d.file}`,
  hint: 'use a number, or a name that the image knows',
}));

export interface ResolvedUser {
  uid: number;
  gid: number;
  additionalGids: number[];
  /** The home directory, for HOME. */
  home: string;
}

const MAX_ID = 2 ** 32 - 2; // −1 means "leave it" to the kernel's calls

/**
 * `user[:group]` against the image's own `/etc/passwd` and `/etc/group` (their text; '' when there is none). Numbers need no
 * entry. Without a group, the user's own one counts, and all groups that name the user; with one, that group alone.
 */
export function resolveUser(
  wish: string,
  files: { passwd: string; group: string },
  extraGroups: readonly string[] = [],
): ResolvedUser {
  const [userPart = '', groupPart] = wish.split(':', 2);
  const users = records(files.passwd);
  const groups = records(files.group);
  const entry = findEntry(users, userPart === '' ? '0' : userPart);
  const uid = userPart === '' ? 0 : (numberOf(entry?.[2]) ?? numberOf(userPart));
  if (uid === undefined) throw new NoSuchUser({ kind: 'user', name: userPart, file: '/etc/passwd' });

  const groupId = (name: string): number => {
    const gid = numberOf(findEntry(groups, name)?.[2]) ?? numberOf(name);
    if (gid === undefined) throw new NoSuchUser({ kind: 'group', name, file: '/etc/group' });
    return gid;
  };
  const gid = groupPart === undefined || groupPart === '' ? (numberOf(entry?.[3]) ?? 0) : groupId(groupPart);
  const member = entry?.[0];
  const memberOf =
    groupPart === undefined && member !== undefined
      ? groups.filter((g) => (g[3] ?? '').split(',').includes(member)).flatMap((g) => numberOf(g[2]) ?? [])
      : [];
  // The primary group is among them, or a program that drops it could keep what only the group may not (CVE-2022-36109).
  const additionalGids = [...new Set([gid, ...memberOf, ...extraGroups.map(groupId)])];
  return { uid, gid, additionalGids, home: entry?.[5] || '/' };
}

/** By name first: a user may be called 1000. */
function findEntry(entries: string[][], wish: string): string[] | undefined {
  return entries.find((e) => e[0] === wish) ?? (/^\d+$/.test(wish) ? entries.find((e) => e[2] === wish) : undefined);
}

function records(text: string): string[][] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(':'));
}

function numberOf(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d{1,10}$/.test(text)) return undefined;
  const id = Number(text);
  return id <= MAX_ID ? id : undefined;
}
