import { NoSuchContainer } from '#engine/core/errors.ts';
import type { ContainerRecord } from '#engine/core/record.ts';
import type { ContainerSpec } from '#engine/core/spec.ts';

/** An old link of the default bridge: `--link db:store` in `web` shows the container `db` to `web` as `/web/store`. */
export interface Link {
  target: string;
  alias: string;
}

const DEFAULT_BRIDGE = 'bridge';
/** Of the target's own variables these two would break the reader's shell. */
const NOT_TOLD = new Set(['HOME', 'PATH']);

/** Links that give variables and names. Those of other networks are aliases, which DNS serves. */
export function oldLinks({ namespaces, network }: ContainerSpec): Link[] {
  if (namespaces.network.kind !== 'private' || network.endpoints[0]?.network !== DEFAULT_BRIDGE) return [];
  return network.links.map(parseLink);
}

/** `db:store`, `db`, and as inspect shows them: `/db:/web/store`. */
export function parseLink(text: string): Link {
  const [first = '', second] = text.split(':');
  const target = first.replace(/^\//, '');
  return { target, alias: second?.split('/').at(-1) || target };
}

/** Names that other containers' links give to containers, by the target's id: `/web/store`. Pure. */
export function linkedNames(records: readonly ContainerRecord[]): Map<string, string[]> {
  const names = new Map<string, string[]>();
  for (const { name, spec } of records)
    for (const { target, alias } of oldLinks(spec)) {
      const id = records.find((r) => r.name === target || r.id.startsWith(target))?.id;
      if (id !== undefined) names.set(id, [...(names.get(id) ?? []), `/${name}/${alias}`]);
    }
  return names;
}

/** From its next start on; what runs keeps the variables it has. NO_SUCH_CONTAINER when there is no such link. Pure. */
export function withoutLink(record: ContainerRecord, alias: string): ContainerRecord {
  const { spec, name } = record;
  const left = oldLinks(spec).some((link) => link.alias === alias)
    ? spec.network.links.filter((text) => parseLink(text).alias !== alias)
    : undefined;
  if (!left) throw new NoSuchContainer({ name: `${name}/${alias}` });
  return { ...record, spec: { ...spec, network: { ...spec.network, links: left } } };
}

interface Port {
  number: number;
  protocol: string;
}

/**
 * What a linked container is told of its target: where each exposed port is, and the target's own variables with a prefix. Three
 * ports or more in a row are told as a range too. Pure.
 */
export function linkVariables(owner: string, alias: string, target: ContainerRecord): string[] {
  const address = target.endpoints[DEFAULT_BRIDGE]?.ipv4 ?? '';
  const prefix = alias.toUpperCase().replaceAll('-', '_');
  const ports = target.process.exposedPorts.map(parsePort).sort(byNumberThenTcp);
  const url = ({ number, protocol }: Port): string => `${protocol}://${address}:${number}`;
  const [first] = ports;
  return [
    ...(first ? [`${prefix}_PORT=${url(first)}`] : []),
    ...ranges(ports).flatMap(([from, to]) => {
      const name = `${prefix}_PORT_${from.number}_${from.protocol.toUpperCase()}`;
      return [
        `${name}_START=${url(from)}`,
        `${name}_ADDR=${address}`,
        `${name}_PROTO=${from.protocol}`,
        `${name}_PORT_START=${from.number}`,
        `${name}_END=${url(to)}`,
        `${name}_PORT_END=${to.number}`,
      ];
    }),
    ...ports.flatMap((port) => {
      const name = `${prefix}_PORT_${port.number}_${port.protocol.toUpperCase()}`;
      return [
        `${name}=${url(port)}`,
        `${name}_ADDR=${address}`,
        `${name}_PORT=${port.number}`,
        `${name}_PROTO=${port.protocol}`,
      ];
    }),
    `${prefix}_NAME=/${owner}/${alias}`,
    ...target.process.env.filter((e) => !NOT_TOLD.has(e.split('=')[0] ?? '')).map((entry) => `${prefix}_ENV_${entry}`),
  ];
}

function parsePort(key: string): Port {
  const [number = '', protocol = 'tcp'] = key.split('/');
  return { number: Number(number), protocol };
}

function byNumberThenTcp(a: Port, b: Port): number {
  return a.number - b.number || Number(b.protocol === 'tcp') - Number(a.protocol === 'tcp');
}

/** First and last of each run of three consecutive ports or more. */
function ranges(ports: readonly Port[]): [Port, Port][] {
  const found: [Port, Port][] = [];
  let first = 0;
  for (let i = 1; i <= ports.length; i++) {
    const [from, last, next] = [ports[first], ports[i - 1], ports[i]];
    if (next && last && next.number === last.number + 1) continue;
    if (from && last && i - first > 2) found.push([from, last]);
    first = i;
  }
  return found;
}
