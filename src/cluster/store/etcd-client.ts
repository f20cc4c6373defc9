import {
  type ChannelCredentials,
  type ClientDuplexStream,
  type ClientOptions,
  credentials,
  loadPackageDefinition,
  type ServiceClientConstructor,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { fromJSON } from '@grpc/proto-loader';
import { Compacted, FutureRevision, LeaseNotFound, StoreClosed, StoreFull, ValueTooLarge } from '#storage/errors.ts';
import { TXN_MAX_BYTES } from '#storage/store.ts';
import { EtcdRefused, StoreTimeout } from './errors.ts';
import { ETCD_MESSAGES } from './etcd-messages.gen.ts';

/** Calls to etcd's v3 services. 64-bit numbers are decimal strings on this side; absent fields are undefined. */
export interface EtcdOptions {
  /** `127.0.0.1:2379`, one a member. */
  endpoints: readonly string[];
  /** PEM; without them the connection is plain, for loopback. */
  tls?: { authority: string; certificate: string; key: string };
  requestTimeoutMs?: number;
}

export interface WireKeyValue {
  key?: Buffer;
  value?: Buffer;
  create_revision?: string;
  mod_revision?: string;
  version?: string;
  lease?: string;
}
export interface WireHeader {
  revision?: string;
}
export interface WireRange {
  header?: WireHeader;
  kvs?: WireKeyValue[];
  count?: string;
  more?: boolean;
}
export interface WireTxn {
  header?: WireHeader;
  succeeded?: boolean;
  responses?: {
    response_range?: WireRange;
    response_put?: { prev_kv?: WireKeyValue };
    response_delete_range?: { deleted?: string; prev_kvs?: WireKeyValue[] };
  }[];
}
export interface WireWatch {
  header?: WireHeader;
  watch_id?: string;
  created?: boolean;
  canceled?: boolean;
  compact_revision?: string;
  cancel_reason?: string;
  events?: { type?: number; kv?: WireKeyValue; prev_kv?: WireKeyValue }[];
}
export interface WireLease {
  ID?: string;
  TTL?: string;
  error?: string;
}

type Unary = (
  request: object,
  options: { deadline: number },
  done: (error: ServiceError | null, response: object) => void,
) => void;
type Stream = () => ClientDuplexStream<object, object>;
type Service = Record<string, unknown> & { close(): void };

const DEFAULT_TIMEOUT_MS = 10_000;
/** Reads are tried again when a member goes away; a write whose answer is lost is not, for it may have happened. */
const READ_ATTEMPTS = 3;

export class EtcdClient {
  readonly #services = new Map<string, Service>();
  readonly #constructors: Record<string, ServiceClientConstructor>;
  readonly #target: string;
  readonly #credentials: ChannelCredentials;
  readonly #timeoutMs: number;
  #closed = false;

  constructor(options: EtcdOptions) {
    const definition = fromJSON(ETCD_MESSAGES as unknown as Parameters<typeof fromJSON>[0], {
      keepCase: true,
      longs: String,
      enums: Number,
      arrays: true,
    });
    const loaded = loadPackageDefinition(definition) as unknown as {
      etcdserverpb: Record<string, ServiceClientConstructor>;
    };
    this.#constructors = loaded.etcdserverpb;
    this.#target = `ipv4:${options.endpoints.join(',')}`;
    this.#timeoutMs = options.requestTimeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#credentials = options.tls
      ? credentials.createSsl(
          Buffer.from(options.tls.authority),
          Buffer.from(options.tls.key),
          Buffer.from(options.tls.certificate),
        )
      : credentials.createInsecure();
  }

  get endpoints(): string {
    return this.#target.slice('ipv4:'.length);
  }

  async read<T>(service: string, method: string, request: object): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.call<T>(service, method, request);
      } catch (error) {
        if (attempt >= READ_ATTEMPTS || !(error instanceof StoreTimeout)) throw error;
      }
    }
  }

  call<T>(service: string, method: string, request: object): Promise<T> {
    if (this.#closed) return Promise.reject(new StoreClosed({ why: 'close was called' }));
    return new Promise<T>((done, fail) => {
      const client = this.#service(service);
      const unary = client[method] as Unary;
      unary.call(client, request, { deadline: Date.now() + this.#timeoutMs }, (error, response) => {
        if (error) fail(this.refusal(error, method));
        else done(response as T);
      });
    });
  }

  stream(service: string, method: string): ClientDuplexStream<object, object> {
    if (this.#closed) throw new StoreClosed({ why: 'close was called' });
    const client = this.#service(service);
    return (client[method] as Stream).call(client);
  }

  close(): void {
    this.#closed = true;
    for (const service of this.#services.values()) service.close();
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** etcd's refusals as the seam's errors. Its details are fixed sentences of its API, and all there is to go by. */
  refusal(error: ServiceError, what: string): Error {
    if (this.#closed) return new StoreClosed({ why: 'close was called' });
    const details = error.details ?? '';
    for (const [text, make] of REFUSALS) if (details.includes(text)) return make(error);
    if (error.code === status.UNAVAILABLE || error.code === status.DEADLINE_EXCEEDED)
      return new StoreTimeout({ what: `${what}: ${details}`, endpoints: this.endpoints }, { cause: error });
    return new EtcdRefused({ what, details }, { cause: error });
  }

  #service(name: string): Service {
    const known = this.#services.get(name);
    if (known) return known;
    const constructor = this.#constructors[name];
    if (!constructor) throw new EtcdRefused({ what: name, details: 'no such service in the descriptor' });
    const made = new constructor(this.#target, this.#credentials, OPTIONS) as unknown as Service;
    this.#services.set(name, made);
    return made;
  }
}

const OPTIONS: ClientOptions = {
  // A revision is never split over messages, however many events it has.
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
  'grpc.keepalive_time_ms': 30_000,
  'grpc.keepalive_timeout_ms': 10_000,
  // Several members: the next one takes over when one goes.
  'grpc.service_config': JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
};

const REFUSALS: readonly [string, (cause: ServiceError) => Error][] = [
  ['required revision has been compacted', (cause) => new Compacted({ asked: 0, compacted: 0 }, { cause })],
  ['required revision is a future revision', (cause) => new FutureRevision({ asked: 0, current: 0 }, { cause })],
  ['requested lease not found', (cause) => new LeaseNotFound({ lease: '' }, { cause })],
  ['database space exceeded', (cause) => new StoreFull({ usedBytes: 0, limitBytes: 0 }, { cause })],
  ['request is too large', (cause) => new ValueTooLarge({ bytes: 0, limitBytes: TXN_MAX_BYTES }, { cause })],
];
