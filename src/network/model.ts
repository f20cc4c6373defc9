import type { Cidr, Family, Ip } from '#kernel/netlink/ip.ts';

/** What the network layer keeps. Addresses are text on disk and in APIs (`10.1.0.2`), `Ip` while being computed with. */
export type Driver = 'bridge' | 'host' | 'none';

export interface Subnet {
  subnet: Cidr;
  /** Part of the subnet that addresses are handed out from; all of it when absent. */
  range: Cidr | undefined;
  gateway: Ip;
  /** Addresses that are never handed out, by name (`--aux-address`). */
  auxiliary: Readonly<Record<string, Ip>>;
}

export interface Network {
  id: string;
  name: string;
  driver: Driver;
  createdAtMs: number;
  subnets: readonly Subnet[];
  /** No way out and none in: no masquerade, no forwarding but within. */
  internal: boolean;
  ipv6: boolean;
  /** Containers of the network reach each other; off, only published ports are open between them. */
  icc: boolean;
  /**
   * Containers reach each other through the host: each has its address to itself (/32), so everybody else is behind the
   * gateway. Every packet between them meets the host's rules, and answers of redirected connections come back the way they went,
   * with the client's own address. Ports are not isolated: with br_netfilter loaded, a redirected packet is bridged from port to port.
   */
  routed: boolean;
  masquerade: boolean;
  mtuBytes: number;
  /** Name of the Linux bridge; `''` for drivers without one. */
  bridge: string;
  /** Host address that published ports bind to when none is named. */
  hostBinding: string;
  labels: Readonly<Record<string, string>>;
  options: Readonly<Record<string, string>>;
  ipamOptions?: Readonly<Record<string, string>> | undefined;
  attachable: boolean;
  /** Made by us at start; cannot be removed. */
  predefined: boolean;
  /** The default bridge resolves no names and hands out the host's resolvers. */
  names: boolean;
}

export type Protocol = 'tcp' | 'udp' | 'sctp';

/** One published port, resolved: a range is a list of these. */
export interface PublishedPort {
  protocol: Protocol;
  containerPort: number;
  /** `0.0.0.0`, `::` or an address of the host. */
  hostIp: string;
  hostPort: number;
}

/** A container's place in a network. */
export interface Endpoint {
  network: string;
  sandbox: string;
  /** Interface inside: `eth0`, `eth1`, …; its number is `LINK_INDEX_BASE` + n. */
  link: string;
  /** The pair's other end, on the host. */
  hostLink: string;
  mac: string;
  ipv4: string | undefined;
  ipv6: string | undefined;
  /** Asked for by the user, hence kept over restarts. */
  asked: { ipv4?: string; ipv6?: string; mac?: string };
  /** Names in this network: container name, short id, `--network-alias`. */
  names: readonly string[];
  /** Names this sandbox alone has for others of the network: alias → name. */
  links?: Readonly<Record<string, string>> | undefined;
  /** Further addresses of its link that no network hands out (169.254.0.0/16, fe80::/10). */
  linkLocal?: readonly string[] | undefined;
  gwPriority?: number | undefined;
  /** Families whose default route in the container leads to this network's gateway (gateways.ts chooses). */
  defaultRoutes: readonly Family[];
}

/** The network side of a container or pod: one namespace and what is plugged into it. On disk before it exists. */
export interface Sandbox {
  id: string;
  /** For messages: the container's name. */
  name: string;
  netns: string;
  /** Kept there: the user namespace that the network namespace belongs to. Absent: the host's. */
  userns?: string | undefined;
  endpoints: readonly Endpoint[];
  ports: readonly PublishedPort[];
  dns: DnsSettings;
}

export interface DnsSettings {
  servers: readonly string[];
  search: readonly string[];
  options: readonly string[];
}

/** Number of the first interface inside; high enough to pass the tunnel devices some kernels put into each namespace. */
export const LINK_INDEX_BASE = 10;
