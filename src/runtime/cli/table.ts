/** One flag of a command, in the words of runc's manual pages. A flag without `value` is true or false. */
export interface FlagRow {
  name: string;
  short?: string;
  value?: boolean;
  /** May stand several times. */
  many?: boolean;
  usage: string;
}

export interface CommandRow {
  name: string;
  usage: string;
  args: string;
  flags: readonly FlagRow[];
  /** How many arguments it takes. */
  count: { exactly: number } | { atLeast: number } | { between: readonly [number, number] };
  /** Flags end at the first argument: what follows belongs to another program. */
  stopAtArgument?: boolean;
}

const flag = (name: string, usage: string, short?: string): FlagRow => ({ name, usage, ...(short ? { short } : {}) });
const value = (name: string, usage: string, short?: string): FlagRow => ({ ...flag(name, usage, short), value: true });
const list = (name: string, usage: string, short?: string): FlagRow => ({ ...value(name, usage, short), many: true });

const BUNDLE = value('bundle', 'directory of config.json and the root file system (default: here)', 'b');
const CONSOLE = value('console-socket', 'AF_UNIX socket that receives the master of the terminal');
const PID_FILE = value('pid-file', 'file that gets the process id');
const NO_PIVOT = flag('no-pivot', 'move the root instead of pivot_root(2), for root file systems on a ramdisk');
const NO_KEYRING = flag('no-new-keyring', 'stay in the session keyring of the caller');
const PRESERVE = value('preserve-fds', 'hand on N descriptors beyond stdio and $LISTEN_FDS (default: 0)');
const DETACH = flag('detach', 'do not wait for the process', 'd');
const NO_SUBREAPER = flag('no-subreaper', 'do not reap reparented processes');

const ID = '<container-id>';
const oneId = { args: ID, count: { exactly: 1 } } as const;

const CRIU_FLAGS: readonly FlagRow[] = [
  value('image-path', 'where the images are'),
  value('work-path', 'where criu works and logs'),
  flag('tcp-established', 'allow open TCP connections'),
  flag('ext-unix-sk', 'allow external unix sockets'),
  flag('shell-job', 'allow shell jobs'),
  flag('file-locks', 'handle file locks'),
  value('manage-cgroups-mode', 'cgroups mode: soft, full, strict or ignore'),
  list('empty-ns', 'a namespace whose properties are left out'),
  flag('auto-dedup', 'deduplicate memory images'),
  flag('lazy-pages', 'lazy migration'),
];

export const GLOBAL_FLAGS: readonly FlagRow[] = [
  flag('debug', 'log what is done'),
  value('log', 'file for the log (default: stderr)'),
  value('log-format', 'text or json (default: text)'),
  value('root', 'directory of the containers’ state (default: /run/estiba-oci)'),
  value('criu', 'the criu program (default: criu)'),
  flag('systemd-cgroup', 'let systemd make cgroups (not available)'),
  value('rootless', 'without root: true, false or auto (default: auto)'),
  flag('plan', 'print the plan of the command and do nothing'),
  flag('explain', 'the same as --plan'),
  flag('json', 'with --plan: as JSON'),
  flag('help', 'show help', 'h'),
  flag('version', 'print the version', 'v'),
];

export const COMMANDS: readonly CommandRow[] = [
  {
    name: 'checkpoint',
    usage: 'checkpoint a running container',
    ...oneId,
    flags: [
      ...CRIU_FLAGS,
      value('parent-path', 'images of the pre-dump before'),
      flag('leave-running', 'let the container run on'),
      flag('tcp-skip-in-flight', 'skip TCP connections in flight'),
      flag('link-remap', 'link unlinked files back'),
      value('status-fd', 'criu writes a NUL to this descriptor when lazy pages are ready'),
      value('page-server', 'ADDRESS:PORT of a page server'),
      flag('pre-dump', 'dump memory alone and run on'),
    ],
  },
  {
    name: 'create',
    usage: 'create a container',
    ...oneId,
    flags: [BUNDLE, CONSOLE, PID_FILE, NO_PIVOT, NO_KEYRING, PRESERVE],
  },
  {
    name: 'delete',
    usage: 'delete what a container holds',
    ...oneId,
    flags: [flag('force', 'kill the container first if it runs', 'f')],
  },
  {
    name: 'events',
    usage: 'show statistics and out-of-memory events',
    ...oneId,
    flags: [value('interval', 'time between statistics (default: 5s)'), flag('stats', 'show statistics once')],
  },
  {
    name: 'exec',
    usage: 'run another process in a container',
    args: `${ID} <command> [argument...] | -p process.json ${ID}`,
    count: { atLeast: 1 },
    stopAtArgument: true,
    flags: [
      CONSOLE,
      value('cwd', 'working directory in the container'),
      list('env', 'environment, NAME=VALUE', 'e'),
      flag('tty', 'with a terminal', 't'),
      value('user', 'UID[:GID]', 'u'),
      list('additional-gids', 'another group id', 'g'),
      value('process', 'file with the process as JSON', 'p'),
      DETACH,
      PID_FILE,
      value('process-label', 'SELinux label'),
      value('apparmor', 'AppArmor profile'),
      flag('no-new-privs', 'no new privileges'),
      list('cap', 'add a capability', 'c'),
      PRESERVE,
      list('cgroup', 'sub-cgroup: PATH or CONTROLLER[,CONTROLLER]:PATH'),
      flag('ignore-paused', 'also in a paused container; waits until it is resumed'),
    ],
  },
  { name: 'features', usage: 'show what this runtime can do', args: '', count: { exactly: 0 }, flags: [] },
  {
    name: 'kill',
    usage: 'send a signal to the container’s init (default: SIGTERM)',
    args: `${ID} [signal]`,
    count: { between: [1, 2] },
    flags: [flag('all', 'to all processes of the container', 'a')],
  },
  {
    name: 'list',
    usage: 'list containers',
    args: '',
    count: { exactly: 0 },
    flags: [value('format', 'table or json (default: table)', 'f'), flag('quiet', 'ids alone', 'q')],
  },
  { name: 'pause', usage: 'suspend all processes of a container', ...oneId, flags: [] },
  {
    name: 'ps',
    usage: 'show the processes of a container',
    args: `${ID} [ps options]`,
    count: { atLeast: 1 },
    stopAtArgument: true,
    flags: [value('format', 'table or json (default: table)', 'f')],
  },
  {
    name: 'restore',
    usage: 'restore a container from a checkpoint',
    ...oneId,
    flags: [
      ...CRIU_FLAGS,
      BUNDLE,
      CONSOLE,
      DETACH,
      PID_FILE,
      NO_SUBREAPER,
      NO_PIVOT,
      value('lsm-profile', 'TYPE:LABEL to restore with'),
      value('lsm-mount-context', 'mount context to restore with'),
    ],
  },
  { name: 'resume', usage: 'resume a paused container', ...oneId, flags: [] },
  {
    name: 'run',
    usage: 'create and start a container',
    ...oneId,
    flags: [
      BUNDLE,
      CONSOLE,
      DETACH,
      flag('keep', 'keep the container’s state and cgroup after its end'),
      PID_FILE,
      NO_SUBREAPER,
      NO_PIVOT,
      NO_KEYRING,
      PRESERVE,
    ],
  },
  {
    name: 'spec',
    usage: 'write a config.json to start from',
    args: '',
    count: { exactly: 0 },
    flags: [BUNDLE, flag('rootless', 'for a container without root')],
  },
  { name: 'start', usage: 'run the program of a created container', ...oneId, flags: [] },
  { name: 'state', usage: 'print the state of a container', ...oneId, flags: [] },
  {
    name: 'update',
    usage: 'change the limits of a container',
    ...oneId,
    flags: [
      value('resources', 'JSON file with the limits, - for stdin', 'r'),
      value('blkio-weight', 'io weight, 10 to 1000'),
      value('cpu-period', 'CFS period in microseconds'),
      value('cpu-quota', 'CFS quota in microseconds'),
      value('cpu-burst', 'CFS burst in microseconds'),
      value('cpu-share', 'relative weight'),
      value('cpu-rt-period', 'realtime period in microseconds'),
      value('cpu-rt-runtime', 'realtime runtime in microseconds'),
      value('cpuset-cpus', 'CPUs, such as 0-3,7'),
      value('cpuset-mems', 'memory nodes, such as 0-3,7'),
      value('cpu-idle', '1: only idle time'),
      value('kernel-memory', 'obsolete; the kernel knows it no more'),
      value('kernel-memory-tcp', 'kernel memory for TCP buffers, in bytes'),
      value('memory', 'limit in bytes'),
      value('memory-reservation', 'soft limit in bytes'),
      value('memory-swap', 'memory and swap together in bytes, -1 for no limit'),
      value('pids-limit', 'most processes, -1 for no limit'),
      value('l3-cache-schema', 'Intel RDT: L3 schema'),
      value('mem-bw-schema', 'Intel RDT: memory bandwidth schema'),
    ],
  },
];
