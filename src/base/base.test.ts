import { describe, expect, it } from 'vitest';
import { FakeClock, sleep } from '#base/clock.ts';
import { defineError, describeChain, isCode } from '#base/errors.ts';
import { KeyedSerial, Limiter, Serial } from '#base/queue.ts';
import { newId, seededRandom } from '#base/random.ts';
import { array, integer, object, oneOf, optional, record, string, text } from '#base/shape.ts';
import { Undo } from '#base/undo.ts';

const PortInUse = defineError('PORT_IN_USE', (d: { port: number; holder: string }) => ({
  message: `host port ${d.port} is taken by ${d.holder}`,
  hint: 'choose another host port',
}));

describe('errors', () => {
  it('carry code, data, hint and cause', () => {
    const cause = new Error('EADDRINUSE');
    const error = new PortInUse({ port: 80, holder: 'web' }, { cause });
    expect(isCode(error, 'PORT_IN_USE')).toBe(true);
    expect(error.data.port).toBe(80);
    expect(error.toJSON()).toMatchObject({
      code: 'PORT_IN_USE',
      hint: 'choose another host port',
      cause: 'EADDRINUSE',
    });
    expect(describeChain(error)).toBe('host port 80 is taken by web: EADDRINUSE');
  });
});

describe('Undo', () => {
  it('unwinds last-in first-out, reports a failing step and goes on', async () => {
    const done: string[] = [];
    const undo = new Undo((what) => done.push(`failed ${what}`));
    undo.add('a', () => done.push('a'));
    undo.add('b', () => Promise.reject(new Error('no')));
    undo.add('c', () => done.push('c'));
    await undo.unwind();
    expect(done).toEqual(['c', 'failed b', 'a']);
  });

  it('takes back what is acquired beside something that fails, also when it comes only then', async () => {
    const done: string[] = [];
    let arrive: (name: string) => void = () => undefined;
    const late = new Promise<string>((resolve) => {
      arrive = resolve;
    });
    const release = (name: string): void => void done.push(name);
    const opening = async (): Promise<void> => {
      await using undo = new Undo((what) => done.push(`failed ${what}`));
      undo.add('first', () => done.push('first'));
      await Promise.all([
        undo.acquire('at once', Promise.resolve('at once'), release),
        undo.acquire('late', late, release),
        undo.acquire('failing', Promise.reject(new Error('no room')), release),
      ]);
    };
    const opened = opening();
    setImmediate(() => arrive('late'));
    await expect(opened).rejects.toThrow('no room');
    expect(done).toEqual(['late', 'at once', 'first']);
  });

  it('takes nothing back once kept', async () => {
    const done: string[] = [];
    {
      await using undo = new Undo();
      undo.add('a', () => done.push('a'));
      undo.keep();
    }
    expect(done).toEqual([]);
  });
});

describe('FakeClock', () => {
  it('fires timers in order of time, and those made while firing', async () => {
    const clock = new FakeClock(0);
    const fired: string[] = [];
    void sleep(clock, 20).then(() => fired.push(`20@${clock.now()}`));
    void sleep(clock, 10).then(async () => {
      fired.push(`10@${clock.now()}`);
      await sleep(clock, 5);
      fired.push(`15@${clock.now()}`);
    });
    await clock.advance(30);
    expect(fired).toEqual(['10@10', '15@15', '20@20']);
    expect(clock.now()).toBe(30);
  });
});

describe('queues', () => {
  it('Serial runs one at a time in order and refuses past its bound', async () => {
    const serial = new Serial('test', 2);
    const order: number[] = [];
    const slow = serial.run(() => new Promise<void>((done) => setTimeout(done, 10)).then(() => void order.push(1)));
    const fast = serial.run(() => void order.push(2));
    await expect(serial.run(() => 3)).rejects.toMatchObject({ code: 'QUEUE_FULL' });
    await Promise.all([slow, fast]);
    expect(order).toEqual([1, 2]);
  });

  it('KeyedSerial keeps keys apart and survives a failing request', async () => {
    const keyed = new KeyedSerial<string>('test');
    await expect(keyed.run('a', () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    expect(await Promise.all([keyed.run('a', () => 1), keyed.run('b', () => 2)])).toEqual([1, 2]);
  });

  it('Limiter never runs more than its limit', async () => {
    const limiter = new Limiter(3);
    let running = 0;
    let most = 0;
    const work = async (): Promise<void> => {
      most = Math.max(most, ++running);
      await new Promise((done) => setTimeout(done, 1));
      running--;
    };
    await Promise.all(Array.from({ length: 20 }, () => limiter.run(work)));
    expect(most).toBe(3);
  });
});

describe('random', () => {
  it('the same seed gives the same run', () => {
    const [a, b] = [seededRandom(7), seededRandom(7)];
    expect([a.next(), a.next(), newId(a)]).toEqual([b.next(), b.next(), newId(b)]);
  });
});

describe('shape', () => {
  const Port = object(
    { port: integer({ min: 1, max: 65535 }), proto: optional(oneOf('tcp', 'udp')) },
    { unknown: 'reject' },
  );

  it('names path, value and rule', () => {
    expect(() => Port({ port: 70000 }, '$')).toThrow('$.port: 70000 is not an integer between 1 and 65535');
    expect(() => Port({}, '$')).toThrow('$.port: is missing and is not an integer');
    expect(() => Port({ port: 1, prot: 'tcp' }, '$')).toThrow('$.prot: "tcp" is not a known field');
    expect(() => array(Port)([{ port: 1 }, { port: 1, proto: 'x' }], '$')).toThrow(
      '$[1].proto: "x" is none of tcp, udp',
    );
    expect(() => text()('a\0b', '$.path')).toThrow('NUL');
  });

  it('keeps prototype names as plain keys', () => {
    const parsed = record(string())(JSON.parse('{"__proto__":"x","a":"b"}'), '$');
    expect(Object.entries(parsed)).toEqual([
      ['__proto__', 'x'],
      ['a', 'b'],
    ]);
    expect(object({}, { unknown: 'keep' })(JSON.parse('{"__proto__":{"x":1}}'), '$')).not.toHaveProperty('x');
  });
});
