import { networkInterfaces } from 'node:os';
import { posix } from 'node:path';
import type { Clock } from '#base/clock.ts';
import type { Containers } from '#engine/core/containers.ts';
import { WrongPhase } from '#engine/core/errors.ts';
import { type Audit, audit, type Known, type Places } from '#engine/core/insight/audit.ts';
import { type Exposed, exposed, type PublishedTo, reachKey, reachTargets } from '#engine/core/insight/exposed.ts';
import { type Foreseen, type ForeseeParts, foreseeCreate, foreseeUpdate } from '#engine/core/insight/foresee.ts';
import { type KernelView, readKernelView } from '#engine/core/insight/kernel-view.ts';
import { type ShowForm, show } from '#engine/core/insight/show.ts';
import { type Why, why } from '#engine/core/insight/why.ts';
import { type Xray, xray } from '#engine/core/insight/xray.ts';
import { readLogs } from '#engine/core/log-reader.ts';
import type { OciHost } from '#engine/core/oci.ts';
import { type ContainerRecord, isRunning } from '#engine/core/record.ts';
import type { NodeSandboxes } from '#engine/core/sandboxes.ts';
import type { ContainerSpec } from '#engine/core/spec.ts';
import type { NodeVolumes } from '#engine/core/volumes.ts';
import type { CgroupLayout } from '#kernel/cgroup/layout.ts';
import type { Files } from '#kernel/files.ts';
import type { Family } from '#kernel/netlink/ip.ts';
import type { Plan } from '#kernel/plan/plan.ts';
import { type PrintedStep, planToJson, printPlan } from '#kernel/plan/print.ts';
import { readNamespaces } from '#kernel/proc/process.ts';
import { publishEndpoint } from '#network/gateways.ts';
import type { Endpoint } from '#network/model.ts';
import type { Networks } from '#network/networks.ts';

export interface InsightOptions {
  containers: Containers;
  sandboxes: NodeSandboxes;
  networks: Networks;
  volumes: NodeVolumes;
  files: Files;
  clock: Clock;
  host: OciHost;
  cgroups: CgroupLayout;
  /** `/estiba`, the parent of our cgroups. */
  cgroupParent: string;
  dataRoot: string;
  runRoot: string;
  logPath: (id: string) => string;
  runPlan: (plan: Plan) => Promise<unknown>;
  planOf: (id: string) => Plan | undefined;
  foresee: ForeseeParts;
}

const LAST_LINES = 10;
const LOG_FILES_MOST = 100;

/** Facts about containers and the host, gathered here and judged by the pure functions beside. */
export class Insight {
  readonly #o: InsightOptions;

  constructor(options: InsightOptions) {
    this.#o = options;
  }

  xray(wish: string): Xray {
    const { containers, networks, host, files } = this.#o;
    const record = containers.find(wish);
    const others = containers.list().filter((other) => other.id !== record.id && isRunning(other.state));
    return xray({
      record,
      kernel: this.#kernel(record),
      neighbours: others.map(({ name, state }) => ({ name, namespaces: readNamespaces(state.pid, files) })),
      sandbox: networks.sandbox(record.id),
      networks: networks.list(),
      firewallNotes: networks.firewall.notes,
      host,
    });
  }

  async why(wish: string, port?: number): Promise<Why> {
    const { containers, networks, clock } = this.#o;
    const record = containers.find(wish);
    return why({
      record,
      kernel: this.#kernel(record),
      lastLines: await this.#lastLines(record),
      firewallNotes: await networks.firewall.look(),
      bridges: (networks.sandbox(record.id)?.endpoints ?? []).map((endpoint) => this.#bridgeOf(endpoint)),
      ...(port === undefined ? {} : { port }),
      nowMs: clock.now(),
    });
  }

  /** See foresee.ts. */
  planCreate(name: string | undefined, spec: ContainerSpec): Promise<Foreseen> {
    return foreseeCreate(this.#o.foresee, name, spec);
  }

  /** See foresee.ts. */
  planUpdate(wish: string, change: Parameters<typeof foreseeUpdate>[2]): Foreseen {
    return foreseeUpdate(this.#o.foresee, wish, change);
  }

  async exposed(): Promise<Exposed> {
    const { containers, networks } = this.#o;
    const [records, addresses] = [containers.list(), hostAddresses()];
    const targets = reachTargets(records, addresses, (id, family) => this.#publishedTo(id, family));
    const [answers, firewallNotes] = await Promise.all([networks.firewall.reach(targets), networks.firewall.look()]);
    return exposed({
      records,
      listeners: new Map(records.map((record) => [record.id, this.#kernel(record)?.listeners ?? []])),
      hostAddresses: addresses,
      firewallNotes,
      reach: new Map(
        targets.flatMap((target, i) => {
          const ways = answers[i];
          return ways ? [[reachKey(target), ways] as const] : [];
        }),
      ),
    });
  }

  async show(wish: string, form: ShowForm): Promise<string> {
    return show(this.#o.containers.find(wish), form);
  }

  /** How a running container was made, step by step, each with its wish. */
  plan(wish: string): { steps: PrintedStep[]; text: string } {
    const record = this.#o.containers.find(wish);
    const plan = isRunning(record.state) ? this.#o.planOf(record.id) : undefined;
    if (plan) return { steps: planToJson(plan), text: printPlan(plan) };
    throw new WrongPhase({ message: `container ${record.name} is not running: its plan is made when it starts` });
  }

  /** What is about to be given back is no orphan: it goes first. */
  async audit(): Promise<Audit> {
    await this.#o.containers.atRest();
    return audit(this.#known(), this.#places(), this.#o.files);
  }

  /** Takes away what nobody owns, as the audit says it; what is for a person to decide stays. */
  async clean(): Promise<Audit> {
    for (const { cleanup, where } of (await this.audit()).findings) {
      if (!cleanup) continue;
      const steps = cleanup.ops.map((op) => ({
        ...op,
        where: 'host' as const,
        because: `audit: nobody owns ${where}`,
      }));
      await this.#o.runPlan({ steps });
    }
    return this.audit();
  }

  #kernel(record: ContainerRecord): KernelView | undefined {
    const { containers, files } = this.#o;
    if (!isRunning(record.state) || record.state.phase === 'starting') return undefined;
    return readKernelView(containers.running(record.id), files);
  }

  async #lastLines({ id, spec }: ContainerRecord): Promise<string[]> {
    if (spec.logging.driver === 'none') return [];
    const lines: string[] = [];
    const format = spec.logging.driver === 'local' ? 'cri' : 'json';
    const wish = { stdout: true, stderr: true, tail: LAST_LINES };
    const places = { path: this.#o.logPath(id), maxFiles: LOG_FILES_MOST };
    await readLogs(places, format, wish, async (batch) => {
      lines.push(...batch.map((line) => line.text.toString().trimEnd()));
    });
    return lines.slice(-LAST_LINES);
  }

  #bridgeOf({ network }: Endpoint): string {
    return this.#o.networks.find(network).bridge;
  }

  #publishedTo(id: string, family: Family): PublishedTo {
    const sandbox = this.#o.networks.sandbox(id);
    const endpoint = sandbox && publishEndpoint(sandbox, family);
    return endpoint && { address: family === 4 ? endpoint.ipv4 : endpoint.ipv6, bridge: this.#bridgeOf(endpoint) };
  }

  #known(): Known {
    const { containers, sandboxes, networks, volumes } = this.#o;
    const records = containers.list();
    const ids = new Set([...records.map((r) => r.id), ...sandboxes.list()]);
    const boxes = [...ids].flatMap((id) => networks.sandbox(id) ?? []);
    const below = `${this.#o.cgroupParent}/`;
    const groups = records.flatMap(({ spec }) => spec.resources.cgroupParent ?? []);
    return {
      ids,
      cgroupGroups: new Set(groups.filter((g) => g.startsWith(below)).map((g) => g.slice(below.length))),
      running: new Set(records.filter((r) => isRunning(r.state)).map((r) => r.id)),
      volumes: new Set(volumes.list().map((v) => v.name)),
      links: new Set([
        ...networks.list().map((n) => n.bridge),
        ...boxes.flatMap((box) => box.endpoints.map((e) => e.hostLink)),
      ]),
      namespaces: new Set(networks.namespaces()),
    };
  }

  #places(): Places {
    const { dataRoot, runRoot, cgroupParent, cgroups } = this.#o;
    return {
      dataRoot,
      runRoot,
      daemon: posix.basename(cgroupParent),
      cgroupParents: cgroups.hierarchies.map(({ mount }) => posix.join(mount, cgroupParent)),
    };
  }
}

/** Addresses at which others may reach this host. */
function hostAddresses(): string[] {
  return Object.values(networkInterfaces()).flatMap((addresses) => (addresses ?? []).map((a) => a.address));
}
