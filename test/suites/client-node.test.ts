import { type AddressInfo, connect, createServer, type Server } from 'node:net';
import { PassThrough, Readable } from 'node:stream';
import {
  CoreV1Api,
  Exec,
  KubeConfig,
  makeInformer,
  PortForward,
  type V1ConfigMap,
  Watch,
} from '@kubernetes/client-node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { NodeProxy } from '#cluster/api/node-proxy.ts';
import { NEWEST, Room } from './kubectl/room.ts';

let echoPort = 0;
const nodes: NodeProxy = {
  logs: async () => Readable.from(['line\n']),
  exec: async (_, { command }) => ({
    stdin: undefined,
    stdout: Readable.from([Buffer.from(command.join(' '))]),
    stderr: undefined,
    resize: () => undefined,
    exited: Promise.resolve(0),
    close: () => undefined,
  }),
  attach: () => Promise.reject(new Error('not played here')),
  portForward: async () => connect(echoPort, '127.0.0.1'),
};

describe('@kubernetes/client-node', () => {
  let room: Room;
  let echo: Server;
  const config = new KubeConfig();
  let core: CoreV1Api;
  const map = (name: string, data: Record<string, string>): V1ConfigMap => ({ metadata: { name }, data });

  beforeAll(async () => {
    echo = createServer({ allowHalfOpen: true }, (socket) => socket.on('error', () => 0).pipe(socket));
    await new Promise<void>((done) => echo.listen(0, '127.0.0.1', done));
    echoPort = (echo.address() as AddressInfo).port;
    room = await Room.open(NEWEST, nodes);
    config.loadFromFile(room.api.kubeconfigPath);
    core = config.makeApiClient(CoreV1Api);
    const container = { name: 'c', image: 'i' };
    const body = { metadata: { name: 'p' }, spec: { nodeName: 'n1', containers: [container] } };
    await core.createNamespacedPod({ namespace: 'default', body });
  });
  afterAll(async () => {
    await room.close();
    echo.close();
  });

  it('creates, reads, replaces and deletes', async () => {
    const namespace = 'default';
    await core.createNamespacedConfigMap({ namespace, body: map('a', { x: '1' }) });
    const read = await core.readNamespacedConfigMap({ namespace, name: 'a' });
    await core.replaceNamespacedConfigMap({ namespace, name: 'a', body: { ...read, data: { x: '2' } } });
    expect((await core.readNamespacedConfigMap({ namespace, name: 'a' })).data).toEqual({ x: '2' });
    await core.deleteNamespacedConfigMap({ namespace, name: 'a' });
    await expect(core.readNamespacedConfigMap({ namespace, name: 'a' })).rejects.toMatchObject({ code: 404 });
  });

  it('watches, and an informer keeps its copy', async () => {
    const namespace = 'default';
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const seen: string[] = [];
    const ended = new Watch(config).watch(
      path,
      {},
      (phase, object: V1ConfigMap) => seen.push(`${phase} ${object.metadata?.name}`),
      () => undefined,
    );
    const informer = makeInformer(config, path, () => core.listNamespacedConfigMap({ namespace }));
    const added: string[] = [];
    informer.on('add', (object) => added.push(object.metadata?.name ?? ''));
    await informer.start();
    await core.createNamespacedConfigMap({ namespace, body: map('w', {}) });
    await expect.poll(() => seen, { timeout: 5_000 }).toContain('ADDED w');
    await expect.poll(() => added, { timeout: 5_000 }).toContain('w');
    await informer.stop();
    (await ended).abort();
  });

  it('runs a command, and forwards a port by channels', async () => {
    const out = new PassThrough();
    let text = '';
    out.on('data', (chunk: Buffer) => (text += chunk.toString()));
    const status = await new Promise<string | undefined>((resolve, reject) => {
      new Exec(config)
        .exec('default', 'p', 'c', ['echo', 'hi'], out, null, null, false, (s) => resolve(s.status))
        .catch(reject);
    });
    expect([status, text]).toEqual(['Success', 'echo hi']);

    const forward = new PortForward(config);
    const server = createServer((socket) => void forward.portForward('default', 'p', [80], socket, null, socket));
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const answer = await new Promise<string>((resolve, reject) => {
      const socket = connect((server.address() as AddressInfo).port, '127.0.0.1', () => socket.write('there and back'));
      socket.on('data', (chunk: Buffer) => {
        resolve(chunk.toString());
        socket.destroy();
      });
      socket.on('error', reject);
    });
    server.close();
    expect(answer).toBe('there and back');
  });
});
