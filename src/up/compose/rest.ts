import { isIP } from 'node:net';
import type { ComposeService } from '#spec/compose/model.ts';
import * as read from '#spec/compose/read.ts';
import { refuse, type Tree } from '#spec/compose/tree.ts';
import type {
  Container,
  LifecycleHandler,
  PodSecurityContext,
  PodSpec,
  SecurityContext,
} from '#spec/kubernetes/types.gen.ts';
import { annotationsOf, literal } from '#up/compose/context.ts';

/** The pod as far as it is made; each attribute adds its part. */
export interface PodDraft {
  annotations: Record<string, string>;
  pod: Partial<PodSpec>;
  podSecurity: PodSecurityContext;
  container: Partial<Container>;
  security: SecurityContext;
}

type Taker = (tree: Tree, path: string, draft: PodDraft, service: ComposeService) => void;

/** Attributes read elsewhere in this folder. */
const ELSEWHERE = new Set(['deploy', 'shm_size', 'links', 'network_mode']);

/** Attributes that mean something to other commands than `up`, so that nothing is lost here. */
const FOR_OTHERS = new Set(['develop', 'attach']);

const TAKERS: Readonly<Record<string, Taker>> = {
  annotations: (tree, path, draft) => {
    Object.assign(draft.annotations, annotationsOf(read.namedTexts(tree, path), tree.at, path));
  },
  dns_search: (tree, path, { pod }) => {
    pod.dnsConfig = { ...pod.dnsConfig, searches: read.textsOrOne(tree, path) };
  },
  dns_opt: (tree, path, { pod }) => {
    const options = read.texts(tree, path).map((o) => {
      const [name = '', value] = o.split(':');
      return value === undefined ? { name } : { name, value };
    });
    pod.dnsConfig = { ...pod.dnsConfig, options };
  },
  extra_hosts: (tree, path, { pod }) => {
    pod.hostAliases = hostAliases(tree, path);
  },
  group_add: (tree, path, { podSecurity }) => {
    podSecurity.supplementalGroups = read
      .texts(tree, path)
      .map((g) => numericId(g) ?? refuse(tree.at, path, onlyNumbers(g)));
  },
  ipc: (tree, path, { pod }) => {
    if (only(tree, path, ['host', 'private', 'shareable']) === 'host') pod.hostIPC = true;
  },
  logging: (tree, path) => {
    const settings = read.map(tree, path);
    read.onlyKnown(settings, new Set(['driver', 'options']), path);
    const options = settings.entries.get('options');
    if (options && read.map(options, path).entries.size > 0)
      refuse(options.at, `${path}.options`, 'logs of pods are kept as the node keeps them: leave this away');
    const driver = settings.entries.get('driver');
    if (driver) only(driver, `${path}.driver`, ['json-file', 'local']);
  },
  pid: (tree, path, { pod }) => {
    only(tree, path, ['host']);
    pod.hostPID = true;
  },
  platform: (tree, path, { pod }) => {
    const [os = '', architecture = ''] = read.text(tree, path).split('/');
    if (os !== 'linux') refuse(tree.at, path, 'only linux runs here');
    if (architecture !== '') pod.nodeSelector = { ...pod.nodeSelector, 'kubernetes.io/arch': architecture };
  },
  post_start: (tree, path, { container }) => {
    container.lifecycle = { ...container.lifecycle, postStart: hook(tree, path) };
  },
  pre_stop: (tree, path, { container }) => {
    container.lifecycle = { ...container.lifecycle, preStop: hook(tree, path) };
  },
  pull_policy: (tree, path, { container }) => {
    const policies = {
      always: 'Always',
      never: 'Never',
      missing: 'IfNotPresent',
      if_not_present: 'IfNotPresent',
      build: 'IfNotPresent',
    } as const;
    const wish = only(tree, path, Object.keys(policies) as (keyof typeof policies)[]);
    container.imagePullPolicy = policies[wish];
  },
  security_opt: (tree, path, draft) => {
    for (const option of read.texts(tree, path)) securityOption(option, tree, path, draft);
  },
  sysctls: (tree, path, { podSecurity }) => {
    podSecurity.sysctls = Object.entries(read.namedTexts(tree, path)).map(([name, value]) => ({ name, value }));
  },
  userns_mode: (tree, path, { pod }) => {
    only(tree, path, ['host']);
    pod.hostUsers = true;
  },
};

/** Adds what stands in attributes without a field of their own; one that has no counterpart is refused by file and line. */
export function takeRest(service: ComposeService, draft: PodDraft): void {
  for (const [attribute, tree] of service.rest) {
    if (ELSEWHERE.has(attribute) || FOR_OTHERS.has(attribute) || attribute.startsWith('x-')) continue;
    const path = `services.${service.name}.${attribute}`;
    const take = TAKERS[attribute];
    if (!take) refuse(tree.at, path, 'has no counterpart in Kubernetes');
    take(tree, path, draft, service);
  }
}

/** The text, if it is one of the given; any other is refused. */
export function only<const T extends string>(tree: Tree, path: string, allowed: readonly T[]): T {
  const written = read.text(tree, path);
  const found = allowed.find((a) => a === written);
  return (
    found ??
    refuse(
      tree.at,
      path,
      `${JSON.stringify(written)} has no counterpart in Kubernetes; ${allowed.join(', ')} would have`,
    )
  );
}

/** `0`, `1000`, `root`; undefined for other names, which only the image could tell. */
export function numericId(text: string): number | undefined {
  if (text === 'root') return 0;
  return /^\d{1,10}$/.test(text) ? Number(text) : undefined;
}

export function onlyNumbers(name: string): string {
  return `${JSON.stringify(name)} is a name of the image's own; Kubernetes takes the number`;
}

function hostAliases(tree: Tree, path: string): NonNullable<PodSpec['hostAliases']> {
  const byAddress = new Map<string, string[]>();
  const add = (hostname: string, address: string): void => {
    const ip = address.replace(/^\[|\]$/g, '');
    if (isIP(ip) === 0)
      refuse(tree.at, path, `${JSON.stringify(address)} is no address; the host's own is not known beforehand`);
    byAddress.set(ip, [...(byAddress.get(ip) ?? []), hostname]);
  };
  if (tree.is === 'map')
    for (const [name, value] of tree.entries)
      for (const address of read.textsOrOne(value, `${path}.${name}`)) add(name, address);
  else
    for (const entry of read.texts(tree, path)) {
      const [, name = '', address = ''] =
        /^([^:=]+)[:=](.+)$/.exec(entry) ?? refuse(tree.at, path, `${entry} is not HOST=ADDRESS`);
      add(name, address);
    }
  return [...byAddress].map(([ip, hostnames]) => ({ ip, hostnames }));
}

function hook(tree: Tree, path: string): LifecycleHandler {
  const hooks = read.list(tree, path);
  const [first, second] = hooks;
  if (!first) refuse(tree.at, path, 'is empty');
  if (second) refuse(second.at, `${path}[1]`, 'Kubernetes has one such hook a container: join the commands');
  const settings = read.map(first, `${path}[0]`);
  for (const [key, value] of settings.entries)
    if (key !== 'command') refuse(value.at, `${path}[0].${key}`, 'has no counterpart in Kubernetes');
  const written = settings.entries.get('command') ?? refuse(first.at, `${path}[0]`, 'has no command');
  return { exec: { command: (read.command(written, `${path}[0].command`) ?? []).map(literal) } };
}

function securityOption(option: string, tree: Tree, path: string, draft: PodDraft): void {
  switch (option.replace('=', ':')) {
    case 'no-new-privileges':
    case 'no-new-privileges:true':
      draft.security.allowPrivilegeEscalation = false;
      return;
    case 'no-new-privileges:false':
      draft.security.allowPrivilegeEscalation = true;
      return;
    case 'seccomp:unconfined':
      draft.podSecurity.seccompProfile = { type: 'Unconfined' };
      return;
    case 'apparmor:unconfined':
      draft.podSecurity.appArmorProfile = { type: 'Unconfined' };
      return;
    default:
      refuse(tree.at, path, `${JSON.stringify(option)} has no counterpart in Kubernetes`);
  }
}
