import { args, bool, FILTER, FILTER_ALONE, FORCE, FORMAT, int, JSON_FLAG, MANY, QUIET, text } from '#cli/flags.ts';
import type { Verb } from '#cli/verb.ts';

const system = async (): Promise<typeof import('#cli/commands/system.ts')> => import('#cli/commands/system.ts');
const insight = async (): Promise<typeof import('#cli/commands/insight.ts')> => import('#cli/commands/insight.ts');

const NOTHING = args(0, 0, 'none');

export const SYSTEM_VERBS: readonly Verb[] = [
  {
    name: 'info',
    aliases: ['system info'],
    summary: 'Show what the daemon is and has',
    usage: '',
    args: NOTHING,
    flags: [text('f format', 'Go template, or json'), JSON_FLAG],
    load: async () => (await system()).infoCommand,
  },
  {
    name: 'version',
    summary: 'Show the versions of this program and the daemon',
    usage: '',
    args: NOTHING,
    flags: [text('f format', 'Go template, or json'), JSON_FLAG],
    load: async () => (await system()).versionCommand,
  },
  {
    name: 'events',
    aliases: ['system events'],
    summary: 'Print what happens, as it happens',
    usage: '',
    args: NOTHING,
    flags: [
      FILTER,
      FORMAT,
      JSON_FLAG,
      text('since', 'Since then', { value: 'TIME' }),
      text('until', 'Until then', { value: 'TIME' }),
    ],
    load: async () => (await system()).eventsCommand,
  },
  {
    name: 'system df',
    summary: 'Show what takes room',
    usage: '',
    args: NOTHING,
    flags: [FORMAT, JSON_FLAG],
    load: async () => (await system()).diskUsageCommand,
  },
  {
    name: 'system prune',
    summary: 'Remove what nothing uses',
    usage: '',
    args: NOTHING,
    flags: [
      bool('a all', 'All images that no container uses'),
      FILTER_ALONE,
      FORCE,
      bool('volumes', 'Anonymous volumes, too'),
    ],
    load: async () => (await system()).systemPruneCommand,
  },
  {
    name: 'login',
    summary: 'Log in to a registry',
    usage: '[SERVER]',
    args: args(0, 1, 'none'),
    flags: [
      text('p password', 'Password'),
      bool('password-stdin', 'Read the password from stdin'),
      text('u username', 'User'),
    ],
    load: async () => (await system()).loginCommand,
  },
  {
    name: 'logout',
    summary: 'Log out of a registry',
    usage: '[SERVER]',
    args: args(0, 1, 'none'),
    flags: [],
    load: async () => (await system()).logoutCommand,
  },
  {
    name: 'manifest inspect',
    summary: 'Show what a registry has under a name',
    usage: 'IMAGE',
    args: args(1, 1, 'image'),
    flags: [text('f format', 'Go template, or json')],
    load: async () => (await system()).distributionCommand,
  },
  {
    name: 'builder prune',
    aliases: ['builder rm'],
    summary: 'Remove build cache',
    usage: '',
    args: NOTHING,
    flags: [bool('a all', 'All of it'), FILTER_ALONE, FORCE],
    load: async () => (await system()).builderPruneCommand,
  },
  {
    name: 'builder ls',
    aliases: ['builder du'],
    summary: 'List build cache',
    usage: '',
    args: NOTHING,
    flags: [FORMAT, JSON_FLAG, QUIET],
    load: async () => (await system()).builderListCommand,
  },
  {
    name: 'swarm',
    aliases: ['node', 'service', 'stack', 'secret', 'config'],
    summary: 'Not there: the cluster speaks Kubernetes',
    usage: '…',
    args: args(0, MANY, 'none'),
    flags: [],
    stopAtArgument: true,
    load: async () => (await system()).notHere("swarm's API", 'use `estiba up` with a compose file, or kubectl'),
  },
];

/** What only we have. */
export const INSIGHT_VERBS: readonly Verb[] = [
  {
    name: 'xray',
    summary: 'Show what a container sees, may do and uses, and why',
    usage: 'CONTAINER',
    args: args(1, 1, 'container'),
    flags: [JSON_FLAG, text('f format', 'Go template, or json')],
    load: async () => (await insight()).xrayCommand,
  },
  {
    name: 'why',
    summary: 'Say why a container, pod/…, svc/…, ingress/…, pvc/… or deployment/… is as it is',
    usage: 'CONTAINER|KIND/NAME',
    args: args(1, 1, 'container'),
    flags: [
      JSON_FLAG,
      int('port', 'Why this port of the host does not answer', { value: 'PORT' }),
      text('n namespace', 'Namespace', { value: 'NAME', fallback: 'default' }),
      text('kube-context', 'Another cluster: a context of the kubeconfig', { value: 'NAME' }),
      text('kubeconfig', 'Kubeconfig of another cluster', { value: 'FILE', complete: 'file' }),
    ],
    load: async () => (await insight()).whyCommand,
  },
  {
    name: 'exposed',
    summary: 'List what can be reached from outside, and by whom',
    usage: '',
    args: NOTHING,
    flags: [JSON_FLAG],
    load: async () => (await insight()).exposedCommand,
  },
  {
    name: 'audit host',
    summary: 'Compare our records with the host (exit code 1: something is amiss)',
    usage: '',
    args: NOTHING,
    flags: [JSON_FLAG, bool('clean', 'Take away what nobody owns')],
    load: async () => (await insight()).auditCommand,
  },
  {
    name: 'show',
    summary: 'Show how a container would be asked for elsewhere',
    usage: 'CONTAINER',
    args: args(1, 1, 'container'),
    flags: [text('as', 'In which form', { values: ['docker-run', 'compose', 'kubernetes'], fallback: 'docker-run' })],
    load: async () => (await insight()).showCommand,
  },
  {
    name: 'completion',
    summary: 'Print the script that completes commands in a shell',
    usage: 'bash|zsh|fish',
    args: args(1, 1, 'none'),
    flags: [],
    load: async () => (await import('#cli/complete.ts')).completionCommand,
  },
];
