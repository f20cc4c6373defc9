import { isDeepStrictEqual } from 'node:util';
import { describeChain, isCode } from '#base/errors.ts';
import { DONE, type Requeue } from '#cluster/client/queue.ts';
import { keyOf, type Live, PODS } from '#cluster/client/resources.ts';
import type { AgentDeps } from '#cluster/node/deps.ts';
import { endContainer } from '#cluster/node/pod/end.ts';
import type { Self } from '#cluster/node/pod/fields.ts';
import { runHook } from '#cluster/node/pod/hooks.ts';
import { type LastWords, lastWords } from '#cluster/node/pod/last-words.ts';
import { isOver, type PodSeen, type PodStep, planPod, SANDBOX } from '#cluster/node/pod/plan.ts';
import { PodProbes } from '#cluster/node/pod/probes.ts';
import { isSidecar, LABEL, type Run, runOf, sortRuns } from '#cluster/node/pod/runs.ts';
import { makeSandbox, type ReadyPod, refusal, releaseSandbox } from '#cluster/node/pod/sandbox.ts';
import { ENDING, startContainer, unlessEnding } from '#cluster/node/pod/start.ts';
import { EVICTED, podStatus } from '#cluster/node/pod/status.ts';
import { Troubles } from '#cluster/node/pod/troubles.ts';
import type { SandboxRecord } from '#engine/core/parts.ts';
import type { Container, Pod, PodCondition, PodStatus } from '#spec/kubernetes/types.gen.ts';

const IMAGE_BACKOFF_MS = { base: 10_000, max: 300_000 };
const CONFIG_RETRY_MS = 5_000;
const SANDBOX_BACKOFF_MS = { base: 500, max: 60_000 };
/** While something is being done to the pod its report waits this long for the outcome: most pods are up by then, and told of once. */
const HOLD_MS = 1_000;
const DEFAULT_GRACE_SECONDS = 30;
/** As long as timers can be. */
const MOST_MS = 2 ** 31 - 1;
/** A pod that the API has lost, or that uses what it may not, is ended without asking for long. */
const LITTLE_GRACE_SECONDS = 1;

/**
 * One pod of this node. `reconcile` reads what is, makes a plan, begins what it says and reports; what takes time runs beside it,
 * one thing a container, and wakes it when it is done.
 */
export class PodWorker {
  readonly uid: string;
  readonly #deps: AgentDeps;
  #pod: Live<Pod>;
  /** The API does not have it any more. */
  #lost = false;
  #closed = false;
  /** Aborted when the pod is to end: what is awaited for its sake is given up. */
  readonly #stop = new AbortController();
  readonly #jobs = new Map<string, Promise<void>>();
  readonly #troubles: Troubles;
  readonly #probes: PodProbes;
  /** Runs that a hook has condemned. */
  readonly #condemned = new Map<string, string>();
  readonly #words = new Map<string, LastWords>();
  /** Engine's containers of this pod. */
  readonly #ids: Set<string>;
  #ready: ReadyPod | undefined;
  #failed: { reason: string; message: string } | undefined;
  #drained: Promise<void> | undefined;
  #reported: PodStatus | undefined;
  #reportedAtMs: number;
  readonly #seenAtMs: number;
  /** Nothing runs any more, and the sandbox is given back. */
  #settled = false;
  #released = false;

  constructor(deps: AgentDeps, pod: Live<Pod>) {
    this.#deps = deps;
    this.#pod = pod;
    this.#troubles = new Troubles(deps.clock);
    this.#probes = new PodProbes(deps, { pod: () => this.#pod, ip: () => this.#ips()[0] ?? '' });
    this.uid = pod.metadata.uid;
    this.#seenAtMs = deps.clock.now();
    this.#reportedAtMs = this.#seenAtMs;
    const mine = deps.engine.containers.list().filter(({ spec }) => spec.labels[LABEL.uid] === this.uid);
    this.#ids = new Set(mine.map((record) => record.id));
    const { phase, reason = '', message = '' } = pod.status ?? {};
    // The node's own verdict of before a restart stays.
    if (phase === 'Failed' && reason !== '') this.#failed = { reason, message };
  }

  get pod(): Live<Pod> {
    return this.#pod;
  }

  /** Undefined: it is gone from the API. */
  update(pod: Live<Pod> | undefined): void {
    const before = this.#pod.metadata.deletionGracePeriodSeconds;
    if (pod) this.#pod = pod;
    else this.#lost = true;
    const grace = pod ? pod.metadata.deletionGracePeriodSeconds : LITTLE_GRACE_SECONDS;
    if (!pod || pod.metadata.deletionTimestamp) this.#stop.abort();
    if (before !== undefined && grace !== undefined && grace < before) this.#shorten(grace);
  }

  /** True once nothing of the pod is left on this node. */
  get gone(): boolean {
    return this.#released && (this.#lost || this.#pod.metadata.deletionTimestamp !== undefined);
  }

  /** Containers run on; only our own watching ends. */
  close(): void {
    this.#closed = true;
    this.#probes.close();
  }

  /** The node takes back what the pod has: it ends for good. */
  evict(message: string): void {
    if (this.#ending(this.#deps.clock.now()) !== undefined) return;
    this.#failed = { reason: EVICTED, message };
    this.#deps.events.record(PODS, this.#pod, { type: 'Warning', reason: EVICTED, message });
    this.#stop.abort();
    this.#deps.wake(this.uid);
  }

  /** The objects that its volumes follow have changed, or a token is due. */
  async refresh(): Promise<void> {
    this.#troubles.forgetAll((name, { reason }) => name === SANDBOX || reason === 'CreateContainerConfigError');
    if (this.#ready && !this.#released) await this.#deps.volumes.refresh(this.#self());
    this.#deps.wake(this.uid);
  }

  async reconcile(): Promise<Requeue> {
    if (this.#closed || this.gone) return DONE;
    const nowMs = this.#deps.clock.now();
    const runs = this.#runs();
    await this.#collectWords(runs);
    this.#probes.keep(runs, new Set(this.#jobs.keys()));
    const seen = this.#seen(runs, nowMs);
    const { steps, over } = planPod(seen);
    let againMs: number | undefined;
    for (const step of steps) {
      const waitMs = this.#begin(step);
      if (waitMs !== undefined) againMs = Math.min(againMs ?? waitMs, waitMs);
    }
    if (over && this.#jobs.size === 0) return this.#finish(runs);
    againMs = least(againMs, this.#deadlineMs(nowMs), await this.#report(runs, nowMs));
    return againMs === undefined ? DONE : { afterMs: Math.max(1, againMs) };
  }

  // ---- what is

  #self(): Self {
    const { address, cpus, memoryBytes, diskBytes } = this.#deps.host.facts();
    const allocatable = { cpuMilli: cpus * 1000, memoryBytes, ephemeralBytes: diskBytes };
    return { pod: this.#pod, ips: this.#ips(), hostIp: address, allocatable };
  }

  #ips(): readonly string[] {
    if (this.#pod.spec.hostNetwork) return [this.#deps.host.facts().address];
    return this.#sandbox()?.ips ?? [];
  }

  #sandbox(): SandboxRecord | undefined {
    const { sandboxes } = this.#deps.engine;
    return sandboxes.list().includes(this.uid) ? sandboxes.find(this.uid) : undefined;
  }

  /** By container, oldest first. */
  #runs(): Map<string, Run[]> {
    const { containers } = this.#deps.engine;
    const found = new Map<string, Run[]>();
    for (const id of this.#ids) {
      const record = containers.get(id);
      const run = record && runOf(record);
      if (run) found.set(run.container, [...(found.get(run.container) ?? []), run]);
      else this.#ids.delete(id); // somebody else removed it
    }
    for (const [name, runs] of found) found.set(name, sortRuns(runs));
    return found;
  }

  #seen(runs: ReadonlyMap<string, readonly Run[]>, nowMs: number): PodSeen {
    const newest = lastOf(runs);
    return {
      spec: this.#pod.spec,
      sandbox: this.#sandbox()?.incarnation,
      prepared: this.#ready !== undefined,
      runs: newest,
      started: (name) => this.#probes.of(name)?.started() ?? false,
      condemned: (name) => this.#verdict(name, newest.get(name)),
      busy: new Set(this.#jobs.keys()),
      ending: this.#ending(nowMs),
      nowMs,
    };
  }

  #verdict(name: string, run: Run | undefined): string | undefined {
    return run && (this.#condemned.get(run.id) ?? this.#probes.of(name)?.condemned()?.why);
  }

  #ending(nowMs: number): string | undefined {
    if (this.#lost) return 'the API has no such pod any more';
    if (this.#pod.metadata.deletionTimestamp) return 'it is deleted';
    this.#failed ??= refusal(this.#pod) ?? this.#pastDeadline(nowMs);
    if (this.#failed) this.#stop.abort();
    return this.#failed?.message;
  }

  #pastDeadline(nowMs: number): { reason: string; message: string } | undefined {
    const { activeDeadlineSeconds } = this.#pod.spec;
    if (activeDeadlineSeconds === undefined || nowMs < this.#startedAtMs() + activeDeadlineSeconds * 1000)
      return undefined;
    const message = 'Pod was active on the node longer than the specified deadline';
    this.#deps.events.record(PODS, this.#pod, { type: 'Normal', reason: 'DeadlineExceeded', message });
    return { reason: 'DeadlineExceeded', message };
  }

  #deadlineMs(nowMs: number): number | undefined {
    const { activeDeadlineSeconds } = this.#pod.spec;
    if (activeDeadlineSeconds === undefined || this.#failed) return undefined;
    return this.#startedAtMs() + activeDeadlineSeconds * 1000 - nowMs;
  }

  #startedAtMs(): number {
    const { startTime } = this.#pod.status ?? {};
    return startTime === undefined ? this.#seenAtMs : Date.parse(startTime);
  }

  // ---- what is to be done

  /** Begins a step; milliseconds after which it is to be looked at again, when that is not now. */
  #begin(step: PodStep): number | undefined {
    if (step.do === 'wait') return step.forMs;
    const name = step.do === 'sandbox' ? SANDBOX : step.container.name;
    if (this.#jobs.has(name)) return undefined;
    const waitMs = step.do === 'end' ? undefined : this.#troubles.waitMs(name);
    if (waitMs !== undefined) return waitMs;
    this.#deps.log.debug('pod', () => ({ pod: keyOf(this.#pod), do: step.do, container: name, why: step.why }));
    if (step.do === 'sandbox') this.#job(SANDBOX, this.#makeSandbox());
    else if (step.do === 'start') this.#job(name, this.#start(step.container, step.attempt, step.after));
    else this.#job(name, this.#end(step.container, step.run, step.why));
    return undefined;
  }

  #job(name: string, work: Promise<void>): void {
    const job = work
      .catch((error: unknown) => {
        this.#deps.log.error('a step of a pod failed', {
          pod: keyOf(this.#pod),
          container: name,
          error: describeChain(error),
        });
        this.#troubles.add(name, { reason: 'Failed', message: describeChain(error), backoff: SANDBOX_BACKOFF_MS });
      })
      .finally(() => {
        this.#jobs.delete(name);
        this.#deps.wake(this.uid);
      });
    this.#jobs.set(name, job);
  }

  async #makeSandbox(): Promise<void> {
    try {
      this.#ready = await makeSandbox(this.#deps, this.#self());
      this.#troubles.forget(SANDBOX);
    } catch (error) {
      const reason = isCode(error, 'VOLUME_NOT_READY') ? 'FailedMount' : 'FailedCreatePodSandBox';
      const message =
        reason === 'FailedMount' ? describeChain(error) : `Failed to create pod sandbox: ${describeChain(error)}`;
      this.#deps.events.record(PODS, this.#pod, { type: 'Warning', reason, message });
      this.#troubles.add(SANDBOX, { reason: 'ContainerCreating', message: '', backoff: SANDBOX_BACKOFF_MS });
    }
  }

  async #start(container: Container, attempt: number, after: Run | undefined): Promise<void> {
    const { engine, clock } = this.#deps;
    const { name } = container;
    const ready = this.#ready;
    if (!ready) return;
    let record: { id: string };
    try {
      const { sandbox, volumes, files, shm } = ready;
      record = await startContainer(this.#deps, {
        made: (id) => this.#ids.add(id),
        ending: this.#stop.signal,
        self: this.#self(),
        container,
        attempt,
        after,
        sandbox,
        volumes,
        files,
        shm,
      });
      this.#troubles.forget(name);
    } catch (error) {
      if (!isCode(error, 'IMAGE_PROBLEM', 'CANNOT_START_CONTAINER')) throw error;
      const reason = String(error.data['reason']);
      // A program that could not be started has a record of its end: restarts and their back-off follow from it.
      if (reason === 'RunContainerError' || reason === ENDING) return;
      const backoff = isCode(error, 'IMAGE_PROBLEM')
        ? IMAGE_BACKOFF_MS
        : { base: CONFIG_RETRY_MS, max: CONFIG_RETRY_MS };
      this.#troubles.add(name, { reason, message: error.message, backoff });
      return;
    }
    // The last but one is kept for `logs --previous`.
    for (const old of (this.#runs().get(name) ?? []).slice(0, -2))
      await engine.containers.remove(old.id, { force: true, volumes: true });
    const startedAtMs = clock.now();
    if (container.lifecycle?.postStart) {
      // It is not ready, and nothing is asked of it, before its hook is done.
      const target = { id: record.id, container, ip: this.#ips()[0] ?? '' };
      const hook = runHook(this.#deps, this.#pod, target, 'postStart', MOST_MS);
      const outcome = await unlessEnding(hook, this.#stop.signal).catch(() => ({ ok: true })); // it ends anyhow
      if (!outcome.ok) this.#condemned.set(record.id, `Container ${name} failed its postStart hook`);
    }
    this.#probes.watch(container, record.id, startedAtMs);
  }

  async #end(container: Container, run: Run, why: string): Promise<void> {
    const { metadata, spec } = this.#pod;
    const leaving = this.#lost || metadata.deletionTimestamp !== undefined;
    const probeGrace = this.#probes.of(container.name)?.condemned()?.graceSeconds;
    const graceSeconds =
      this.#lost || this.#failed?.reason === EVICTED
        ? LITTLE_GRACE_SECONDS
        : leaving
          ? (metadata.deletionGracePeriodSeconds ?? DEFAULT_GRACE_SECONDS)
          : (probeGrace ?? spec.terminationGracePeriodSeconds ?? DEFAULT_GRACE_SECONDS);
    this.#probes.of(container.name)?.close();
    await endContainer(this.#deps, {
      pod: this.#pod,
      container,
      run,
      ip: this.#ips()[0] ?? '',
      why,
      graceSeconds,
      drained: leaving && !isSidecar(container) ? this.#drain() : undefined,
    });
    this.#condemned.delete(run.id);
  }

  #drain(): Promise<void> {
    const { name, namespace = '', uid } = this.#pod.metadata;
    this.#drained ??= this.#deps.drain.drained({ name, namespace, uid, ips: this.#ips() });
    return this.#drained;
  }

  /** Somebody has less patience than before. */
  #shorten(graceSeconds: number): void {
    const { engine, clock } = this.#deps;
    clock.after(graceSeconds * 1000, () => {
      for (const runs of this.#runs().values())
        for (const run of runs)
          if (run.state === 'running')
            engine.containers
              .kill(run.id)
              .catch((error: unknown) =>
                this.#deps.log.debug('kill', () => ({ id: run.id, error: describeChain(error) })),
              );
    });
  }

  // ---- what is reported

  async #collectWords(runs: ReadonlyMap<string, readonly Run[]>): Promise<void> {
    for (const container of [...(this.#pod.spec.initContainers ?? []), ...this.#pod.spec.containers])
      for (const run of runs.get(container.name) ?? [])
        if (run.state === 'ended' && !this.#words.has(run.id))
          this.#words.set(run.id, await lastWords(this.#deps, this.uid, container, run));
  }

  #status(runs: ReadonlyMap<string, readonly Run[]>, nowMs: number, ending: boolean): PodStatus {
    return podStatus({
      pod: this.#pod,
      runs,
      waiting: (name) => this.#troubles.shown(name),
      started: (name) => this.#probes.of(name)?.started() ?? false,
      ready: (name) => this.#probes.of(name)?.ready() ?? false,
      message: (run) => this.#words.get(run.id)?.text ?? '',
      sandbox: { ready: this.#sandbox() !== undefined, ips: this.#ips() },
      hostIp: this.#deps.host.facts().address,
      failed: this.#failed,
      ending,
      startedAtMs: this.#startedAtMs(),
      nowMs,
    });
  }

  /** Writes the status when it is another than the last; milliseconds until a look is due that was put off. */
  async #report(runs: ReadonlyMap<string, readonly Run[]>, nowMs: number): Promise<number | undefined> {
    if (this.#lost) return undefined;
    const heldMs = nowMs - this.#reportedAtMs;
    if (this.#jobs.size > 0 && heldMs < HOLD_MS) return HOLD_MS - heldMs;
    const ending = this.#ending(nowMs) !== undefined;
    await this.#write(this.#status(runs, nowMs, ending || isOver({ spec: this.#pod.spec, runs: lastOf(runs) })));
    return undefined;
  }

  async #write(status: PodStatus): Promise<void> {
    if (isDeepStrictEqual(status, this.#reported) || this.#lost) return;
    const { uid } = this.#pod.metadata;
    try {
      const { podIPs, hostIPs } = status;
      // Addresses are merged by address: without this a pod that got another one after a reboot would keep the old one, too.
      const ips = { ...(podIPs ? { podIPs: [REPLACE, ...podIPs] } : {}), hostIPs: [REPLACE, ...(hostIPs ?? [])] };
      const patch = { metadata: { uid }, status: { ...status, ...ips, conditions: status.conditions?.map(whole) } };
      await this.#deps.client.patch(PODS, keyOf(this.#pod), patch, { type: 'strategic', sub: 'status' });
      this.#reported = status;
      this.#reportedAtMs = this.#deps.clock.now();
    } catch (error) {
      // Gone, or another one of its name stands there: the watch will say so.
      if (!isCode(error, 'KUBE_NOT_FOUND', 'KUBE_CONFLICT')) throw error;
    }
  }

  // ---- its end

  /** Nothing runs and nothing will: what it held is given back; a deleted pod leaves the API last. */
  async #finish(runs: ReadonlyMap<string, readonly Run[]>): Promise<Requeue> {
    const { clock, client, engine, objects } = this.#deps;
    const leaving = this.#lost || this.#pod.metadata.deletionTimestamp !== undefined;
    await this.#write(this.#status(runs, clock.now(), true));
    if (!this.#settled) await releaseSandbox(this.#deps, this.#pod);
    this.#settled = true;
    if (this.#failed?.reason === EVICTED) await this.#deps.volumes.dropEmptyDirs(this.uid);
    if (!leaving) return DONE;
    for (const list of runs.values())
      for (const run of list) await engine.containers.remove(run.id, { force: true, volumes: true });
    await this.#deps.volumes.release(this.uid);
    objects.forget(this.uid);
    this.#released = true;
    this.close();
    if (this.#lost) return DONE;
    try {
      await client.delete(PODS, keyOf(this.#pod), { gracePeriodSeconds: 0, preconditions: { uid: this.uid } });
    } catch (error) {
      if (!isCode(error, 'KUBE_NOT_FOUND', 'KUBE_CONFLICT')) throw error;
    }
    return DONE;
  }
}

/** Strategic merge's word for a list that is to be as it stands here. */
const REPLACE = { $patch: 'replace' } as const;

/** Conditions are merged one by one: what one has no more has to be named. */
function whole(condition: PodCondition): object {
  return { ...condition, reason: condition.reason ?? null, message: condition.message ?? null };
}

function lastOf(runs: ReadonlyMap<string, readonly Run[]>): Map<string, Run> {
  const newest = new Map<string, Run>();
  for (const [name, list] of runs) {
    const last = list.at(-1);
    if (last) newest.set(name, last);
  }
  return newest;
}

function least(...values: (number | undefined)[]): number | undefined {
  const known = values.filter((v) => v !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
}
