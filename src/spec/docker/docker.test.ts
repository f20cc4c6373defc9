import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkBody } from '#spec/docker/body.ts';
import { labelMatches, parseFilters } from '#spec/docker/filters.ts';
import { FrameReader, frame } from '#spec/docker/frames.ts';

describe('request bodies', () => {
  it('take what docker run sends', () => {
    const body = {
      Hostname: '',
      AttachStdout: true,
      Env: null,
      Cmd: ['echo', 'hi'],
      Image: 'busybox',
      Volumes: { '/data': {} },
      Labels: {},
      HostConfig: {
        Binds: null,
        PortBindings: { '80/tcp': [{ HostIp: '', HostPort: '8080' }] },
        RestartPolicy: { Name: 'no', MaximumRetryCount: 0 },
        Memory: 0,
      },
      NetworkingConfig: { EndpointsConfig: { default: null } },
    };
    const checked = checkBody('ContainerCreate', body);
    expect(checked).toMatchObject({
      Image: 'busybox',
      HostConfig: { PortBindings: { '80/tcp': [{ HostPort: '8080' }] } },
    });
    expect(checked).not.toHaveProperty('Env');
    expect(checked.NetworkingConfig).toEqual({ EndpointsConfig: { default: null } });
  });

  it('match names whatever their case, as Go does', () => {
    expect(checkBody('ContainerCreate', { image: 'a', hostconfig: { memory: 1 } })).toEqual({
      Image: 'a',
      HostConfig: { Memory: 1 },
    });
  });

  it.each([
    [{ HostConfig: { Memory: '64m' } }, '$.HostConfig.Memory: "64m" is not an integer'],
    [{ HostConfig: { Memroy: 1 } }, '$.HostConfig.Memroy: 1 is not a field of this request'],
    [{ Env: 'A=b' }, '$.Env: "A=b" is not a list'],
    [
      { HostConfig: { PortBindings: { '80/tcp': [{ HostPort: 80 }] } } },
      '$.HostConfig.PortBindings["80/tcp"][0].HostPort: 80 is not a string',
    ],
    [[], '$: [] is not an object'],
  ])('%j is refused by path', (body, message) => {
    expect(() => checkBody('ContainerCreate', body)).toThrow(message);
  });

  it('are never trusted with prototypes', () => {
    expect(() => checkBody('ContainerCreate', JSON.parse('{"__proto__":{"Image":"x"}}'))).toThrow('__proto__');
  });
});

describe('filters', () => {
  it('come in both forms', () => {
    expect(parseFilters('{"label":["a=b","c"]}').get('label')).toEqual(['a=b', 'c']);
    expect(parseFilters('{"label":{"a=b":true,"c":false}}').get('label')).toEqual(['a=b']);
    expect(parseFilters(undefined).has('label')).toBe(false);
    expect(parseFilters('{"dangling":["true"]}').flag('dangling')).toBe(true);
  });

  it('that are unknown or malformed are errors', () => {
    expect(() => parseFilters('{"nmae":["x"]}').allow('name')).toThrow(
      'filters.nmae: ["x"] is not a filter here; known are name',
    );
    for (const bad of ['x', '[]', '{"a":1}', '{"a":[1]}']) expect(() => parseFilters(bad)).toThrow('filters');
  });

  it('match labels by key or by key and value', () => {
    expect([
      labelMatches({ a: 'b=c' }, 'a'),
      labelMatches({ a: 'b=c' }, 'a=b=c'),
      labelMatches({ a: 'b' }, 'a='),
      labelMatches({}, 'toString'),
    ]).toEqual([true, true, false, false]);
  });
});

describe('frames', () => {
  it('survive any cut', () => {
    const payloads = fc.array(fc.tuple(fc.constantFrom(0, 1, 2), fc.uint8Array({ maxLength: 40 })), { maxLength: 10 });
    fc.assert(
      fc.property(payloads, fc.integer({ min: 1, max: 9 }), (frames, size) => {
        const bytes = Buffer.concat(frames.map(([stream, payload]) => frame(stream, payload)));
        const reader = new FrameReader();
        const read: { stream: number; payload: Buffer }[] = [];
        for (let i = 0; i < bytes.length; i += size) read.push(...reader.push(bytes.subarray(i, i + size)));
        expect(read.map((f) => [f.stream, [...f.payload]])).toEqual(
          frames.map(([stream, payload]) => [stream, [...payload]]),
        );
      }),
    );
  });
});
