import { readdirSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Chores } from '#base/chores.ts';
import type { Clock } from '#base/clock.ts';
import { assert, describeChain, isCode } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { newId, type Random } from '#base/random.ts';
import { Undo } from '#base/undo.ts';
import type { NetKernel } from '#kernel/netlink/hand.ts';
import { parseCidr } from '#kernel/netlink/ip.ts';
import { deleteLink, dumpLinks, getLink, type LinkStats, parseLinks } from '#kernel/netlink/link.ts';
import { type CreateRequest, createDecision, predefinedNetworks } from '#network/create.ts';
import type { Edge } from '#network/edge.ts';
import {
  EndpointExists,
  EndpointNotFound,
  NetworkExists,
  NetworkInUse,
  NetworkIsPredefined,
  NetworkNotFound,
} from '#network/errors.ts';
import { GateKeeper } from '#network/gate-keeper.ts';
import { publishTarget, withGateways } from '#network/gateways.ts';
import { askRoute, hostLinks, takenOnHost } from '#network/host.ts';
import type { Taken } from '#network/ipam.ts';
import type { Endpoint, Network, Sandbox } from '#network/model.ts';
import {
  type Plug,
  planBridgeAddresses,
  planNamespace,
  planNamespaceGone,
  planNetworkDown,
  planNetworkUp,
  planPlug,
  planPublish,
  planRepublish,
  planReroute,
  planUnplug,
  planWithdraw,
} from '#network/plan.ts';
import { NamespacePool } from '#network/pool.ts';
import { deleteNetwork, deleteSandbox, loadNetworks, loadSandboxes, putNetwork, putSandbox } from '#network/records.ts';
import { addAll, createTable, gateElement, networkElements, portElements, removeTable } from '#network/ruleset.ts';
import { type AttachRequest, type EndpointRequest, Sandboxes } from '#network/sandboxes.ts';
import { type NetStep, runAll, runStep, runSteps, streamSteps } from '#network/steps.ts';
import type { Store, TxnOp } from '#storage/store.ts';

export interface NetworksOptions {
  /** Names the nftables table, the default bridge and links; at most 8 characters of it are used for links. */
  daemon: string;
  kernel: NetKernel;
  store: Store;
  edge: Edge;
  clock: Clock;
  random: Random;
  log: Logger;
  /** Where namespaces are kept; on a tmpfs, since they do not survive a boot. */
  netnsDir: string;
  /** Gateway and subnet of the default bridge (`--bip`); absent: a free one. */
  bip?: string;
  /** The host has IPv6: ports without an address are published there as well. */
  ipv6: boolean;
  /** Namespaces made ahead. */
  poolSize: number;
  mtuBytes: number;
}

/** Until a daemon that starts has given its first answers; who wants a container sooner makes his own namespace. */
const FIRST_FILL_MS = 100;

/**
 * Networks of one node. The state is small and in memory, its truth in the store; a change is reserved in memory at once (`Sandboxes`),
 * written as intent, then done in the kernel, and unwound in reverse when a step fails.
 *
 *     attach   namespace ─▶ reserve addresses and ports ─▶ record ─▶ begun ─▶ plug, publish, edge ─▶ done
 *     detach   withdraw, edge ─▶ forget the record ─▶ begun ─▶ drop namespace (the links die with it) ─▶ release addresses ─▶ done
 */
export class Networks {
  readonly #o: NetworksOptions;
  readonly #pool: NamespacePool;
  readonly #gate: GateKeeper;
  readonly #networks = new Map<string, Network>();
  readonly #boxes: Sandboxes;
  readonly #bridges = new Map<string, number>();
  readonly #chores: Chores;
  #cancelFill: () => void = () => undefined;
  /** Paths of namespaces that wait to be dropped. */
  readonly #leaving = new Set<string>();

  private constructor(options: NetworksOptions) {
    this.#o = options;
    this.#boxes = new Sandboxes({ ...options, networks: this.#networks, find: (ref) => this.find(ref) });
    this.#chores = new Chores(options.clock);
    const later = (work: () => Promise<void>): void => void this.#chores.add(work);
    this.#pool = new NamespacePool({ ...options, dir: options.netnsDir, size: options.poolSize, later });
    this.#gate = new GateKeeper({ ...options, bridges: () => this.list().map(({ bridge }) => bridge) });
  }

  /** Brings the kernel to what the store says. The table is replaced in one transaction: running containers lose no packet. */
  static async open(options: NetworksOptions): Promise<Networks> {
    const self = new Networks(options);
    await mkdir(options.netnsDir, { recursive: true, mode: 0o711 });
    await self.#load();
    await self.#sweepSandboxes();
    await self.#bringUp();
    await self.#sweepStrangers();
    self.#gate.watch(() => self.#boxes.all().some((box) => box.ports.length > 0));
    self.#cancelFill = options.clock.after(FIRST_FILL_MS, () => self.#pool.fill());
    return self;
  }

  // -- networks -----------------------------------------------------------------------------------------------------------

  list(): Network[] {
    return [...this.#networks.values()];
  }

  find(ref: string): Network {
    const exact = this.#networks.get(ref) ?? this.list().find((n) => n.name === ref);
    if (exact) return exact;
    const begins = ref.length > 0 ? this.list().filter((n) => n.id.startsWith(ref)) : [];
    const [only] = begins;
    if (!only || begins.length > 1) throw new NetworkNotFound({ network: ref });
    return only;
  }

  async create(request: CreateRequest): Promise<Network> {
    const twin = this.list().find((n) => n.name === request.name);
    if (twin) throw new NetworkExists({ name: twin.name, id: twin.id });
    const taken = await this.#taken();
    const network = createDecision(request, {
      id: newId(this.#o.random),
      daemon: this.#o.daemon,
      nowMs: this.#o.clock.now(),
      mtuBytes: this.#o.mtuBytes,
      // Networks made while the routes were read count as well.
      taken: [...taken, ...this.#ownSubnets()],
    });
    // Again, since others may have come while we waited; from here to the reservation nothing waits.
    const late = this.list().find((n) => n.name === request.name);
    if (late) throw new NetworkExists({ name: late.name, id: late.id });
    await using undo = new Undo();
    this.#networks.set(network.id, network);
    undo.add('reservation', () => this.#networks.delete(network.id));
    await this.#o.store.txn({ ops: [putNetwork(network)] });
    undo.add('record', () => this.#o.store.txn({ ops: [deleteNetwork(network.id)] }));
    await this.#up(network);
    undo.keep();
    return network;
  }

  async remove(ref: string): Promise<Network> {
    const network = this.find(ref);
    if (network.predefined) throw new NetworkIsPredefined({ name: network.name });
    const holders = this.sandboxesOn(network.id).map((box) => box.name);
    if (holders.length > 0) throw new NetworkInUse({ name: network.name, holders });
    this.#networks.delete(network.id); // nobody attaches to it any more
    await this.#chores.flush();
    await this.#teardown(planNetworkDown(this.#o.daemon, network));
    this.#bridges.delete(network.id);
    await this.#o.store.txn({ ops: [deleteNetwork(network.id)] });
    return network;
  }

  sandboxesOn(networkId: string): Sandbox[] {
    return this.#boxes.all().filter((box) => box.endpoints.some((e) => e.network === networkId));
  }

  // -- sandboxes ------------------------------------------------------------------------------------------------------------

  /** Paths of all network namespaces that are ours, those made ahead too. */
  namespaces(): string[] {
    return [...this.#pool.ready, ...this.#leaving, ...this.#boxes.all().map((box) => box.netns)];
  }

  sandbox(id: string): Sandbox | undefined {
    return this.#boxes.get(id);
  }

  async attach(request: AttachRequest): Promise<Sandbox> {
    const { sandbox, plug } = await this.beginAttach(request);
    await plug();
    return sandbox;
  }

  /**
   * As `attach`, answered as soon as all is decided and on record: the namespace is there, and its addresses are known. `plug` gives them
   * to the kernel and the edge, once; it rejects when all has been taken back. To be called, and awaited, before `detach`.
   */
  async beginAttach(request: AttachRequest): Promise<{ sandbox: Sandbox; plug: () => Promise<void> }> {
    this.#chores.stir();
    const undo = new Undo();
    try {
      const { idMap } = request;
      const kept = idMap === undefined ? { netns: await this.#pool.take() } : await this.#pool.makeOwned(idMap);
      undo.add('namespace', () => runSteps(this.#o.kernel, planNamespaceGone(kept, 'undo')));
      const sandbox = await this.#withAddresses(request.endpoints, () => this.#boxes.reserve(request, kept));
      undo.add('reservation', () => this.#boxes.release(sandbox));
      await this.#note(putSandbox(sandbox));
      undo.add('record', () => this.#note(deleteSandbox(sandbox.id)));
      let plugged: Promise<void> | undefined;
      const plug = (): Promise<void> => {
        plugged ??= this.#finishAttach(sandbox, undo).finally(() => this.#pool.fill());
        plugged.catch(() => undefined); // told to whoever awaits it, who may be busy until then
        return plugged;
      };
      return { sandbox, plug };
    } catch (error) {
      await undo.unwind();
      this.#pool.fill();
      throw error;
    }
  }

  async #finishAttach(sandbox: Sandbox, begun: Undo): Promise<void> {
    await using undo = begun;
    const { netns } = sandbox;
    if (sandbox.ports.length > 0) await this.#gate.refresh();
    const plugs = sandbox.endpoints.map((endpoint) => this.#plug(endpoint));
    const steps = plugs.flatMap((plug) => planPlug(netns, plug));
    if (sandbox.ports.length > 0)
      steps.push(planPublish(this.#o.daemon, sandbox, (port) => this.#boxes.sharersOf(port, sandbox)));
    // The edge binds sockets while the kernel's network is set up; both are awaited, so that undo finds them at rest.
    const [kernel, edge] = await Promise.allSettled([
      streamSteps(this.#o.kernel, steps),
      this.#o.edge.put(this.#boxes.edgeEntry(sandbox)),
    ]);
    if (kernel.status === 'fulfilled' && sandbox.ports.length > 0)
      undo.add('published ports', () => this.#withdraw(sandbox));
    if (edge.status === 'fulfilled') undo.add('edge', () => this.#o.edge.drop(sandbox.id));
    if (edge.status === 'rejected') throw edge.reason; // a port that is taken says more than what follows from it
    if (kernel.status === 'rejected') throw kernel.reason;
    undo.keep();
  }

  /** What `attach` would do now, with nothing made: addresses and ports are chosen, and let go again. */
  foresee(request: AttachRequest): { netns: string; userns?: string; steps: NetStep[] } {
    const { idMap: map } = request;
    const next = join(this.#o.netnsDir, 'next');
    const owner = map === undefined ? undefined : { path: `${next}.user`, map };
    const netns = owner ? next : (this.#pool.ready[0] ?? next);
    const sandbox = this.#boxes.reserve(request, { netns });
    try {
      const plugs = sandbox.endpoints.flatMap((endpoint) => planPlug(netns, this.#plug(endpoint)));
      const publish = planPublish(this.#o.daemon, sandbox, (port) => this.#boxes.sharersOf(port, sandbox));
      const because = 'a network of its own';
      return {
        netns,
        ...(owner ? { userns: owner.path } : {}),
        steps: [
          ...planNamespace(netns, because, undefined, owner),
          ...plugs,
          ...(sandbox.ports.length > 0 ? [publish] : []),
        ],
      };
    } finally {
      this.#boxes.release(sandbox);
    }
  }

  /** Absent is fine; every step is tried. */
  async detach(id: string): Promise<void> {
    await this.beginDetach(id);
    await this.#chores.flush();
  }

  /**
   * As `detach`, answered when nobody finds it any more and its ports are free. Its namespace goes when there is time, and until then its
   * addresses are nobody else's: it still answers for them. After a crash start finds a namespace that nobody owns.
   */
  async beginDetach(id: string): Promise<void> {
    const sandbox = this.#boxes.get(id);
    if (!sandbox) return;
    if (sandbox.ports.length > 0) await this.#withdraw(sandbox);
    await this.#o.edge.drop(id);
    await this.#note(deleteSandbox(id));
    if (!this.#boxes.get(id)) return; // another call was quicker
    const freeAddresses = this.#boxes.leave(sandbox);
    const { name, netns } = sandbox;
    this.#leaving.add(netns);
    this.#chores.add(async () => {
      await this.#teardown(planNamespaceGone(sandbox, `${name} goes`));
      this.#leaving.delete(netns);
      freeAddresses();
    });
  }

  /** Who asks for an address by its number may mean that of one who leaves, and where none is left, any of those will do. */
  async #withAddresses<T>(wishes: readonly EndpointRequest[], reserve: () => T): Promise<T> {
    if (wishes.some((wish) => (wish.ipv4 ?? wish.ipv6 ?? wish.mac) !== undefined)) await this.#chores.flush();
    try {
      return reserve();
    } catch (error) {
      if (!isCode(error, 'NO_FREE_ADDRESS')) throw error;
      await this.#chores.flush();
      return reserve();
    }
  }

  /** A running container joins one more network; default routes and published ports move there when they are due to it. */
  async connect(id: string, request: EndpointRequest): Promise<Endpoint> {
    const before = this.#boxes.known(id);
    const network = this.find(request.network);
    if (before.endpoints.some((e) => e.network === network.id))
      throw new EndpointExists({ container: before.name, network: network.name });
    await using undo = new Undo();
    const links = before.endpoints.map((e) => Number(e.link.slice(3)));
    const n = [...Array(links.length + 1).keys()].find((i) => !links.includes(i)) ?? links.length;
    const endpoint = await this.#withAddresses([request], () => this.#boxes.newEndpoint(id, request, n));
    undo.add('addresses', () => this.#boxes.releaseEndpoint(endpoint));
    const after = this.#withGateways(before, [...before.endpoints, endpoint]);
    await this.#replace(before, after, undo);
    const steps = [
      ...planPlug(before.netns, this.#plug(endpoint)),
      ...planReroute(before.netns, this.#places(before), this.#places(after)),
      ...planRepublish(this.#o.daemon, before, after),
    ];
    await runSteps(this.#o.kernel, steps);
    for (const back of steps.flatMap((step) => step.undo ?? []))
      undo.add(back.what, () => runStep(this.#o.kernel, back));
    await this.#o.edge.put(this.#boxes.edgeEntry(after));
    undo.keep();
    return after.endpoints.at(-1) ?? endpoint;
  }

  async disconnect(id: string, ref: string): Promise<void> {
    const before = this.#boxes.known(id);
    const network = this.find(ref);
    const endpoint = before.endpoints.find((e) => e.network === network.id);
    if (!endpoint) throw new EndpointNotFound({ container: before.name, network: network.name });
    const after = this.#withGateways(
      before,
      before.endpoints.filter((e) => e !== endpoint),
    );
    // Published ports lead to the endpoint with the default route: they go with the last one.
    const losesPorts = endpoint.defaultRoutes.length > 0 && !after.endpoints.some((e) => e.defaultRoutes.length > 0);
    if (losesPorts && before.ports.length > 0) await this.#withdraw(before);
    const final = losesPorts ? { ...after, ports: [] } : after;
    this.#boxes.set(final);
    await this.#o.edge.put(this.#boxes.edgeEntry(final));
    await this.#teardown([
      ...planReroute(before.netns, this.#places(before), this.#places(final)),
      ...planRepublish(this.#o.daemon, before, final),
      planUnplug(before.netns, endpoint, `disconnect from ${network.name}`),
    ]);
    await this.#o.store.txn({ ops: [putSandbox(final)] });
    this.#boxes.releaseEndpoint(endpoint);
  }

  #withGateways(sandbox: Sandbox, endpoints: readonly Endpoint[]): Sandbox {
    return { ...sandbox, endpoints: withGateways(endpoints, this.#networks) };
  }

  #places(sandbox: Sandbox): Plug[] {
    return sandbox.endpoints.map((endpoint) => this.#plug(endpoint));
  }

  /** Counters of each interface inside, by name. */
  async stats(id: string): Promise<Map<string, LinkStats>> {
    const sandbox = this.#boxes.known(id);
    const links = parseLinks(await askRoute(this.#o.kernel, 'read link statistics', [dumpLinks()], sandbox.netns));
    return new Map(links.flatMap((link) => (link.stats && link.name !== 'lo' ? [[link.name, link.stats]] : [])));
  }

  get firewall(): GateKeeper {
    return this.#gate;
  }

  /** Containers keep running: only what the daemon made ahead goes. */
  async close(): Promise<void> {
    this.#gate.close();
    this.#cancelFill();
    await Promise.all([this.#pool.close(), this.#chores.flush()]);
  }

  /** Nothing of ours stays on the host: for uninstalling and for tests. Sandboxes must be gone. */
  async removeAll(): Promise<void> {
    await this.close();
    const steps: NetStep[] = this.list()
      .filter((n) => n.driver === 'bridge')
      .map((n) => ({
        do: 'route',
        what: `remove bridge ${n.bridge}`,
        because: 'all goes',
        messages: [deleteLink({ name: n.bridge })],
      }));
    const table: NetStep = {
      do: 'firewall',
      what: 'remove the table',
      because: 'all goes',
      messages: removeTable(this.#o.daemon),
    };
    await this.#teardown([...steps, table]);
  }

  #plug(endpoint: Endpoint): Plug {
    const network = this.#networks.get(endpoint.network);
    const bridgeIndex = this.#bridges.get(endpoint.network);
    if (!network || bridgeIndex === undefined) throw new NetworkNotFound({ network: endpoint.network });
    return { endpoint, network, bridgeIndex };
  }

  /** Lazily: a sandbox is gone with the power, and its record says no more than that one stood. */
  async #note(op: TxnOp): Promise<void> {
    await this.#o.store.txn({ ops: [op], lazy: true });
  }

  async #replace(before: Sandbox, after: Sandbox, undo: Undo): Promise<void> {
    this.#boxes.set(after);
    undo.add('sandbox', () => this.#boxes.set(before));
    await this.#o.store.txn({ ops: [putSandbox(after)] });
    undo.add('record', () => this.#o.store.txn({ ops: [putSandbox(before)] }));
  }

  // -- start ------------------------------------------------------------------------------------------------------------------

  async #load(): Promise<void> {
    for (const network of await loadNetworks(this.#o.store)) this.#networks.set(network.id, network);
    for (const sandbox of await loadSandboxes(this.#o.store)) {
      this.#boxes.restore(sandbox);
    }
    const bip = this.#o.bip === undefined ? undefined : parseCidr(this.#o.bip);
    const missing = predefinedNetworks(this.list(), {
      newId: () => newId(this.#o.random),
      daemon: this.#o.daemon,
      nowMs: this.#o.clock.now(),
      mtuBytes: this.#o.mtuBytes,
      bip,
      taken: [...(await this.#taken()), ...this.#ownSubnets()],
    });
    if (missing.length > 0) await this.#o.store.txn({ ops: missing.map(putNetwork) });
    for (const network of missing) this.#networks.set(network.id, network);
  }

  /** A sandbox whose namespace is gone (a boot, a crash half-way) is forgotten; its owner finds it absent. */
  async #sweepSandboxes(): Promise<void> {
    const alive = new Set(readdirSync(this.#o.netnsDir).map((name) => join(this.#o.netnsDir, name)));
    for (const sandbox of this.#boxes.all()) {
      if (alive.has(sandbox.netns) && sandbox.endpoints.every((e) => this.#networks.has(e.network))) continue;
      this.#o.log.info('forgets a sandbox whose namespace is gone', { id: sandbox.id, name: sandbox.name });
      await this.#o.store.txn({ ops: [deleteSandbox(sandbox.id)] });
      this.#boxes.release(sandbox);
    }
  }

  async #bringUp(): Promise<void> {
    for (const name of ['ipv4/ip_forward', ...(this.#o.ipv6 ? ['ipv6/conf/all/forwarding'] : [])])
      await this.#o.kernel.sysctl('', name, '1');
    const boxes = this.#boxes.all();
    const gates = new Map(
      boxes.flatMap((b) => b.ports).map((p) => [`${p.protocol} ${p.hostPort}`, gateElement(p.protocol, p.hostPort)]),
    );
    const links = await hostLinks(this.#o.kernel);
    const standing = this.list().filter((n) => n.driver === 'bridge' && links.some((l) => l.name === n.bridge));
    await runStep(this.#o.kernel, {
      do: 'firewall',
      what: `make table ${this.#o.daemon}`,
      because: 'start',
      messages: [
        ...createTable(this.#o.daemon),
        ...addAll(this.#o.daemon, [
          ...standing.flatMap(networkElements),
          ...boxes.flatMap((box) => portElements(box.ports, publishTarget(box))),
          ...gates.values(),
        ]),
      ],
    });
    await this.#gate.refresh();
    for (const network of standing) {
      const link = links.find((l) => l.name === network.bridge);
      if (link) this.#bridges.set(network.id, link.index);
    }
    for (const network of this.list()) if (!standing.includes(network)) await this.#up(network);
    for (const box of boxes) await this.#o.edge.put(this.#boxes.edgeEntry(box));
  }

  async #sweepStrangers(): Promise<void> {
    const used = new Set(this.#boxes.all().flatMap(({ netns, userns }) => [netns, ...(userns ? [userns] : [])]));
    const strangers = readdirSync(this.#o.netnsDir)
      .map((name) => join(this.#o.netnsDir, name))
      .filter((path) => !used.has(path));
    for (const id of await this.#o.edge.list()) if (!this.#boxes.get(id)) await this.#o.edge.drop(id);
    await this.#teardown(
      strangers.map((path) => ({ do: 'dropNetns', what: `drop ${path}`, because: 'nobody owns it', path })),
    );
  }

  async #up(network: Network): Promise<void> {
    if (network.driver !== 'bridge') return;
    await using undo = new Undo();
    await runSteps(this.#o.kernel, planNetworkUp(this.#o.daemon, network));
    undo.add('bridge', () => this.#teardown(planNetworkDown(this.#o.daemon, network)));
    const [link] = parseLinks(
      await askRoute(this.#o.kernel, `look up ${network.bridge}`, [getLink({ name: network.bridge })]),
    );
    assert(link, `bridge ${network.bridge} was just made`);
    await runStep(this.#o.kernel, planBridgeAddresses(network, link.index));
    this.#bridges.set(network.id, link.index);
    undo.keep();
  }

  // -- the kernel -------------------------------------------------------------------------------------------------------------

  async #withdraw(sandbox: Sandbox): Promise<void> {
    await this.#teardown([planWithdraw(this.#o.daemon, sandbox, (port) => this.#boxes.sharersOf(port, sandbox))]);
  }

  async #teardown(steps: readonly NetStep[]): Promise<void> {
    await runAll(this.#o.kernel, steps, (step, error) =>
      this.#o.log.warn('step of a teardown failed', { step: step.what, error: describeChain(error) }),
    );
  }

  #taken(): Promise<Taken[]> {
    return takenOnHost(this.#o.kernel, new Set(this.list().map((n) => n.bridge)));
  }

  #ownSubnets(): Taken[] {
    return this.list().flatMap((n) => n.subnets.map((s) => ({ cidr: s.subnet, holder: `network ${n.name}` })));
  }
}
