import { array, boolean, integer, object, oneOf, optional, record, type Shape, string } from '#base/shape.ts';
import type { Protocol } from '#network/model.ts';

/**
 * The edge's seam: what lives in a process of its own that outlives the daemon (src/app/edge.ts). It answers names for
 * containers and keeps host ports reserved. One entry a sandbox, put and dropped whole; the edge remembers them on disk.
 */
export interface Edge {
  /** Replaces the sandbox's entry. Refuses PORT_TAKEN, and then nothing of the entry is in force. */
  put(entry: EdgeEntry): Promise<void>;
  /** Absent is fine. */
  drop(id: string): Promise<void>;
  /** The sandboxes it knows: for the sweep at start. */
  list(): Promise<string[]>;
}

/** An entry the edge has nothing to do for. */
export function isIdle(entry: EdgeEntry): boolean {
  return entry.netns === undefined && entry.holds.length === 0;
}

export interface EdgeEntry {
  id: string;
  /** Namespace in which 127.0.0.11 is served; absent: the sandbox resolves by the host's resolvers. */
  netns?: string;
  /** Resolvers for what is not a name of ours. Absent ones are the host's, read anew when its resolv.conf changes. */
  upstreams: readonly string[];
  /** False: only names of ours. A container of internal networks alone must not talk to the outside by DNS (CVE-2024-29018). */
  forward: boolean;
  /** Where it stands: a name is seen by those who share its network. */
  places: readonly EdgePlace[];
  holds: readonly Hold[];
}

export interface EdgePlace {
  network: string;
  /** The network's name: `web` is also `web.<domain>`, and reverse look-ups answer so. */
  domain: string;
  names: readonly string[];
  addresses: readonly string[];
  /** Names that this one alone has for others of the network: alias → name. */
  links?: Readonly<Record<string, string>> | undefined;
}

export interface Hold {
  protocol: Protocol;
  ip: string;
  port: number;
  /** Connections that reach the port itself, unrewritten, go there: what comes by IPv6 loopback. */
  relayTo?: { ip: string; port: number };
}

/** Where containers of networks with names ask. Real configurations have it hard-coded. */
export const DNS_ADDRESS = '127.0.0.11';
/** Where the edge listens for it in each namespace: port 53 stays free for a name server in the container. */
export const DNS_PORT = 15353;

/** Reads an entry from a message or from disk. */
export const edgeEntryShape: Shape<EdgeEntry> = object({
  id: string({ nonEmpty: true }),
  netns: optional(string()),
  upstreams: array(string()),
  forward: boolean(),
  places: array(
    object({
      network: string(),
      domain: string(),
      names: array(string()),
      addresses: array(string()),
      links: optional(record(string())),
    }),
  ),
  holds: array(
    object({
      protocol: oneOf('tcp', 'udp', 'sctp'),
      ip: string(),
      port: integer({ min: 1, max: 65535 }),
      relayTo: optional(object({ ip: string(), port: integer({ min: 1, max: 65535 }) })),
    }),
  ),
});
