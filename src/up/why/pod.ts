import { SERVICE_LABEL, START_GATE } from '#spec/estiba/cluster.ts';
import type { ContainerStatus, Pod } from '#spec/kubernetes/types.gen.ts';
import type { Finding } from '#up/why/finding.ts';
import { eventsOf, type World } from '#up/why/world.ts';

type Rule = (pod: Pod, world: World, c: Commands) => Finding | undefined;

interface Commands {
  describe: string;
  logs: (container: string, previous: boolean) => string;
}

/** Why a pod is as it is. The first rule that applies decides; each container in trouble gets an answer of its own. */
export function explainPod(pod: Pod, world: World): Finding[] {
  const { name = '', namespace = world.namespace } = pod.metadata;
  const commands: Commands = {
    describe: `kubectl -n ${namespace} describe pod ${name}`,
    logs: (container, previous) =>
      `kubectl -n ${namespace} logs ${name} -c ${container}${previous ? ' --previous' : ''}`,
  };
  for (const rule of POD_RULES) {
    const found = rule(pod, world, commands);
    if (found) return [found];
  }
  const containers = [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])];
  const troubles = containers.flatMap((status) => explainContainer(pod, status, world, commands) ?? []);
  if (troubles.length > 0) return troubles;
  const missing = preparing(pod, world, commands);
  return [missing ?? fine(pod, commands)];
}

const terminating: Rule = (pod, world, { describe }) => {
  const since = pod.metadata.deletionTimestamp;
  if (!since) return undefined;
  const finalizers = pod.metadata.finalizers ?? [];
  const node = world.nodes.find((n) => n.metadata.name === pod.spec.nodeName);
  const lost = node && readyOf(node.status?.conditions) !== 'True';
  if (lost)
    return {
      code: 'POD_NODE_LOST',
      level: 'broken',
      fact: 'is being deleted, and nobody can confirm it',
      cause: `its node ${pod.spec.nodeName} does not answer`,
      evidence: [
        `deletionTimestamp ${since}`,
        `node ${pod.spec.nodeName}: Ready ${readyOf(node.status?.conditions) ?? 'unknown'}`,
      ],
      next: `start the daemon of ${pod.spec.nodeName}, or kubectl delete node ${pod.spec.nodeName}`,
    };
  return {
    code: 'POD_TERMINATING',
    level: 'waiting',
    fact: 'is being deleted',
    cause:
      finalizers.length > 0
        ? `finalizers hold it: ${finalizers.join(', ')}`
        : 'its containers have their grace period to end',
    evidence: [`deletionTimestamp ${since}`],
    next: describe,
  };
};

const gated: Rule = (pod, world, { describe }) => {
  const gates = pod.spec.schedulingGates ?? [];
  if (gates.length === 0) return undefined;
  const waitsFor = dependenciesIn(pod);
  if (waitsFor.length === 0)
    return {
      code: 'POD_GATED',
      level: 'waiting',
      fact: 'is not scheduled yet',
      cause: `somebody holds it back with the gates ${gates.map((g) => g.name).join(', ')}`,
      evidence: [`spec.schedulingGates: ${gates.map((g) => g.name).join(', ')}`],
      next: describe,
    };
  const missing = waitsFor.map(([service, condition]) => `${service} (${condition})`).join(', ');
  return {
    code: 'POD_WAITS_FOR',
    level: 'waiting',
    fact: 'waits for what it depends on',
    cause: `depends_on names ${missing}`,
    evidence: waitsFor.map(([service]) => `${service}: ${podsOf(world, service)}`),
    next: `estiba why deployment/${waitsFor[0]?.[0] ?? ''}`,
  };
};

function dependenciesIn(pod: Pod): [service: string, condition: string][] {
  try {
    return Object.entries(JSON.parse(pod.metadata.annotations?.[START_GATE] ?? '{}') as Record<string, string>);
  } catch {
    return []; // somebody else's text under our name explains nothing
  }
}

function podsOf(world: World, service: string): string {
  const pods = world.pods.filter((p) => p.metadata.labels?.[SERVICE_LABEL] === service);
  if (pods.length === 0) return 'no pod';
  return pods
    .map((p) => `${p.metadata.name} ${p.status?.phase ?? 'Pending'}, ready ${readyOf(p.status?.conditions) ?? 'False'}`)
    .join('; ');
}

const evicted: Rule = (pod, _world, { describe }) => {
  if (pod.status?.phase !== 'Failed' || !pod.status.reason) return undefined;
  const known: Readonly<Record<string, string>> = {
    Evicted: 'POD_EVICTED',
    DeadlineExceeded: 'POD_DEADLINE',
    NodeLost: 'POD_NODE_LOST',
  };
  return {
    code: known[pod.status.reason] ?? 'POD_REFUSED',
    level: 'broken',
    fact: 'has failed as a whole',
    cause: pod.status.message ?? pod.status.reason,
    evidence: [`status.reason ${pod.status.reason}`],
    next: describe,
  };
};

const unscheduled: Rule = (pod, world, { describe }) => {
  if (pod.spec.nodeName || pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed') return undefined;
  const condition = pod.status?.conditions?.find((c) => c.type === 'PodScheduled');
  if (condition?.status !== 'False') {
    const none = world.nodes.length === 0;
    return {
      code: none ? 'POD_NO_NODES' : 'POD_NOT_SCHEDULED',
      level: 'waiting',
      fact: 'has no node yet',
      cause: none ? 'the cluster has no node' : 'the scheduler has not looked at it yet',
      evidence: [`nodes: ${world.nodes.map((n) => n.metadata.name).join(', ') || 'none'}`],
      next: none ? 'start a node: estiba daemon' : describe,
    };
  }
  const claim = (pod.spec.volumes ?? []).find((v) => {
    const name = v.persistentVolumeClaim?.claimName;
    return name !== undefined && !world.claims.some((c) => c.metadata.name === name);
  })?.persistentVolumeClaim?.claimName;
  return {
    code: claim ? 'POD_NO_CLAIM' : 'POD_UNSCHEDULABLE',
    level: claim ? 'broken' : 'waiting',
    fact: 'fits on no node',
    cause: claim ? `there is no claim ${claim}` : (condition.message ?? 'the scheduler says no reason'),
    evidence: [`condition PodScheduled False (${condition.reason ?? ''}): ${condition.message ?? ''}`],
    next: claim ? `kubectl -n ${world.namespace} get pvc` : describe,
  };
};

const nodeLost: Rule = (pod, world) => {
  const node = world.nodes.find((n) => n.metadata.name === pod.spec.nodeName);
  if (!node || readyOf(node.status?.conditions) === 'True' || pod.status?.phase === 'Succeeded') return undefined;
  return {
    code: 'POD_NODE_LOST',
    level: 'waiting',
    fact: 'is on a node that does not answer',
    cause: `${pod.spec.nodeName} is not ready`,
    evidence: (node.status?.conditions ?? [])
      .filter((c) => c.type === 'Ready')
      .map((c) => `Ready ${c.status}: ${c.message ?? c.reason ?? ''}`),
    next: `start the daemon of ${pod.spec.nodeName}; its pods move away after their toleration`,
  };
};

const POD_RULES: readonly Rule[] = [terminating, gated, evicted, unscheduled, nodeLost];

const PULL = new Set(['ErrImagePull', 'ImagePullBackOff', 'RegistryUnavailable']);
const CONFIG = new Set(['CreateContainerConfigError', 'CreateContainerError']);
const START = new Set(['RunContainerError', 'StartError', 'ContainerCannotRun']);

function explainContainer(pod: Pod, status: ContainerStatus, world: World, c: Commands): Finding | undefined {
  const { name, state, lastState, restartCount } = status;
  const waiting = state?.waiting;
  const reason = waiting?.reason ?? '';
  const evidence = (more: readonly string[] = []): string[] => [
    ...(waiting ? [`container ${name} waits: ${reason}${waiting.message ? `: ${waiting.message}` : ''}`] : []),
    ...more,
  ];
  if (reason === 'InvalidImageName' || reason === 'ErrImageNeverPull')
    return {
      code: reason === 'InvalidImageName' ? 'POD_IMAGE_INVALID' : 'POD_IMAGE_ABSENT',
      level: 'broken',
      fact: `container ${name} cannot get its image ${status.image}`,
      cause:
        reason === 'InvalidImageName'
          ? 'that is no name of an image'
          : 'it is not on the node, and imagePullPolicy is Never',
      evidence: evidence(),
      next:
        reason === 'InvalidImageName'
          ? 'correct the image in the manifest'
          : `estiba images ${status.image}, then estiba pull or estiba load`,
    };
  if (PULL.has(reason))
    return {
      code: 'POD_IMAGE_PULL',
      level: 'waiting',
      fact: `container ${name} cannot get its image ${status.image}`,
      cause: pullCause(waiting?.message ?? ''),
      evidence: evidence(),
      next: `estiba pull ${status.image}`,
    };
  if (CONFIG.has(reason))
    return {
      code: 'POD_CONFIG',
      level: 'broken',
      fact: `container ${name} cannot be created`,
      cause: waiting?.message ?? 'something that it names is missing',
      evidence: evidence(),
      next: `kubectl -n ${world.namespace} get configmaps,secrets`,
    };
  const ended = state?.terminated ?? lastState?.terminated;
  if (START.has(reason) || (ended && START.has(ended.reason ?? '')))
    return {
      code: 'POD_COMMAND',
      level: 'broken',
      fact: `container ${name} could not be started`,
      cause: waiting?.message ?? ended?.message ?? 'its command cannot be run',
      evidence: evidence(),
      next: 'correct command, args or the image',
    };
  if (ended && ended.exitCode !== 0 && !state?.running) return endedBadly(pod, status, ended, evidence(), c);
  if (state?.running && !status.ready) return notReady(pod, status, world, c);
  if (state?.running && restartCount > 0 && ended)
    return {
      code: 'POD_RESTARTED',
      level: 'info',
      fact: `container ${name} runs, after ${restartCount} restarts`,
      cause: exitCause(ended.exitCode, ended.reason ?? '', ended.signal),
      evidence: [
        `last end: exit code ${ended.exitCode} (${ended.reason ?? ''}) at ${ended.finishedAt ?? 'an unknown time'}`,
      ],
      next: c.logs(name, true),
    };
  return undefined;
}

function endedBadly(
  pod: Pod,
  { name, restartCount }: ContainerStatus,
  ended: { exitCode: number; reason?: string; signal?: number; message?: string },
  evidence: string[],
  c: Commands,
): Finding {
  const looping = pod.spec.restartPolicy !== 'Never';
  const oom = ended.reason === 'OOMKilled';
  const limit = pod.spec.containers.find((x) => x.name === name)?.resources?.limits?.['memory'];
  return {
    code: oom
      ? 'POD_OOM'
      : ended.exitCode === 127 || ended.exitCode === 126
        ? 'POD_COMMAND'
        : looping
          ? 'POD_CRASH_LOOP'
          : 'POD_EXITED',
    level: looping ? 'waiting' : 'broken',
    fact: `container ${name} ended with exit code ${ended.exitCode}${looping ? `, ${restartCount} restarts so far` : ''}`,
    cause: oom
      ? `it needed more memory than ${limit ?? 'the node has'}`
      : exitCause(ended.exitCode, ended.reason ?? '', ended.signal),
    evidence: [...evidence, ...(ended.message ? [ended.message] : [])],
    next: oom ? 'raise resources.limits.memory, or make it need less' : c.logs(name, looping && restartCount > 0),
  };
}

function notReady(pod: Pod, status: ContainerStatus, world: World, c: Commands): Finding {
  const container = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])].find((x) => x.name === status.name);
  const starting = container?.startupProbe !== undefined && status.started !== true;
  const probe = starting ? container.startupProbe : container?.readinessProbe;
  const events = eventsOf(world, 'Pod', pod.metadata.name ?? '').filter((e) => e.reason === 'Unhealthy');
  const which = starting ? 'startup' : 'readiness';
  return {
    code: starting ? 'POD_STARTING' : 'POD_NOT_READY',
    level: 'waiting',
    fact: `container ${status.name} runs and is not ready`,
    cause: probe
      ? `its ${which} probe has not succeeded: ${describeProbe(probe)}`
      : 'its node has not said that it is ready yet',
    evidence: events.slice(0, 2).map((e) => `event ${e.reason}: ${e.message ?? ''}`),
    next: c.logs(status.name, false),
  };
}

function describeProbe(probe: NonNullable<Pod['spec']['containers'][number]['readinessProbe']>): string {
  if (probe.exec) return `exec ${(probe.exec.command ?? []).join(' ')}`;
  if (probe.httpGet) return `GET :${probe.httpGet.port}${probe.httpGet.path ?? '/'}`;
  if (probe.tcpSocket) return `TCP ${probe.tcpSocket.port}`;
  return probe.grpc ? `gRPC :${probe.grpc.port}` : 'of a kind unknown here';
}

function pullCause(message: string): string {
  if (/not found|manifest unknown|404/i.test(message)) return 'no registry that was asked has it';
  if (/unauthorized|denied|401|403/i.test(message))
    return 'the registry does not let us in: imagePullSecrets are missing or wrong';
  if (/lookup|resolve|ENOTFOUND|EAI_AGAIN|refused|timeout|unreachable/i.test(message))
    return 'the registry cannot be reached';
  return message === '' ? 'pulling failed' : message;
}

/** What an exit code says by convention (sysexits, shells, `docker run`). */
export function exitCause(code: number, reason: string, signal?: number): string {
  if (reason === 'OOMKilled') return 'the kernel killed it for want of memory';
  const number = signal ?? (code > 128 && code < 160 ? code - 128 : undefined);
  if (number === 9) return 'it was killed (SIGKILL)';
  if (number === 15) return 'it was asked to end (SIGTERM)';
  if (number === 11) return 'it crashed (SIGSEGV)';
  if (number === 6) return 'it aborted (SIGABRT)';
  if (number !== undefined) return `signal ${number} ended it`;
  if (code === 127) return 'the command is not in the image';
  if (code === 126) return 'the command cannot be executed';
  return code === 0 ? 'it was done' : 'the program itself gave that code';
}

/** Nothing is wrong with containers because there are none yet: volumes, network. */
function preparing(pod: Pod, world: World, { describe }: Commands): Finding | undefined {
  if (pod.status?.phase !== 'Pending') return undefined;
  const events = eventsOf(world, 'Pod', pod.metadata.name ?? '');
  const volume = events.find((e) => e.reason === 'FailedMount' || e.reason === 'FailedAttachVolume');
  const sandbox = events.find((e) => e.reason === 'FailedCreatePodSandBox');
  const found = volume ?? sandbox;
  return {
    code: volume ? 'POD_VOLUME' : sandbox ? 'POD_SANDBOX' : 'POD_PREPARING',
    level: 'waiting',
    fact: `is on ${pod.spec.nodeName ?? 'a node'}, and its containers are not created yet`,
    cause: found?.message ?? 'images, volumes and network are being prepared',
    evidence: found
      ? [`event ${found.reason}: ${found.message ?? ''}`]
      : events.slice(0, 2).map((e) => `event ${e.reason}: ${e.message ?? ''}`),
    next: describe,
  };
}

function fine(pod: Pod, { describe }: Commands): Finding {
  const done = pod.status?.phase === 'Succeeded';
  return {
    code: done ? 'POD_DONE' : 'POD_FINE',
    level: 'info',
    fact: done ? 'has done its work' : `runs on ${pod.spec.nodeName ?? 'its node'}`,
    cause: done ? 'all containers ended with exit code 0' : 'all containers run and are ready',
    evidence: (pod.status?.conditions ?? [])
      .filter((c) => c.type === 'Ready')
      .map((c) => `condition Ready ${c.status}`),
    next: describe,
  };
}

export function readyOf(conditions: readonly { type: string; status: string }[] | undefined): string | undefined {
  return conditions?.find((c) => c.type === 'Ready')?.status;
}
