import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import type { TlsWish } from '#app/api-tls.ts';
import { defineError, errnoOf, messageOf } from '#base/errors.ts';
import { array, boolean, integer, object, optional, record, string } from '#base/shape.ts';
import { parseSizeBytes } from '#base/units.ts';
import { OUR_RUNTIME, type RuntimeSettings } from '#engine/core/runtimes.ts';

/** What `estiba daemon` is asked to be. Command line over configuration file over defaults. */
export interface DaemonOptions {
  name: string;
  dataRoot: string;
  runRoot: string;
  serves: ReadonlySet<Service>;
  /** Addresses of the Docker API beside `R/docker.sock`. */
  hosts: readonly HostAddress[];
  /** Of the addresses on TCP. */
  tls: TlsWish;
  /** Who may use the socket beside root. */
  group: string;
  kube: Listen;
  /** Undefined: nobody is served. */
  ingress: IngressListen | undefined;
  /** Addresses for Services of type LoadBalancer. */
  lbPool?: string;
  drainMs: number;
  registry: Listen | undefined;
  ui: (Listen & { asked: boolean }) | undefined;
  registryMirrors: readonly string[];
  insecureRegistries: readonly string[];
  bip?: string;
  podCidr?: string;
  serviceCidr?: string;
  clusterDomain: string;
  nodeName?: string;
  mtuBytes: number;
  bootstrap: boolean;
  /** Bytes of blobs and layers together. */
  imageBudgetBytes?: number;
  stopGraceMs: number;
  runtimes: RuntimeSettings;
}

export const SERVICES = ['engine', 'kube', 'registry', 'ui'] as const;
export type Service = (typeof SERVICES)[number];

export type HostAddress = { kind: 'unix'; path: string } | ({ kind: 'tcp' } & Listen);

export interface IngressListen {
  host: string;
  httpPort: number;
  httpsPort: number;
}

export interface Listen {
  host: string;
  port: number;
}

export const HELP = `estiba daemon: containers, registry and Kubernetes API of one node

  --only engine,kube,registry,ui  serve these alone
  --data-root D                   what lasts (/var/lib/estiba)
  --run-root R                    what a reboot takes, and sockets: R/docker.sock, R/endpoints.json (/run/estiba)
  --name N                        names the nftables table, the bridge N0, links N-… and the cgroup /N (estiba)
  -H, --host ADDRESS              one more address of the Docker API: unix:///PATH, tcp://127.0.0.1:PORT; again for more
  --tlsverify                     clients on TCP need a certificate; --tls: they do not
  --tlscacert, --tlscert, --tlskey FILE   (/etc/estiba/ca.pem, cert.pem, key.pem)
  --group NAME                    who may use the socket beside root (docker)
  --kube, --registry ADDRESS:PORT port 0 picks a free one, off serves none (127.0.0.1:6443, 127.0.0.1:5000)
  --ui ADDRESS:PORT               the dashboard, the same way (127.0.0.1:8443, or a free port); beyond the loopback with --tls
  --ingress [ADDRESS:]HTTP,HTTPS  ports of the Ingress proxy, off for none (0.0.0.0:80,443)
  --lb-pool CIDR                  addresses for Services of type LoadBalancer (the host's, at their own ports)
  --drain SECONDS                 a pod's SIGTERM waits until nothing is sent to it any more, so long at most; 0: not at all (5)
  --registry-mirror URL           a mirror of docker.io; again for more
  --insecure-registry HOST        a registry without TLS, or a network of such (10.0.0.0/8); again for more
  --bip CIDR, --mtu BYTES         of the default bridge
  --pod-cidr, --service-cidr CIDR addresses of pods (10.42.0.0/24, or a free range) and of Services (10.96.0.0/16, likewise)
  --cluster-domain NAME           of the cluster's DNS (cluster.local)
  --node-name NAME                of this node in the cluster (the host's)
  --bootstrap on|off              make debian and busybox here when no registry can be reached (on)
  --image-budget SIZE             above it images that no container uses go, the least recently used first (20g; none)
  --stop-timeout SECONDS          grace of a stop that names none (10)
  --add-runtime NAME=PATH         an OCI runtime that a container may name (--runtime); again for more. runc, crun, youki and runsc are found on PATH
  --default-runtime NAME          what containers run on that name none (estiba)
  --config-file FILE              Docker's daemon.json: the same by Docker's names (/etc/estiba/daemon.json)
  --remove                        do not serve: end the node of these roots and this name, containers, images, volumes and all
`;

export const DaemonUsage = defineError('USAGE', (d: { why: string }) => ({ message: d.why, hint: HELP }));

export const ConfigInvalid = defineError('CONFIG_INVALID', (d: { path: string; why: string }) => ({
  message: `${d.path}: ${d.why}`,
}));

const DEFAULT_CONFIG = '/etc/estiba/daemon.json';
const NAME = /^[a-z][a-z0-9-]{0,11}$/;
const DEFAULT_MTU_BYTES = 1500;
const DEFAULT_STOP_SECONDS = 10;
const DEFAULT_DRAIN_SECONDS = 5;

/** Docker's keys that mean something here. Others are refused: a setting that is not looked at would be believed. */
const ConfigFile = object(
  {
    'data-root': optional(string({ nonEmpty: true })),
    'exec-root': optional(string({ nonEmpty: true })),
    hosts: optional(array(string())),
    group: optional(string()),
    tls: optional(boolean()),
    tlsverify: optional(boolean()),
    tlscacert: optional(string()),
    tlscert: optional(string()),
    tlskey: optional(string()),
    bip: optional(string()),
    mtu: optional(integer({ min: 68, max: 65_535 })),
    'registry-mirrors': optional(array(string())),
    'insecure-registries': optional(array(string())),
    'shutdown-timeout': optional(integer({ min: 0 })),
    'live-restore': optional(boolean()),
    runtimes: optional(
      record(
        object({ path: string({ nonEmpty: true }), runtimeArgs: optional(array(string())) }, { unknown: 'reject' }),
      ),
    ),
    'default-runtime': optional(string({ nonEmpty: true })),
  },
  { unknown: 'reject' },
);
type ConfigFile = ReturnType<typeof ConfigFile>;

/** Undefined: help was asked for. */
export async function readDaemonOptions(
  args: string[],
): Promise<{ options: DaemonOptions; remove: boolean } | undefined> {
  const values = parseFlags(args);
  if (values.help) return undefined;
  return {
    options: daemonOptions(values, await readConfig(values['config-file'])),
    remove: values.remove ?? false,
  };
}

function parseFlags(args: string[]) {
  try {
    return parseArgs({
      args: args.map(withValue),
      options: {
        only: { type: 'string' },
        'data-root': { type: 'string' },
        'run-root': { type: 'string' },
        name: { type: 'string' },
        host: { type: 'string', short: 'H', multiple: true },
        group: { type: 'string' },
        tls: { type: 'string' },
        tlsverify: { type: 'string' },
        tlscacert: { type: 'string' },
        tlscert: { type: 'string' },
        tlskey: { type: 'string' },
        kube: { type: 'string' },
        registry: { type: 'string' },
        ui: { type: 'string' },
        ingress: { type: 'string' },
        'lb-pool': { type: 'string' },
        drain: { type: 'string' },
        'registry-mirror': { type: 'string', multiple: true },
        'insecure-registry': { type: 'string', multiple: true },
        bip: { type: 'string' },
        mtu: { type: 'string' },
        'pod-cidr': { type: 'string' },
        'service-cidr': { type: 'string' },
        'cluster-domain': { type: 'string' },
        'node-name': { type: 'string' },
        bootstrap: { type: 'string' },
        'image-budget': { type: 'string' },
        'stop-timeout': { type: 'string' },
        'add-runtime': { type: 'string', multiple: true },
        'default-runtime': { type: 'string' },
        'config-file': { type: 'string' },
        remove: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    }).values;
  } catch (cause) {
    throw new DaemonUsage({ why: messageOf(cause) }, { cause });
  }
}

/** Go's flags of two values stand alone or with `=false`. */
function withValue(arg: string): string {
  return arg === '--tls' || arg === '--tlsverify' ? `${arg}=true` : arg;
}

async function readConfig(named: string | undefined): Promise<ConfigFile> {
  const path = named ?? DEFAULT_CONFIG;
  try {
    return ConfigFile(JSON.parse(await readFile(path, 'utf8')), '$');
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT' && named === undefined) return {};
    throw new ConfigInvalid({ path, why: messageOf(cause) }, { cause });
  }
}

/** Pure. */
function daemonOptions(flags: ReturnType<typeof parseFlags>, file: ConfigFile): DaemonOptions {
  const name = flags.name ?? 'estiba';
  if (!NAME.test(name)) throw new DaemonUsage({ why: `--name ${name}: twelve of a-z, 0-9 and -, a letter first` });
  const bip = flags.bip ?? file.bip;
  return {
    name,
    dataRoot: absolute(flags['data-root'] ?? file['data-root'] ?? '/var/lib/estiba', '--data-root'),
    runRoot: absolute(flags['run-root'] ?? file['exec-root'] ?? '/run/estiba', '--run-root'),
    serves: servicesOf(flags.only),
    hosts: [...(flags.host ?? []), ...(file.hosts ?? [])].map(parseHost),
    tls: tlsOf(flags, file),
    group: flags.group ?? file.group ?? 'docker',
    kube: parseListen(flags.kube ?? '127.0.0.1:6443', '--kube'),
    ingress: flags.ingress === 'off' ? undefined : parseIngress(flags.ingress ?? '0.0.0.0:80,443'),
    ...(flags['lb-pool'] === undefined ? {} : { lbPool: flags['lb-pool'] }),
    drainMs: 1000 * (number(flags.drain, '--drain') ?? DEFAULT_DRAIN_SECONDS),
    ui: flags.ui === 'off' ? undefined : uiOf(flags.ui),
    registry: flags.registry === 'off' ? undefined : parseListen(flags.registry ?? '127.0.0.1:5000', '--registry'),
    registryMirrors: [...(flags['registry-mirror'] ?? []), ...(file['registry-mirrors'] ?? [])],
    insecureRegistries: [...(flags['insecure-registry'] ?? []), ...(file['insecure-registries'] ?? [])],
    ...(bip === undefined ? {} : { bip }),
    ...(flags['pod-cidr'] === undefined ? {} : { podCidr: flags['pod-cidr'] }),
    ...(flags['service-cidr'] === undefined ? {} : { serviceCidr: flags['service-cidr'] }),
    ...(flags['node-name'] === undefined ? {} : { nodeName: flags['node-name'] }),
    clusterDomain: flags['cluster-domain'] ?? 'cluster.local',
    mtuBytes: number(flags.mtu, '--mtu') ?? file.mtu ?? DEFAULT_MTU_BYTES,
    bootstrap: onOff(flags.bootstrap ?? 'on', '--bootstrap'),
    ...(flags['image-budget'] === undefined
      ? {}
      : { imageBudgetBytes: sizeBytes(flags['image-budget'], '--image-budget') }),
    stopGraceMs:
      (number(flags['stop-timeout'], '--stop-timeout') ?? file['shutdown-timeout'] ?? DEFAULT_STOP_SECONDS) * 1000,
    runtimes: runtimesOf(flags, file),
  };
}

/** Its name is part of a directory's. */
const RUNTIME_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;

function runtimesOf(flags: ReturnType<typeof parseFlags>, file: ConfigFile): RuntimeSettings {
  const said = (flags['add-runtime'] ?? []).map((text) => {
    const [, name, path] = /^([^=]+)=(.+)$/.exec(text) ?? [];
    if (name === undefined || path === undefined)
      throw new DaemonUsage({ why: `--add-runtime ${text} is not NAME=PATH` });
    return { name, path, args: [] as string[] };
  });
  const written = Object.entries(file.runtimes ?? {}).map(([name, { path, runtimeArgs }]) => ({
    name,
    path,
    args: runtimeArgs ?? [],
  }));
  const named = [...said, ...written.filter(({ name }) => !said.some((runtime) => runtime.name === name))];
  for (const { name, path } of named) {
    const what = `--add-runtime ${name}=${path}`;
    if (!RUNTIME_NAME.test(name)) throw new DaemonUsage({ why: `${what}: a name is of letters, digits and ._-` });
    if (name === OUR_RUNTIME) throw new DaemonUsage({ why: `${what}: runtime name '${name}' is reserved` });
    absolute(path, `--add-runtime ${name}=`);
  }
  const fallback = flags['default-runtime'] ?? file['default-runtime'] ?? OUR_RUNTIME;
  return { named, fallback, searchPath: process.env['PATH'] ?? '' };
}

function tlsOf(flags: ReturnType<typeof parseFlags>, file: ConfigFile): TlsWish {
  const tls = trueFalse(flags.tls, '--tls') ?? file.tls;
  return {
    ...(tls === undefined ? {} : { tls }),
    verify: trueFalse(flags.tlsverify, '--tlsverify') ?? file.tlsverify ?? false,
    ca: flags.tlscacert ?? file.tlscacert ?? '/etc/estiba/ca.pem',
    cert: flags.tlscert ?? file.tlscert ?? '/etc/estiba/cert.pem',
    key: flags.tlskey ?? file.tlskey ?? '/etc/estiba/key.pem',
  };
}

function uiOf(text: string | undefined): Listen & { asked: boolean } {
  return { ...parseListen(text ?? '127.0.0.1:8443', '--ui'), asked: text !== undefined };
}

function trueFalse(text: string | undefined, what: string): boolean | undefined {
  if (text === undefined || text === 'true' || text === 'false')
    return text === undefined ? undefined : text === 'true';
  throw new DaemonUsage({ why: `${what}=${text} is neither true nor false` });
}

function servicesOf(only: string | undefined): ReadonlySet<Service> {
  if (only === undefined) return new Set(SERVICES);
  return new Set(
    only.split(',').map((word) => {
      const service = SERVICES.find((s) => s === word);
      if (!service) throw new DaemonUsage({ why: `--only ${word}: what there is to serve is ${SERVICES.join(', ')}` });
      return service;
    }),
  );
}

/** `unix:///run/x.sock`, `tcp://127.0.0.1:2375`, as Docker writes them. */
function parseHost(text: string): HostAddress {
  if (text.startsWith('unix://')) return { kind: 'unix', path: absolute(text.slice('unix://'.length), '--host') };
  if (!text.startsWith('tcp://'))
    throw new DaemonUsage({ why: `--host ${text} is neither unix:///PATH nor tcp://ADDRESS:PORT` });
  return { kind: 'tcp', ...parseListen(text.slice('tcp://'.length).replace(/\/$/, ''), '--host') };
}

function parseIngress(text: string): IngressListen {
  const [, v6, v4, http, https] = /^(?:(?:\[([^\]]+)\]|([^:,]*)):)?(\d{1,5}),(\d{1,5})$/.exec(text) ?? [];
  if (http === undefined || https === undefined || Number(http) > 65_535 || Number(https) > 65_535)
    throw new DaemonUsage({ why: `--ingress ${text} is not [ADDRESS:]HTTP-PORT,HTTPS-PORT` });
  return { host: v6 ?? (v4 || '0.0.0.0'), httpPort: Number(http), httpsPort: Number(https) };
}

function parseListen(text: string, what: string): Listen {
  const [, v6, v4, port] = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(text) ?? [];
  const host = v6 ?? v4;
  if (host === undefined || Number(port) > 65_535)
    throw new DaemonUsage({ why: `${what} ${text} is not ADDRESS:PORT` });
  return { host: host === '' ? '0.0.0.0' : host, port: Number(port) };
}

function absolute(path: string, what: string): string {
  if (!path.startsWith('/')) throw new DaemonUsage({ why: `${what} ${path} is not an absolute path` });
  return path.length > 1 ? path.replace(/\/+$/, '') : path;
}

function number(text: string | undefined, what: string): number | undefined {
  if (text === undefined) return undefined;
  if (!/^\d{1,9}$/.test(text)) throw new DaemonUsage({ why: `${what} ${text} is not a number` });
  return Number(text);
}

function sizeBytes(text: string, what: string): number {
  const bytes = parseSizeBytes(text);
  if (bytes === undefined || bytes <= 0) throw new DaemonUsage({ why: `${what} ${text} is not a size such as 20g` });
  return bytes;
}

function onOff(text: string, what: string): boolean {
  if (text !== 'on' && text !== 'off') throw new DaemonUsage({ why: `${what} ${text} is neither on nor off` });
  return text === 'on';
}
