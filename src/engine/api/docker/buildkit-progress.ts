import { createHash } from 'node:crypto';
import type { BuildEvent } from '#build/events.ts';
import type { BuildGraph, StepId } from '#build/graph.ts';
import { bytesField, varintField } from '#engine/api/docker/buildkit-wire.ts';

/** A line of the answer to `POST /build?version=2`: BuildKit's own messages in base64, then the image. */
export type BuildKitLine = { id: 'moby.buildkit.trace'; aux: string } | { id: 'moby.image.id'; aux: { ID: string } };

/** BuildKit's names for the streams of a log. */
const STREAMS = { stdout: 1, stderr: 2 } as const;

/**
 * Events of a build as BuildKit's progress (control.proto, StatusResponse): { vertexes = 1, logs = 3 } of
 * Vertex { digest = 1, name = 3, cached = 4, started = 5, completed = 6, error = 7 } and VertexLog { vertex = 1, timestamp = 2,
 * stream = 3, msg = 4 }. Steps run beside each other there as here, so nothing is held back.
 */
export class BuildKitProgress {
  readonly #put: (line: BuildKitLine) => void;
  readonly #now: () => number;
  readonly #started = new Map<StepId, number>();
  #graph: BuildGraph | undefined;

  constructor(put: (line: BuildKitLine) => void, now: () => number) {
    this.#put = put;
    this.#now = now;
  }

  begin(graph: BuildGraph): void {
    this.#graph = graph;
  }

  take(event: BuildEvent): void {
    switch (event.at) {
      case 'start':
        this.#started.set(event.step, this.#now());
        this.#vertex(event.step, []);
        return;
      case 'cached':
        this.#started.set(event.step, this.#now());
        this.#vertex(event.step, [varintField(4, 1), bytesField(6, this.#time(this.#now()))]);
        return;
      case 'done':
        this.#vertex(event.step, [bytesField(6, this.#time(this.#now()))]);
        return;
      case 'failed':
        this.#vertex(event.step, [bytesField(6, this.#time(this.#now())), bytesField(7, 'the step failed')]);
        return;
      case 'output': {
        const log = [
          bytesField(1, digestOf(event.step)),
          bytesField(2, this.#time(this.#now())),
          varintField(3, STREAMS[event.stream]),
          bytesField(4, event.text),
        ];
        this.#tell(bytesField(3, Buffer.concat(log)));
        return;
      }
      default:
    }
  }

  built(id: string): void {
    this.#put({ id: 'moby.image.id', aux: { ID: id } });
  }

  #vertex(step: StepId, more: Buffer[]): void {
    const title = this.#graph?.steps[step]?.title ?? `step ${step}`;
    const started = this.#time(this.#started.get(step) ?? this.#now());
    const fields = [bytesField(1, digestOf(step)), bytesField(3, title), bytesField(5, started), ...more];
    this.#tell(bytesField(1, Buffer.concat(fields)));
  }

  /** google.protobuf.Timestamp { seconds = 1, nanos = 2 } */
  #time(ms: number): Buffer {
    return Buffer.concat([varintField(1, Math.floor(ms / 1000)), varintField(2, Math.floor((ms % 1000) * 1e6))]);
  }

  #tell(message: Buffer): void {
    this.#put({ id: 'moby.buildkit.trace', aux: message.toString('base64') });
  }
}

/** Clients tell steps apart by digests. */
function digestOf(step: StepId): string {
  return `sha256:${createHash('sha256').update(String(step)).digest('hex')}`;
}
