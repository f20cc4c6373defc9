import { defineError } from '#base/errors.ts';

export const NotLoggedIn = defineError('UI_NOT_LOGGED_IN', (_: object) => ({
  message: 'nobody is logged in here',
  hint: 'run `estiba ui` on the machine and open the link it prints',
}));

export const LinkUsed = defineError('UI_LINK_USED', (_: object) => ({
  message: 'this link has been used, or is older than a minute',
  hint: 'run `estiba ui` again: every link is good once',
}));

export const PageMissing = defineError('UI_PAGE_MISSING', (d: { path: string }) => ({
  message: `the dashboard's page is not there: ${d.path}`,
  hint: '`make build` makes it',
}));

export const NoSuchCall = defineError('UI_NO_SUCH_CALL', (d: { method: string; path: string }) => ({
  message: `the dashboard has nothing at ${d.method} ${d.path}`,
}));

export const NoCluster = defineError('UI_NO_CLUSTER', (_: object) => ({
  message: 'this daemon serves no Kubernetes API',
}));

export const TooMuchOpen = defineError('UI_TOO_MUCH_OPEN', (d: { most: number }) => ({
  message: `one page holds ${d.most} streams open, and no more`,
  hint: 'close a terminal or a log',
}));
