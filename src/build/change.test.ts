import { describe, expect, it } from 'vitest';
import { applyChanges } from '#build/change.ts';

describe('changes of commit and import', () => {
  it('are lines of a Dockerfile applied to the settings that are there', () => {
    const settings = { Env: ['PATH=/bin', 'A=1'], Cmd: ['sh'], OnBuild: ['RUN true'] };
    const lines = [
      'ENV A=2 B="$A x"',
      'CMD ["x", "y"]',
      'EXPOSE 80 53/udp',
      'LABEL a=b',
      'WORKDIR /w',
      'ONBUILD RUN x',
    ];
    expect(applyChanges(settings, lines)).toEqual({
      Env: ['PATH=/bin', 'A=2', 'B=1 x'],
      Cmd: ['x', 'y'],
      ExposedPorts: { '80/tcp': {}, '53/udp': {} },
      Labels: { a: 'b' },
      WorkingDir: '/w',
      OnBuild: ['RUN true', 'RUN x'],
    });
  });

  it('add no PATH that nobody asked for, and change nothing when there are none', () => {
    expect(applyChanges({}, ['ENV A=b'])).toEqual({ Env: ['A=b'] });
    expect(applyChanges({}, ['USER app'])).toEqual({ User: 'app' });
    expect(applyChanges({ Cmd: ['sh'] }, [])).toEqual({ Cmd: ['sh'] });
  });

  it('that would touch files are refused by name', () => {
    expect(() => applyChanges({}, ['RUN rm -rf /'])).toThrow('RUN is not a valid change command');
    expect(() => applyChanges({}, ['FROM x'])).toThrow();
  });
});
