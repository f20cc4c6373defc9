import type { KernelView } from '#engine/core/insight/kernel-view.ts';
import { bytes } from '#engine/core/insight/xray-limits.ts';
import { type ContainerRecord, isRunning, type PortRecord } from '#engine/core/record.ts';
import { signalName } from '#kernel/linux/names.ts';
import type { Listener } from '#kernel/proc/sockets.ts';
import type { FirewallNote } from '#network/firewall.ts';

/** Why a container is as it is: what is seen, what follows, what shows it, and what to do next. Codes are for programs and stay. */
export interface Why {
  container: { id: string; name: string; phase: string };
  findings: Finding[];
}

export interface Finding {
  code: FindingCode;
  fact: string;
  cause: string;
  evidence: string[];
  /** Commands, to be run as they stand. */
  next: string[];
}

export type FindingCode =
  | 'COMMAND_NOT_EXECUTABLE'
  | 'COMMAND_NOT_FOUND'
  | 'CPU_THROTTLED'
  | 'END_NOT_SEEN'
  | 'EXITED_WITH_ERROR'
  | 'EXITED_BY_ITSELF'
  | 'HEALTH_STARTING'
  | 'HOST_FIREWALL'
  | 'KILLED_BY_SIGNAL'
  | 'LISTENS_ON_LOOPBACK'
  | 'MEMORY_SHORT'
  | 'NEVER_STARTED'
  | 'NO_SUCH_PORT'
  | 'NOBODY_LISTENS'
  | 'OOM_KILLED'
  | 'PAUSED'
  | 'RESTARTING'
  | 'RUNNING'
  | 'START_FAILED'
  | 'STOPPED_BY_HAND'
  | 'UNHEALTHY';

export interface WhyInputs {
  record: ContainerRecord;
  kernel: KernelView | undefined;
  /** What it said last, oldest first. */
  lastLines: readonly string[];
  firewallNotes: readonly FirewallNote[];
  /** Of its networks. */
  bridges: readonly string[];
  /** Asked for a port of the host that does not answer. */
  port?: number;
  nowMs: number;
}

const NEARLY_FULL = 0.95;
const THROTTLED_SHARE = 0.2;

/** Pure. The first finding is the answer; those after it may matter as well. */
export function why(inputs: WhyInputs): Why {
  const { id, name, state } = inputs.record;
  const findings = isRunning(state) ? ofRunning(inputs) : ofEnded(inputs);
  return { container: { id, name, phase: state.phase }, findings };
}

// -- it runs

function ofRunning(inputs: WhyInputs): Finding[] {
  const { record, kernel, nowMs } = inputs;
  const { name, state } = record;
  const findings = [...ofHealth(inputs), ...ofPorts(inputs), ...ofResources(inputs)];
  if (state.phase === 'paused')
    findings.unshift({
      code: 'PAUSED',
      fact: 'its programs are frozen: connections are taken by the kernel and nobody answers',
      cause: 'somebody paused it, or a commit is under way',
      evidence: [`${kernel?.pids.length ?? 0} processes in a frozen cgroup`],
      next: [`docker unpause ${name}`],
    });
  if (findings.length > 0) return findings;
  const seconds = Math.floor((nowMs - state.startedAtMs) / 1000);
  return [
    {
      code: 'RUNNING',
      fact: `it has been running for ${seconds} s, and nothing is wrong that can be seen from outside`,
      cause: '',
      evidence: [`pid ${state.pid}, ${kernel?.pids.length ?? 0} processes`],
      next: [`docker logs --tail 50 ${name}`],
    },
  ];
}

function ofHealth({ record }: WhyInputs): Finding[] {
  const { health } = record.state;
  const { name } = record;
  if (!health || health.status === 'healthy') return [];
  const last = health.log.at(-1);
  const test = record.process.health?.test.join(' ') ?? '';
  const evidence = last
    ? [`last check: exit code ${last.exitCode}`, ...lines(last.output)]
    : ['no check has ended yet'];
  const unhealthy = health.status === 'unhealthy';
  return [
    {
      code: unhealthy ? 'UNHEALTHY' : 'HEALTH_STARTING',
      fact: unhealthy
        ? `its health check failed ${health.failingStreak} times in a row`
        : 'its health check has not passed yet',
      cause: `the check is: ${test}`,
      evidence,
      next: [`docker exec ${name} ${test.replace(/^CMD(-SHELL)? /, '')}`, `docker logs --tail 50 ${name}`],
    },
  ];
}

/** Each published port from the inside out: is there a listener, is it one that others reach, does the host let it in. */
function ofPorts(inputs: WhyInputs): Finding[] {
  const { record, kernel, port: asked } = inputs;
  const { name } = record;
  // The same port on IPv4 and IPv6 is one question.
  const published = record.ports.filter(
    (p, i, all) =>
      p.hostPort !== undefined && all.findIndex((q) => q.hostPort === p.hostPort && q.protocol === p.protocol) === i,
  );
  const findings: Finding[] = [];
  if (asked !== undefined && !published.some((p) => p.hostPort === asked)) {
    const known = published.map((p) => `${p.hostPort} → ${p.containerPort}/${p.protocol}`);
    const inside = record.ports.find((p) => p.containerPort === asked);
    findings.push({
      code: 'NO_SUCH_PORT',
      fact: `port ${asked} of the host is not published for this container`,
      cause: inside ? `the container has a port ${asked}, which is its own and not the host's` : 'no -p names it',
      evidence: known.length > 0 ? [`published: ${known.join(', ')}`] : ['nothing is published'],
      next: [`docker port ${name}`],
    });
  }
  for (const port of published) {
    const finding = kernel && ofListeners(name, port, kernel.listeners);
    if (finding && (asked === undefined || asked === port.hostPort)) findings.push(finding);
  }
  return [...findings, ...ofFirewall(inputs, published.length > 0)];
}

/** Rules that we do not understand concern published ports; a drop at the forward hook all that a container sends out, too. */
function ofFirewall({ firewallNotes, bridges }: WhyInputs, isPublished: boolean): Finding[] {
  return firewallNotes.flatMap(({ kind, where, says, fix, bridges: stopped = [] }): Finding[] => {
    const isClosed = kind === 'closed' && isPublished;
    if (!isClosed && !stopped.some((bridge) => bridges.includes(bridge))) return [];
    const what = isClosed ? 'may keep published ports closed' : 'stops its traffic to and from other machines';
    const fact = `the host's firewall ${what}: ${where}`;
    return [{ code: 'HOST_FIREWALL', fact, cause: says, evidence: [], next: isClosed ? [fix] : fix.split('; ') }];
  });
}

function ofListeners(name: string, port: PortRecord, listeners: readonly Listener[]): Finding | undefined {
  if (port.protocol === 'sctp') return undefined; // the kernel lists those elsewhere
  const fits = listeners.filter((l) => l.protocol === port.protocol && l.port === port.containerPort);
  const where = `${port.containerPort}/${port.protocol}`;
  const others = [...new Set(listeners.map((l) => `${l.address}:${l.port}/${l.protocol}`))];
  if (fits.length === 0)
    return {
      code: 'NOBODY_LISTENS',
      fact: `host port ${port.hostPort} leads to ${where} in the container, where nobody listens`,
      cause: others.length > 0 ? 'its programs listen elsewhere' : 'its programs do not listen, or not yet',
      evidence: others.length > 0 ? [`listening: ${others.join(', ')}`] : [`no listeners in its network namespace`],
      next: [`docker logs --tail 50 ${name}`, `docker exec ${name} netstat -ltnu`],
    };
  if (fits.some((l) => !isLoopback(l.address))) return undefined;
  return {
    code: 'LISTENS_ON_LOOPBACK',
    fact: `the program behind host port ${port.hostPort} listens on ${fits[0]?.address}:${where} alone`,
    cause: 'the loopback inside is the container’s own: what comes from outside arrives at its address',
    evidence: [`listening: ${fits.map((l) => `${l.address}:${l.port}`).join(', ')}`],
    next: ['let the program listen on 0.0.0.0'],
  };
}

function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.');
}

function ofResources({ record, kernel }: WhyInputs): Finding[] {
  const { memory, cpu } = kernel?.use ?? {};
  const { name } = record;
  const findings: Finding[] = [];
  const needed = memory ? memory.usageBytes - memory.inactiveFileBytes : 0;
  if (memory?.limitBytes !== undefined && (memory.oomKills > 0 || needed > memory.limitBytes * NEARLY_FULL))
    findings.push({
      code: 'MEMORY_SHORT',
      fact: `it uses ${bytes(needed)} of the ${bytes(memory.limitBytes)} it may have`,
      cause:
        memory.oomKills > 0
          ? `the kernel has killed ${memory.oomKills} of its processes for memory`
          : 'it is nearly full',
      evidence: [`the limit was hit ${memory.failures} times`],
      next: [`docker update --memory ${memory.limitBytes * 2} --memory-swap ${memory.limitBytes * 4} ${name}`],
    });
  if (cpu && cpu.periods > 0 && cpu.throttledPeriods > cpu.periods * THROTTLED_SHARE)
    findings.push({
      code: 'CPU_THROTTLED',
      fact: `it was held back in ${cpu.throttledPeriods} of ${cpu.periods} periods`,
      cause: 'it wants more CPU time than --cpus or --cpu-quota gives it',
      evidence: [`waited ${(cpu.throttledNs / 1e9).toFixed(1)} s in all`],
      next: [`docker update --cpus 2 ${name}`],
    });
  return findings;
}

// -- it does not run

const NOT_EXECUTABLE = 126;
const NOT_FOUND = 127;
const NOT_SEEN = 255;

function ofEnded(inputs: WhyInputs): Finding[] {
  const { record, nowMs } = inputs;
  const { name, state, spec } = record;
  const ended = state.phase === 'created' || state.startedAtMs === 0 ? ofStart(inputs) : ofExit(inputs);
  if (state.phase !== 'restarting') return [ended];
  return [
    {
      code: 'RESTARTING',
      fact: `it ends again and again: ${state.restartCount} restarts, the last end ${Math.floor((nowMs - state.finishedAtMs) / 1000)} s ago`,
      cause: `--restart ${spec.restart.name} starts it again, after a pause that grows`,
      evidence: ended.evidence,
      next: [`docker logs --tail 50 ${name}`, `docker update --restart no ${name}`],
    },
    ended,
  ];
}

function ofStart({ record }: WhyInputs): Finding {
  const { name, state, process } = record;
  if (state.error === '')
    return {
      code: 'NEVER_STARTED',
      fact: 'it has been created and not started',
      cause: 'nobody asked',
      evidence: [],
      next: [`docker start ${name}`],
    };
  const code: FindingCode =
    state.exitCode === NOT_FOUND
      ? 'COMMAND_NOT_FOUND'
      : state.exitCode === NOT_EXECUTABLE
        ? 'COMMAND_NOT_EXECUTABLE'
        : 'START_FAILED';
  const program = process.argv[0] ?? '';
  const causes: Partial<Record<FindingCode, string>> = {
    COMMAND_NOT_FOUND: `the image has no program ${program}, neither by that path nor in the PATH of its environment`,
    COMMAND_NOT_EXECUTABLE: `${program} is there and cannot be run: no execute permission, or made for another machine`,
  };
  return {
    code,
    fact: 'its last start failed',
    cause: causes[code] ?? 'the step that failed is in the evidence',
    evidence: [state.error],
    next:
      code === 'START_FAILED'
        ? [`docker start ${name}`]
        : [`docker run --rm --entrypoint sh ${record.image.reference} -c 'command -v ${program}'`],
  };
}

function ofExit({ record, lastLines }: WhyInputs): Finding {
  const { name, state, process, spec } = record;
  const { exitCode } = state;
  const said = lastLines.length > 0 ? ['its last words:', ...lastLines] : ['it said nothing'];
  const logs = `docker logs --tail 50 ${name}`;
  const exited = `it ended with exit code ${exitCode} at ${new Date(state.finishedAtMs).toISOString()}`;
  if (state.oomKilled) {
    const limit = spec.resources.memoryBytes;
    return {
      code: 'OOM_KILLED',
      fact: exited,
      cause: `the kernel killed it because its cgroup had used all memory it may have${limit === undefined ? '' : `: ${bytes(limit)}`}`,
      evidence: ['the cgroup counted an OOM kill', ...said],
      next:
        limit === undefined
          ? [logs]
          : [`docker update --memory ${limit * 2} --memory-swap ${limit * 4} ${name}`, `docker start ${name}`],
    };
  }
  if (state.stoppedByHand)
    return {
      code: 'STOPPED_BY_HAND',
      fact: exited,
      cause: `somebody stopped or killed it${exitCode === 137 ? '; it did not end by itself within the grace' : ''}`,
      evidence: said,
      next: [`docker start ${name}`],
    };
  if (exitCode === NOT_SEEN)
    return {
      code: 'END_NOT_SEEN',
      fact: exited,
      cause: 'its shim was killed, or the machine restarted: nobody saw how it ended',
      evidence: said,
      next: [`docker start ${name}`, 'dmesg | tail'],
    };
  if (exitCode > 128)
    return {
      code: 'KILLED_BY_SIGNAL',
      fact: exited,
      cause: `signal ${signalName(exitCode - 128)} ended it; nobody sent it through this daemon`,
      evidence: said,
      next: [logs, 'dmesg | tail'],
    };
  if (exitCode === 0)
    return {
      code: 'EXITED_BY_ITSELF',
      fact: exited,
      cause: `${process.argv[0] ?? 'the program'} had nothing more to do; a container lives as long as its first program`,
      evidence: said,
      next: [logs],
    };
  return {
    code: 'EXITED_WITH_ERROR',
    fact: exited,
    cause: `${process.argv.join(' ')} reported an error`,
    evidence: said,
    next: [logs, `docker run --rm -it --entrypoint sh ${record.image.reference}`],
  };
}

const OUTPUT_LINES = 5;

function lines(text: string): string[] {
  return text.trim().split('\n').filter(Boolean).slice(-OUTPUT_LINES);
}
