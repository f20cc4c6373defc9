import { guessedOf, type HostPort, type NodeInfo } from '../state.ts';
import type { Verdict } from '../verdict.ts';
import type { FilterPlugin, ScorePlugin } from './plugin.ts';

const TOO_MANY: Verdict = { code: 'TOO_MANY_PODS', text: 'Too many pods' };
const PORTS: Verdict = { code: 'PORTS', text: "node(s) didn't have free ports for the requested pod ports" };
const MEBIBYTE = 1024 * 1024;

export const resources: FilterPlugin = {
  name: 'NodeResourcesFit',
  prepare({ requests }) {
    const wanted = Object.entries(requests).filter(([, amount]) => amount > 0);
    const verdicts = new Map(
      wanted.map(([name]): [string, Verdict] => [name, { code: 'RESOURCES', text: `Insufficient ${name}` }]),
    );
    return (node) => {
      let lacking: Verdict[] | undefined;
      if (node.pods.size + 1 > (node.allocatable['pods'] ?? 0)) lacking = [TOO_MANY];
      for (const [name, amount] of wanted) {
        if (amount + (node.requested[name] ?? 0) <= (node.allocatable[name] ?? 0)) continue;
        const verdict = verdicts.get(name);
        if (verdict) lacking = [...(lacking ?? []), verdict];
      }
      return lacking;
    };
  },
};

/** Half of the score each for free cpu and free memory once the pod stands there. */
export const leastAllocated: ScorePlugin = {
  name: 'NodeResourcesFit',
  weight: 1,
  scale: 'as-is',
  prepare(pod) {
    const own = guessedOf(pod);
    return (node) => {
      const cpu = freeShare(node.allocatable['cpu'], node.guessed.cpu + own.cpu);
      const memory = freeShare(node.allocatable['memory'], node.guessed.memory + own.memory);
      return ((cpu + memory) / 2) * 100;
    };
  },
};

/** A node whose cpu and memory fill up evenly has room for more kinds of pods later. */
export const balanced: ScorePlugin = {
  name: 'NodeResourcesBalancedAllocation',
  weight: 1,
  scale: 'as-is',
  prepare({ requests }) {
    const { cpu = 0, memory = 0 } = requests;
    if (cpu === 0 && memory === 0) return undefined;
    return (node) => {
      const usedCpu = 1 - freeShare(node.allocatable['cpu'], (node.requested['cpu'] ?? 0) + cpu);
      const usedMemory = 1 - freeShare(node.allocatable['memory'], (node.requested['memory'] ?? 0) + memory);
      return (1 - Math.abs(usedCpu - usedMemory) / 2) * 100;
    };
  },
};

function freeShare(capacity: number | undefined, used: number): number {
  return capacity && used < capacity ? (capacity - used) / capacity : 0;
}

export const ports: FilterPlugin = {
  name: 'NodePorts',
  prepare({ ports: wanted }) {
    if (wanted.length === 0) return undefined;
    return (node) => {
      for (const { ports: taken } of node.pods.values())
        if (taken.length > 0 && taken.some((t) => wanted.some((w) => clash(t, w)))) return PORTS;
      return undefined;
    };
  },
};

/** The wildcard address takes the port on every address. */
function clash(a: HostPort, b: HostPort): boolean {
  return a.port === b.port && a.protocol === b.protocol && (a.ip === b.ip || isAny(a.ip) || isAny(b.ip));
}

function isAny(ip: string): boolean {
  return ip === '0.0.0.0' || ip === '::';
}

// Between these sums of image sizes the score grows; each image counts by the share of nodes that have it, so that not all pods
// of an image run to the one node that pulled it first. Upstream's figures.
const IMAGE_FLOOR = 23 * MEBIBYTE;
const IMAGE_CEILING_PER_CONTAINER = 1000 * MEBIBYTE;

export const imageLocality: ScorePlugin = {
  name: 'ImageLocality',
  weight: 1,
  scale: 'as-is',
  prepare({ pod }, { state }, candidates) {
    const images = pod.spec.containers.map((c) => normalImage(c.image ?? ''));
    if (!images.some((image) => state.imageSpread(image) > 0)) return undefined;
    const total = Math.max(1, state.nodes.size, candidates.length);
    const ceiling = IMAGE_CEILING_PER_CONTAINER * images.length;
    return (node: NodeInfo) => {
      const bytes = images.reduce(
        (sum, image) => sum + ((node.images.get(image) ?? 0) * state.imageSpread(image)) / total,
        0,
      );
      return (100 * (Math.min(ceiling, Math.max(IMAGE_FLOOR, bytes)) - IMAGE_FLOOR)) / (ceiling - IMAGE_FLOOR);
    };
  },
};

function normalImage(image: string): string {
  const afterSlash = image.slice(image.lastIndexOf('/') + 1);
  return afterSlash.includes(':') || image.includes('@') ? image : `${image}:latest`;
}
