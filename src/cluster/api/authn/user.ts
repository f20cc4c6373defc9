/** Who asks, as authentication found out. */
export interface User {
  username: string;
  uid?: string;
  groups: readonly string[];
  extra?: Readonly<Record<string, readonly string[]>>;
}

export const ANONYMOUS: User = { username: 'system:anonymous', groups: ['system:unauthenticated'] };
export const MASTERS = 'system:masters';
export const AUTHENTICATED = 'system:authenticated';

/** The API server itself: bootstrap objects, and what one request makes it write besides. */
export const SERVER: User = { username: 'system:apiserver', groups: [MASTERS, AUTHENTICATED] };

/** Name of the node a node's user stands for, or undefined. */
export function nodeNameOf(user: User): string | undefined {
  return user.username.startsWith('system:node:') && user.groups.includes('system:nodes')
    ? user.username.slice('system:node:'.length)
    : undefined;
}
