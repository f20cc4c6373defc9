import type {
  ComposeAttachment,
  ComposeBuild,
  ComposeFileMount,
  ComposeHealthcheck,
  ComposeMount,
  ComposePort,
  ComposeService,
  DependsCondition,
} from './model.ts';
import * as read from './read.ts';
import { type MapTree, refuse, type Tree } from './tree.ts';

// The attributes of a service: specification chapter 5, build.md and deploy.md.
const KNOWN = new Set(
  (
    'annotations attach blkio_config build cap_add cap_drop cgroup cgroup_parent command configs container_name cpu_count ' +
    'cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpus cpuset credential_spec depends_on deploy ' +
    'develop device_cgroup_rules devices dns dns_opt dns_search domainname entrypoint env_file environment expose extends ' +
    'external_links extra_hosts gpus group_add healthcheck hostname image init ipc isolation label_file labels links logging ' +
    'mac_address mem_limit mem_reservation mem_swappiness memswap_limit models network_mode networks oom_kill_disable ' +
    'oom_score_adj pid pids_limit platform ports post_start pre_stop privileged profiles provider pull_policy ' +
    'pull_refresh_after read_only restart runtime scale secrets security_opt shm_size stdin_open stop_grace_period stop_signal ' +
    'storage_opt sysctls tmpfs tty ulimits use_api_socket user userns_mode uts volumes volumes_from working_dir'
  ).split(' '),
);

/** Attributes that have a field of their own in the model; all others go into `rest`. */
const TAKEN = new Set(
  (
    'build cap_add cap_drop command configs container_name cpus depends_on entrypoint env_file environment expose extends ' +
    'healthcheck hostname image init labels mem_limit mem_reservation networks pids_limit ports privileged profiles read_only ' +
    'restart scale secrets stdin_open stop_grace_period stop_signal tmpfs tty user volumes working_dir'
  ).split(' '),
);

export function readService(name: string, tree: Tree): ComposeService {
  const path = `services.${name}`;
  const source = read.map(tree, path);
  read.onlyKnown(source, KNOWN, path);
  const at = (attribute: string): Tree | undefined => source.entries.get(attribute);
  const take = <T>(attribute: string, reader: (tree: Tree, path: string) => T): T | undefined => {
    const value = at(attribute);
    return value && reader(value, `${path}.${attribute}`);
  };
  const deploy = take('deploy', read.map);
  const rest = new Map([...source.entries].filter(([key]) => !TAKEN.has(key)));
  if (deploy && [...deploy.entries.keys()].every((k) => k === 'replicas' || k === 'resources')) rest.delete('deploy');
  if (!at('image') && !at('build') && !at('provider')) refuse(source.at, path, 'has neither an image nor a build');
  return {
    name,
    at: source.at,
    ...optional('image', take('image', read.text)),
    ...optional('build', take('build', readBuild)),
    ...optional('command', take('command', read.command)),
    ...optional('entrypoint', take('entrypoint', read.command)),
    environment: take('environment', read.named) ?? {},
    ports: take('ports', (t, p) => read.list(t, p).flatMap((e, i) => readPort(e, `${p}[${i}]`))) ?? [],
    expose: take('expose', read.texts) ?? [],
    volumes: take('volumes', (t, p) => read.list(t, p).map((e, i) => readMount(e, `${p}[${i}]`))) ?? [],
    networks: take('networks', readNetworks) ?? (at('network_mode') ? {} : { default: JOINED }),
    dependsOn: take('depends_on', readDependsOn) ?? {},
    ...optional('healthcheck', take('healthcheck', readHealthcheck)),
    secrets: take('secrets', (t, p) => readFileMounts(t, p, (source) => `/run/secrets/${source}`)) ?? [],
    configs: take('configs', (t, p) => readFileMounts(t, p, (source) => `/${source}`)) ?? [],
    labels: take('labels', read.namedTexts) ?? {},
    profiles: take('profiles', read.texts) ?? [],
    ...optional('restart', take('restart', readRestart)),
    ...optional('replicas', take('scale', read.integer) ?? child(deploy, 'replicas', read.integer, path)),
    ...optional('user', take('user', read.text)),
    ...optional('workingDir', take('working_dir', read.text)),
    ...optional('hostname', take('hostname', read.text)),
    ...optional('containerName', take('container_name', read.text)),
    ...optional('stopGracePeriodMs', take('stop_grace_period', read.duration)),
    ...optional('stopSignal', take('stop_signal', read.text)),
    tmpfs: take('tmpfs', read.textsOrOne) ?? [],
    capAdd: take('cap_add', read.texts) ?? [],
    capDrop: take('cap_drop', read.texts) ?? [],
    ...optional('privileged', take('privileged', read.bool)),
    ...optional('readOnly', take('read_only', read.bool)),
    ...optional('init', take('init', read.bool)),
    ...optional('tty', take('tty', read.bool)),
    ...optional('stdinOpen', take('stdin_open', read.bool)),
    resources: { ...readResources(deploy, path), ...readOldResources(source, path) },
    rest,
    where: (attribute) => (at(attribute) ?? source).at,
  };
}

function optional<K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } {
  return (value === undefined ? {} : { [key]: value }) as { [P in K]?: V };
}

function child<T>(
  map: MapTree | undefined,
  key: string,
  reader: (tree: Tree, path: string) => T,
  path: string,
): T | undefined {
  const value = map?.entries.get(key);
  return value && reader(value, `${path}.${key}`);
}

const BUILD = new Set(
  (
    'additional_contexts args cache_from cache_to context dockerfile dockerfile_inline entitlements extra_hosts isolation labels ' +
    'network no_cache no_cache_filter platforms privileged provenance pull sbom secrets shm_size ssh tags target ulimits'
  ).split(' '),
);
const BUILD_TAKEN = new Set(['context', 'dockerfile', 'dockerfile_inline', 'args', 'target']);

function readBuild(tree: Tree, path: string): ComposeBuild {
  if (tree.is === 'scalar') return { context: read.text(tree, path), args: {}, rest: new Map() };
  const source = read.map(tree, path);
  read.onlyKnown(source, BUILD, path);
  const both = source.entries.has('dockerfile') && source.entries.get('dockerfile_inline');
  if (both) refuse(both.at, `${path}.dockerfile_inline`, 'cannot stand beside dockerfile');
  return {
    context: child(source, 'context', read.text, path) ?? '.',
    ...optional('dockerfile', child(source, 'dockerfile', read.text, path)),
    ...optional('dockerfileInline', child(source, 'dockerfile_inline', read.text, path)),
    args: child(source, 'args', read.named, path) ?? {},
    ...optional('target', child(source, 'target', read.text, path)),
    rest: new Map([...source.entries].filter(([key]) => !BUILD_TAKEN.has(key))),
  };
}

const PORT = new Set(['target', 'published', 'host_ip', 'protocol', 'mode', 'name', 'app_protocol']);

/** `[[IP:]HOST:]CONTAINER[/PROTOCOL]` with ranges, or a mapping; a range makes one port each. */
function readPort(tree: Tree, path: string): ComposePort[] {
  if (tree.is === 'map') {
    read.onlyKnown(tree, PORT, path);
    const target = tree.entries.get('target');
    if (!target) refuse(tree.at, path, 'has no target');
    const hostIp = child(tree, 'host_ip', read.text, path);
    const published = child(tree, 'published', read.text, path);
    const port = {
      target: portNumber(read.text(target, path), target, path),
      protocol: child(tree, 'protocol', read.text, path) ?? 'tcp',
      ...optional('hostIp', hostIp),
      at: tree.at,
    };
    const host = published ? range(published, tree, path) : [];
    // A range of host ports for one container port: any of them, so the first.
    return [{ ...port, ...optional('published', host[0]) }];
  }
  const written = read.text(tree, path);
  const match =
    /^(?:(\[[0-9a-fA-F:.]+\]|[0-9a-fA-F:.]*?):)?(?:(\d+(?:-\d+)?)?:)?(\d+(?:-\d+)?)(?:\/(tcp|udp|sctp))?$/.exec(
      written,
    );
  if (!match) return refuse(tree.at, path, `${JSON.stringify(written)} is not [[IP:]HOST:]CONTAINER[/PROTOCOL]`);
  let [, ip, host, container = '', protocol = 'tcp'] = match;
  // `8080:80`: what looks like the address is the host port.
  if (ip !== undefined && host === undefined && /^\d+(-\d+)?$/.test(ip)) [ip, host] = [undefined, ip];
  else if (ip?.includes('-')) refuse(tree.at, path, `${JSON.stringify(written)} has no valid address`);
  const targets = range(container, tree, path);
  const published = host === undefined ? [] : range(host, tree, path);
  if (published.length > 1 && published.length !== targets.length && targets.length > 1)
    refuse(tree.at, path, `${JSON.stringify(written)}: the ranges differ in length`);
  const hostIp = ip?.replace(/^\[|\]$/g, '');
  return targets.map((target, i) => ({
    target,
    protocol,
    ...optional('published', published[i]),
    ...(hostIp ? { hostIp } : {}),
    at: tree.at,
  }));
}

function range(written: string, tree: Tree, path: string): number[] {
  const [first = '', last = first] = written.split('-');
  const [from, to] = [portNumber(first, tree, path), portNumber(last, tree, path)];
  if (to < from) refuse(tree.at, path, `${JSON.stringify(written)} runs backwards`);
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}

function portNumber(written: string, tree: Tree, path: string): number {
  const number = /^\d+$/.test(written) ? Number(written) : -1;
  return number >= 0 && number <= 65535 ? number : refuse(tree.at, path, `${JSON.stringify(written)} is no port`);
}

const MOUNT = new Set(['type', 'source', 'target', 'read_only', 'bind', 'volume', 'tmpfs', 'image', 'consistency']);
const MOUNT_TYPES = ['bind', 'volume', 'tmpfs', 'image', 'npipe', 'cluster'] as const;

/** `[SOURCE:]TARGET[:MODE]`, or a mapping. A source that begins with `.`, `/` or `~` is a path, any other a volume's name. */
function readMount(tree: Tree, path: string): ComposeMount {
  if (tree.is === 'map') {
    read.onlyKnown(tree, MOUNT, path);
    const target = child(tree, 'target', read.text, path) ?? refuse(tree.at, path, 'has no target');
    const written = child(tree, 'type', read.text, path) ?? 'volume';
    const type =
      MOUNT_TYPES.find((t) => t === written) ??
      refuse(tree.at, `${path}.type`, `${JSON.stringify(written)} is no type of mount`);
    const rest = new Map(
      [...tree.entries].filter(([k]) => k === 'bind' || k === 'volume' || k === 'tmpfs' || k === 'image'),
    );
    const readOnly = child(tree, 'read_only', read.bool, path) ?? false;
    return { type, ...optional('source', child(tree, 'source', read.text, path)), target, readOnly, at: tree.at, rest };
  }
  const written = read.text(tree, path);
  const parts = written.split(':');
  if (parts.length > 3 || parts.some((p) => p === ''))
    refuse(tree.at, path, `${JSON.stringify(written)} is not [SOURCE:]TARGET[:MODE]`);
  const [source, target, mode = ''] = parts.length === 1 ? [undefined, parts[0]] : parts;
  const modes = mode === '' ? [] : mode.split(',');
  const type = source !== undefined && /^[./~]/.test(source) ? 'bind' : 'volume';
  return {
    type,
    ...optional('source', source),
    target: target ?? '',
    readOnly: modes.includes('ro'),
    at: tree.at,
    rest: new Map(modes.flatMap((m) => readMode(m, type, tree, path))),
  };
}

const PROPAGATIONS = ['rshared', 'rslave', 'rprivate', 'shared', 'slave', 'private'];
/** `ro` has a field of its own; the others say what holds already, or are for SELinux and macOS. */
const PLAIN_MODES = ['ro', 'rw', 'z', 'Z', 'cached', 'delegated', 'consistent'];

/** A mode of the short syntax as the long one has it: `rslave` is `bind: {propagation: rslave}`. */
function readMode(mode: string, type: 'bind' | 'volume', { at }: Tree, path: string): [string, Tree][] {
  const said = (key: string, value: string | boolean): Tree => ({
    is: 'map',
    at,
    entries: new Map([[key, { is: 'scalar', at, value, text: String(value) }]]),
  });
  if (PLAIN_MODES.includes(mode)) return [];
  if (type === 'bind' && PROPAGATIONS.includes(mode)) return [['bind', said('propagation', mode)]];
  if (type === 'volume' && mode === 'nocopy') return [['volume', said('nocopy', true)]];
  return refuse(at, path, `${JSON.stringify(mode)} is no mode of a ${type} mount`);
}

const JOINED: ComposeAttachment = { aliases: [] };
const ATTACHMENT = new Set(
  'aliases driver_opts gw_priority interface_name ipv4_address ipv6_address link_local_ips mac_address priority'.split(
    ' ',
  ),
);

function readNetworks(tree: Tree, path: string): ComposeService['networks'] {
  const out: ComposeService['networks'] = {};
  if (tree.is === 'list') for (const name of read.texts(tree, path)) out[name] = JOINED;
  else
    for (const [name, value] of read.map(tree, path).entries) {
      const settings = read.map(value, `${path}.${name}`);
      read.onlyKnown(settings, ATTACHMENT, `${path}.${name}`);
      const rest = new Map([...settings.entries].filter(([key]) => key !== 'aliases' && key !== 'ipv4_address'));
      out[name] = {
        aliases: child(settings, 'aliases', read.texts, `${path}.${name}`) ?? [],
        ...optional('ipv4Address', child(settings, 'ipv4_address', read.text, `${path}.${name}`)),
        ...(rest.size > 0 ? { rest } : {}),
      };
    }
  return out;
}

const CONDITIONS = ['service_started', 'service_healthy', 'service_completed_successfully'] as const;

function readDependsOn(tree: Tree, path: string): ComposeService['dependsOn'] {
  const out: ComposeService['dependsOn'] = {};
  const started: DependsCondition = 'service_started';
  if (tree.is === 'list')
    for (const name of read.texts(tree, path)) out[name] = { condition: started, required: true, restart: false };
  else
    for (const [name, value] of read.map(tree, path).entries) {
      const settings = read.map(value, `${path}.${name}`);
      read.onlyKnown(settings, new Set(['condition', 'required', 'restart']), `${path}.${name}`);
      const written = child(settings, 'condition', read.text, `${path}.${name}`) ?? started;
      const condition =
        CONDITIONS.find((c) => c === written) ??
        refuse(value.at, `${path}.${name}.condition`, `${JSON.stringify(written)} is none of ${CONDITIONS.join(', ')}`);
      const required = child(settings, 'required', read.bool, `${path}.${name}`) ?? true;
      out[name] = { condition, required, restart: child(settings, 'restart', read.bool, `${path}.${name}`) ?? false };
    }
  return out;
}

function readHealthcheck(tree: Tree, path: string): ComposeHealthcheck {
  const source = read.map(tree, path);
  read.onlyKnown(
    source,
    new Set(['disable', 'test', 'interval', 'timeout', 'retries', 'start_period', 'start_interval']),
    path,
  );
  const written = source.entries.get('test');
  const test = written && readTest(written, `${path}.test`);
  const disabled = (child(source, 'disable', read.bool, path) ?? false) || test?.[0] === 'NONE';
  return {
    disabled,
    ...optional('test', test),
    ...optional('intervalMs', child(source, 'interval', read.duration, path)),
    ...optional('timeoutMs', child(source, 'timeout', read.duration, path)),
    ...optional('startPeriodMs', child(source, 'start_period', read.duration, path)),
    ...optional('startIntervalMs', child(source, 'start_interval', read.duration, path)),
    ...optional('retries', child(source, 'retries', read.integer, path)),
  };
}

function readTest(tree: Tree, path: string): readonly string[] {
  if (tree.is === 'scalar') return ['CMD-SHELL', read.text(tree, path)];
  const test = read.texts(tree, path);
  if (!['NONE', 'CMD', 'CMD-SHELL'].includes(test[0] ?? ''))
    refuse(tree.at, path, 'must begin with NONE, CMD or CMD-SHELL');
  return test;
}

function readFileMounts(tree: Tree, path: string, place: (source: string) => string): ComposeFileMount[] {
  return read.list(tree, path).map((entry, i): ComposeFileMount => {
    const here = `${path}[${i}]`;
    if (entry.is === 'scalar')
      return { source: read.text(entry, here), target: place(read.text(entry, here)), at: entry.at };
    const settings = read.map(entry, here);
    read.onlyKnown(settings, new Set(['source', 'target', 'uid', 'gid', 'mode']), here);
    const source = child(settings, 'source', read.text, here) ?? refuse(entry.at, here, 'has no source');
    const target = child(settings, 'target', read.text, here);
    const mode = settings.entries.get('mode');
    return {
      source,
      // A bare name stands where names stand.
      target: target === undefined ? place(source) : target.startsWith('/') ? target : place(target),
      ...optional('uid', child(settings, 'uid', read.text, here)),
      ...optional('gid', child(settings, 'gid', read.text, here)),
      ...optional('mode', mode && readFileMode(mode, here)),
      at: entry.at,
    };
  });
}

/** `0440`, `0o440` or `"0440"`: octal however it is written. */
function readFileMode(tree: Tree, path: string): number {
  const digits = /^(?:0o?)?([0-7]{3,4})$/.exec(read.text(tree, path))?.[1];
  return digits === undefined
    ? refuse(tree.at, `${path}.mode`, 'must be an octal mode such as 0440')
    : Number.parseInt(digits, 8);
}

function readRestart(tree: Tree, path: string): string {
  // Unquoted `no` is a boolean to YAML 1.1 readers and people alike.
  const written = tree.is === 'scalar' && tree.value === false ? 'no' : read.text(tree, path);
  if (!/^(no|always|unless-stopped|on-failure(:\d+)?)$/.test(written))
    refuse(tree.at, path, `${JSON.stringify(written)} is none of no, always, on-failure[:N], unless-stopped`);
  return written;
}

function readResources(deploy: MapTree | undefined, path: string): ComposeService['resources'] {
  const resources = child(deploy, 'resources', read.map, `${path}.deploy`);
  const limits = child(resources, 'limits', read.map, `${path}.deploy.resources`);
  const reserved = child(resources, 'reservations', read.map, `${path}.deploy.resources`);
  const here = `${path}.deploy.resources`;
  // Devices and generic resources have no field in the model: refused here, not dropped.
  for (const part of [limits, reserved]) if (part) read.onlyKnown(part, new Set(['cpus', 'memory', 'pids']), here);
  return {
    ...optional('cpus', child(limits, 'cpus', read.decimal, here)),
    ...optional('memoryBytes', child(limits, 'memory', read.bytes, here)),
    ...optional('pids', child(limits, 'pids', read.integer, here)),
    ...optional('reservedCpus', child(reserved, 'cpus', read.decimal, here)),
    ...optional('reservedMemoryBytes', child(reserved, 'memory', read.bytes, here)),
  };
}

function readOldResources(service: MapTree, path: string): ComposeService['resources'] {
  return {
    ...optional('cpus', child(service, 'cpus', read.decimal, path)),
    ...optional('memoryBytes', child(service, 'mem_limit', read.bytes, path)),
    ...optional('reservedMemoryBytes', child(service, 'mem_reservation', read.bytes, path)),
    ...optional('pids', child(service, 'pids_limit', read.integer, path)),
  };
}
