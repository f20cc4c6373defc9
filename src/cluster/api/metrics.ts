/** Counters and a latency histogram a verb, in Prometheus' text form. */
const BUCKETS_SECONDS = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 5, 10, 30, 60];

export interface Observation {
  verb: string;
  resource: string;
  code: number;
  seconds: number;
}

export class Metrics {
  readonly #requests = new Map<string, number>();
  readonly #latency = new Map<string, { buckets: number[]; sum: number; count: number }>();

  observe({ verb, resource, code, seconds }: Observation): void {
    const labels = `code="${code}",resource="${resource}",verb="${verb.toUpperCase()}"`;
    this.#requests.set(labels, (this.#requests.get(labels) ?? 0) + 1);
    if (verb === 'watch' || verb === 'connect') return; // a long one is no slow one
    const key = `resource="${resource}",verb="${verb.toUpperCase()}"`;
    const entry = this.#latency.get(key) ?? { buckets: BUCKETS_SECONDS.map(() => 0), sum: 0, count: 0 };
    this.#latency.set(key, entry);
    entry.sum += seconds;
    entry.count++;
    BUCKETS_SECONDS.forEach((bound, i) => {
      if (seconds <= bound) entry.buckets[i] = (entry.buckets[i] ?? 0) + 1;
    });
  }

  text(gauges: Record<string, number>): string {
    const lines = [
      '# HELP apiserver_request_total Requests by verb, resource and response code.',
      '# TYPE apiserver_request_total counter',
    ];
    for (const [labels, count] of this.#requests) lines.push(`apiserver_request_total{${labels}} ${count}`);
    const name = 'apiserver_request_duration_seconds';
    lines.push(`# HELP ${name} Response latency.`, `# TYPE ${name} histogram`);
    for (const [key, { buckets, sum, count }] of this.#latency) {
      for (const [i, bound] of BUCKETS_SECONDS.entries())
        lines.push(`${name}_bucket{${key},le="${bound}"} ${buckets[i] ?? 0}`);
      lines.push(
        `${name}_bucket{${key},le="+Inf"} ${count}`,
        `${name}_sum{${key}} ${sum}`,
        `${name}_count{${key}} ${count}`,
      );
    }
    for (const [gauge, value] of Object.entries(gauges)) lines.push(`# TYPE ${gauge} gauge`, `${gauge} ${value}`);
    return `${lines.join('\n')}\n`;
  }
}
