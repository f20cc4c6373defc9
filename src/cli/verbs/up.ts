import { args, bool, duration, FORMAT, int, JSON_FLAG, list, MANY, NO_ARGUMENTS, QUIET, text } from '#cli/flags.ts';
import type { Flag, Verb } from '#cli/verb.ts';

const CLUSTER: readonly Flag[] = [
  text('n namespace', 'Namespace of the app', { value: 'NAME' }),
  text('kube-context', 'Another cluster: a context of the kubeconfig', { value: 'NAME' }),
  text('kubeconfig', 'Kubeconfig of another cluster', { value: 'FILE', complete: 'file' }),
];
const TIMEOUT = duration('timeout', 'How long to wait', { value: 'TIME', fallback: '5m' });
const up = async (): Promise<typeof import('#cli/commands/up.ts')> => import('#cli/commands/up.ts');

/** Applications: from files to what runs. */
export const UP_VERBS: readonly Verb[] = [
  {
    name: 'up',
    summary: 'Bring up what a compose file, manifests, a kustomization or a Dockerfile describe',
    usage: '[PATH]',
    args: args(0, 1, 'file'),
    flags: [
      list('f file', 'Compose file, the later upon the earlier', { value: 'FILE', complete: 'file' }),
      text('name', 'Name of the app', { value: 'NAME' }),
      list('profile', 'Profile that is on; * for all', { value: 'NAME' }),
      bool('plan', 'Show objects and changes, change nothing (exit code 2: something would change)'),
      bool('no-build', 'Do not build images'),
      bool('no-wait', 'Do not wait until everything is ready'),
      bool('undo-on-failure', 'Bring back what ran before when it does not become ready'),
      bool('json', 'Plan as JSON'),
      TIMEOUT,
      ...CLUSTER,
    ],
    load: async () => (await up()).upCommand,
  },
  {
    name: 'down',
    summary: 'Take an app down; its volumes stay',
    usage: '[APP|PATH]',
    args: args(0, 1, 'app'),
    flags: [
      bool('volumes', 'Remove its volumes and their data, too'),
      bool('no-wait', 'Do not wait until everything is gone'),
      TIMEOUT,
      ...CLUSTER,
    ],
    load: async () => (await up()).downCommand,
  },
  {
    name: 'app ls',
    summary: 'List apps and how they are',
    usage: '',
    args: NO_ARGUMENTS,
    flags: [FORMAT, JSON_FLAG, QUIET, ...CLUSTER],
    load: async () => (await up()).appListCommand,
  },
  {
    name: 'app logs',
    summary: 'Print the logs of an app, of all its pods or of one service',
    usage: 'APP [SERVICE...]',
    args: args(1, MANY, 'app'),
    flags: [
      bool('follow', 'Go on with what comes'),
      int('tail', 'Lines from the end of each', { value: 'LINES', fallback: '100' }),
      bool('t timestamps', 'With the time of each line'),
      ...CLUSTER,
    ],
    load: async () => (await up()).appLogsCommand,
  },
  {
    name: 'app open',
    summary: 'Print the addresses at which an app is reachable',
    usage: 'APP',
    args: args(1, 1, 'app'),
    flags: [...CLUSTER],
    load: async () => (await up()).appOpenCommand,
  },
];
