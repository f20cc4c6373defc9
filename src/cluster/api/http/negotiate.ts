import { notAcceptable } from '../status.ts';

/** The form an answer takes: the object itself, a `Table` for people, or metadata alone. */
export type Form = 'object' | 'table' | 'metadata';

export interface Accepted {
  form: Form;
  format: 'json' | 'yaml';
}

const SUPPORTED = ['application/json', 'application/yaml'];

/** The first acceptable of the client's wishes, in its order. Protobuf and CBOR are passed over: every client offers JSON too. */
export function negotiate(header: string | undefined): Accepted {
  const wishes = (header ?? '*/*')
    .split(',')
    .map(parseWish)
    .filter((w) => w.quality > 0);
  for (const wish of wishes) {
    const format = FORMATS[wish.type];
    if (!format || (wish.group !== 'meta.k8s.io' && wish.as !== undefined)) continue;
    if (wish.as === undefined) return { form: 'object', format };
    if (wish.version !== 'v1' && wish.version !== 'v1beta1') continue;
    if (wish.as === 'Table') return { form: 'table', format };
    if (wish.as === 'PartialObjectMetadata' || wish.as === 'PartialObjectMetadataList')
      return { form: 'metadata', format };
  }
  if ((header ?? '').trim() === '') return { form: 'object', format: 'json' };
  throw notAcceptable(SUPPORTED);
}

const FORMATS: Record<string, 'json' | 'yaml'> = {
  'application/json': 'json',
  'application/*': 'json',
  '*/*': 'json',
  'text/*': 'json',
  'application/yaml': 'yaml',
  'text/plain': 'json',
  'text/html': 'json',
};

function parseWish(text: string): { type: string; as?: string; group?: string; version?: string; quality: number } {
  const [type = '', ...parameters] = text.split(';').map((p) => p.trim());
  const values = new Map(parameters.map((p) => p.split('=', 2) as [string, string]));
  const as = values.get('as');
  const group = values.get('g');
  const version = values.get('v');
  return {
    type: type.toLowerCase(),
    ...(as === undefined ? {} : { as }),
    ...(group === undefined ? {} : { group }),
    ...(version === undefined ? {} : { version }),
    quality: Number(values.get('q') ?? '1'),
  };
}
