import { describe, expect, it } from 'vitest';
import { bytes, plain, span } from './format.ts';

describe('a line of a log', () => {
  it('keeps its words and loses what it would do to a terminal', () => {
    expect(plain('\x1b[31mred\x1b[0m and \x1b[1;4mbold\x1b[m')).toBe('red and bold');
    expect(plain('\x1b]0;a title\x07text\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\')).toBe('textlink');
    expect(plain('\x1bP+q\x1b\\\x1b(B\x1b7a\x08b\x00c')).toBe('abc');
    expect(plain('\x9b31mred\x9d0;title\x9c.')).toBe('red.');
    expect(plain('name\u202Egpj.exe')).toBe('namegpj.exe');
    expect(plain('tab\tstays, <b>so does this</b>')).toBe('tab\tstays, <b>so does this</b>');
  });

  it('shows what a carriage return left', () => {
    expect(plain('10 %\r50 %\r100 %')).toBe('100 %');
    expect(plain('an end of line\r')).toBe('an end of line');
  });
});

describe('numbers', () => {
  it('are short', () => {
    expect([0, 999, 1536, 5 << 20, 300 << 20, 2 ** 34].map(bytes)).toEqual([
      '0 B',
      '999 B',
      '1.5 KiB',
      '5.0 MiB',
      '300 MiB',
      '16.0 GiB',
    ]);
    expect([900, 61_000, 3_700_000, 200_000_000].map(span)).toEqual(['1\u00a0s', '1\u00a0min', '1\u00a0h', '2\u00a0d']);
  });
});
