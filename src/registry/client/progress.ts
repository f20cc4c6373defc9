import type { Digest } from '#spec/image/digest.ts';

/** What happens during a pull or push. Byte counts are of one layer and never go back. */
export type Progress =
  | { at: 'manifest'; reference: string; digest?: Digest }
  | {
      at: 'layer';
      digest: Digest;
      state: 'waiting' | 'verifying' | 'present' | 'done' | 'mounted' | 'foreign';
      from?: string;
    }
  | {
      at: 'layer';
      digest: Digest;
      state: 'downloading' | 'uploading' | 'retrying';
      doneBytes: number;
      totalBytes: number;
      inMs?: number;
    }
  | { at: 'end'; reference: string; digest: Digest; changed: boolean; sizeBytes: number }
  | { at: 'note'; text: string };

export type ProgressSink = (event: Progress) => void;

/** A line of the Engine API's progress stream (`POST /images/create`, `POST /images/{name}/push`), as Docker's clients draw it. */
export interface DockerProgress {
  status: string;
  id?: string;
  progressDetail?: { current?: number; total?: number };
  aux?: { Tag: string; Digest: Digest; Size: number };
}

/** Events in Docker's words; some say nothing there. */
export function dockerProgress(event: Progress, doing: 'pull' | 'push'): DockerProgress[] {
  switch (event.at) {
    case 'manifest':
      return doing === 'pull'
        ? [{ status: `Pulling from ${withoutTag(event.reference)}`, id: tagOf(event.reference) }]
        : [{ status: `The push refers to repository [${withoutTag(event.reference)}]` }];
    case 'note':
      return [{ status: event.text }];
    case 'end':
      return doing === 'pull'
        ? [
            { status: `Digest: ${event.digest}` },
            {
              status: `Status: ${event.changed ? 'Downloaded newer image for' : 'Image is up to date for'} ${event.reference}`,
            },
          ]
        : [
            { status: `${tagOf(event.reference)}: digest: ${event.digest} size: ${event.sizeBytes}` },
            {
              status: '',
              progressDetail: {},
              aux: { Tag: tagOf(event.reference), Digest: event.digest, Size: event.sizeBytes },
            },
          ];
    case 'layer':
      return [layerLine(event, doing)];
  }
}

function layerLine(event: Progress & { at: 'layer' }, doing: 'pull' | 'push'): DockerProgress {
  const id = event.digest.slice(event.digest.indexOf(':') + 1).slice(0, 12);
  const line = (status: string): DockerProgress => ({ status, id, progressDetail: {} });
  switch (event.state) {
    case 'downloading':
      return { status: 'Downloading', id, progressDetail: { current: event.doneBytes, total: event.totalBytes } };
    case 'uploading':
      return { status: 'Pushing', id, progressDetail: { current: event.doneBytes, total: event.totalBytes } };
    case 'retrying':
      return line(`Retrying in ${Math.ceil((event.inMs ?? 0) / 1000)} seconds`);
    case 'waiting':
      return line(doing === 'pull' ? 'Pulling fs layer' : 'Preparing');
    case 'verifying':
      return line('Verifying Checksum');
    case 'present':
      return line(doing === 'pull' ? 'Already exists' : 'Layer already exists');
    case 'mounted':
      return line(`Mounted from ${event.from ?? 'another repository'}`);
    case 'foreign':
      return line('Skipped foreign layer');
    case 'done':
      return line(doing === 'pull' ? 'Download complete' : 'Pushed');
  }
}

function tagOf(reference: string): string {
  const tag = /(?:@(.+)|:([^/:]+))$/.exec(reference);
  return tag?.[1] ?? tag?.[2] ?? 'latest';
}

function withoutTag(reference: string): string {
  return reference.replace(/(?:@.+|:[^/:]+)$/, '');
}
