import { milliOf, unitsOf } from './quantity.ts';
import type { Container, PodSpec, Quantity } from './types.gen.ts';

/** By resource name; `cpu` in millicores, all others in whole units (bytes, counts). */
export type Amounts = Record<string, number>;

export function amountsOf(list: Record<string, Quantity> | undefined): Amounts {
  const out: Amounts = {};
  for (const [name, quantity] of Object.entries(list ?? {}))
    out[name] = name === 'cpu' ? milliOf(quantity) : unitsOf(quantity);
  return out;
}

/**
 * What a pod asks for, as the scheduler and quotas count it: the containers and sidecars together, or the most any init step
 * needs beside the sidecars started before it, whichever is more; then overhead. Pod-level figures win where they are given.
 */
export function podAmounts(spec: PodSpec, which: 'requests' | 'limits' = 'requests'): Amounts {
  const running: Amounts = {};
  for (const container of spec.containers) addTo(running, ofContainer(container, which));
  const initPeak: Amounts = {};
  const sidecars: Amounts = {};
  for (const container of spec.initContainers ?? []) {
    const own = ofContainer(container, which);
    if (container.restartPolicy === 'Always') {
      addTo(running, own);
      addTo(sidecars, own);
      raiseTo(initPeak, sidecars);
    } else {
      raiseTo(initPeak, sum(own, sidecars));
    }
  }
  raiseTo(running, initPeak);
  Object.assign(running, amountsOf(spec.resources?.[which]));
  addTo(running, amountsOf(spec.overhead));
  return running;
}

/** A limit without a request is the request too; the server defaults it so, static pods may come without. */
function ofContainer(container: Container, which: 'requests' | 'limits'): Amounts {
  const limits = amountsOf(container.resources?.limits);
  return which === 'limits' ? limits : { ...limits, ...amountsOf(container.resources?.requests) };
}

function addTo(total: Amounts, more: Amounts): void {
  for (const [name, amount] of Object.entries(more)) total[name] = (total[name] ?? 0) + amount;
}

function raiseTo(total: Amounts, floor: Amounts): void {
  for (const [name, amount] of Object.entries(floor)) total[name] = Math.max(total[name] ?? 0, amount);
}

function sum(a: Amounts, b: Amounts): Amounts {
  const out = { ...a };
  addTo(out, b);
  return out;
}
