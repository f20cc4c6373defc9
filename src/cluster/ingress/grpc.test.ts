import { execFileSync } from 'node:child_process';
import {
  Client,
  credentials,
  type handleBidiStreamingCall,
  type handleUnaryCall,
  Metadata,
  Server,
  ServerCredentials,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { systemClock } from '#base/clock.ts';
import { logger, silentSink } from '#base/log.ts';
import { seededRandom } from '#base/random.ts';
import { IngressServer } from '#cluster/ingress/server.ts';

const HOST = 'grpc.example';
const same = (bytes: Buffer): Buffer => bytes;
const method = (name: string, stream: boolean) => ({
  path: `/test.Echo/${name}`,
  requestStream: stream,
  responseStream: stream,
  requestSerialize: same,
  requestDeserialize: same,
  responseSerialize: same,
  responseDeserialize: same,
});

describe('gRPC through the proxy, to a backend that speaks HTTP/2 without TLS', () => {
  let proxy: IngressServer;
  let client: Client;
  const server = new Server();

  beforeAll(async () => {
    const say: handleUnaryCall<Buffer, Buffer> = (call, done) => {
      if (call.request.toString() === 'fail') return done({ code: status.FAILED_PRECONDITION, details: 'not now' });
      const trailers = new Metadata();
      trailers.set('x-last', 'word');
      done(
        null,
        Buffer.from(`${call.request.toString()} from ${call.metadata.get('x-forwarded-proto').join()}`),
        trailers,
      );
    };
    const talk: handleBidiStreamingCall<Buffer, Buffer> = (call) => {
      call.on('data', (chunk: Buffer) => call.write(chunk));
      call.on('end', () => call.end());
    };
    server.addService({ say: method('Say', false), talk: method('Talk', true) }, { say, talk });
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error ? reject(error) : resolve(bound),
      ),
    );
    proxy = new IngressServer({
      clock: systemClock,
      random: seededRandom(1),
      log: logger('cluster:ingress', silentSink),
    });
    const args = `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=${HOST} -addext subjectAltName=DNS:${HOST} -keyout - -out -`;
    const text = execFileSync('openssl', args.split(' '), { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    const at = text.indexOf('-----BEGIN CERTIFICATE-----');
    const certificate = text.slice(at);
    const entries = {
      settings: { http: [], https: [{ ip: '127.0.0.1', port: 0 }] },
      'ing/default/web': {
        namespace: 'default',
        name: 'web',
        createdAtMs: 1,
        rules: [{ host: HOST, path: '/', type: 'Prefix', backend: 'default/web:80' }],
        tls: [],
      },
      'be/default/web:80': { targets: [{ ip: '127.0.0.1', port }], protocol: 'h2c' },
      [`own/${HOST}`]: { key: text.slice(0, at), certificate },
    };
    await proxy.apply({ whole: true, set: new Map(Object.entries(entries)), drop: [] });
    client = new Client(`127.0.0.1:${proxy.ports('https')[0]}`, credentials.createSsl(Buffer.from(certificate)), {
      'grpc.ssl_target_name_override': HOST,
      'grpc.default_authority': HOST,
    });
  });
  afterAll(async () => {
    client.close();
    await proxy.close();
    server.forceShutdown();
  });

  const say = (text: string): Promise<{ answer: string; trailers: Metadata }> =>
    new Promise((resolve, reject) => {
      let trailers = new Metadata();
      const call = client.makeUnaryRequest('/test.Echo/Say', same, same, Buffer.from(text), (error, answer) =>
        error ? reject(error) : setImmediate(() => resolve({ answer: String(answer), trailers })),
      );
      call.on('status', (told) => {
        trailers = told.metadata;
      });
    });

  it('a call is answered, with its trailers', async () => {
    const { answer, trailers } = await say('hello');
    expect(answer).toBe('hello from https');
    expect(trailers.get('x-last')).toEqual(['word']);
  });

  it('a failed call has its code and its reason', async () => {
    const failed = (await say('fail').catch((error: unknown) => error)) as ServiceError;
    expect([failed.code, failed.details]).toEqual([status.FAILED_PRECONDITION, 'not now']);
  });

  it('messages go both ways in one call, each before the next is sent', async () => {
    const call = client.makeBidiStreamRequest('/test.Echo/Talk', same, same);
    const heard: string[] = [];
    const ended = new Promise((resolve, reject) => call.on('end', resolve).on('error', reject));
    for (const word of ['one', 'two', 'three']) {
      const next = new Promise((resolve) => call.once('data', resolve));
      call.write(Buffer.from(word));
      heard.push(String(await next));
    }
    call.end();
    await ended;
    expect(heard).toEqual(['one', 'two', 'three']);
  });

  it('a backend that is gone is a refusal, and no wait', async () => {
    server.forceShutdown();
    await expect
      .poll(async () => ((await say('x').catch((error: unknown) => error)) as ServiceError).code)
      .toBe(status.UNAVAILABLE);
  });
});
