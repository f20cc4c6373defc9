import { BadMode } from '#build/errors.ts';

/** `--chmod`: octal, or chmod(1)'s symbols (`u=rwX,go=rX`); what it makes of a file's mode. */
export function modeChange(text: string): (mode: number, isDirectory: boolean) => number {
  if (/^[0-7]{1,5}$/.test(text)) {
    const fixed = Number.parseInt(text, 8);
    if (fixed > 0o7777) throw new BadMode({ mode: text });
    return () => fixed;
  }
  const clauses = text.split(',').map((clause) => {
    const [, who = '', changes] = /^([ugoa]*)((?:[-+=][rwxXst]*)+)$/.exec(clause) ?? [];
    if (changes === undefined) throw new BadMode({ mode: text });
    return { who: who === '' || who.includes('a') ? 'ugo' : who, changes };
  });
  return (mode, isDirectory) => clauses.reduce((now, clause) => applyClause(now, clause, isDirectory), mode);
}

const SHIFT: Record<string, number> = { u: 6, g: 3, o: 0 };

function applyClause(mode: number, { who, changes }: { who: string; changes: string }, isDirectory: boolean): number {
  let now = mode;
  for (const [, operator, letters = ''] of changes.matchAll(/([-+=])([rwxXst]*)/g)) {
    let bits = 0;
    let cleared = 0;
    for (const one of who) {
      const shift = SHIFT[one] ?? 0;
      cleared |= 7 << shift;
      // As chmod(1): `=` takes set-id away from files, and leaves it to directories.
      if (!isDirectory && one !== 'o') cleared |= one === 'u' ? 0o4000 : 0o2000;
      if (letters.includes('r')) bits |= 4 << shift;
      if (letters.includes('w')) bits |= 2 << shift;
      if (letters.includes('x') || (letters.includes('X') && (isDirectory || (now & 0o111) !== 0))) bits |= 1 << shift;
      if (letters.includes('s') && one !== 'o') bits |= one === 'u' ? 0o4000 : 0o2000;
    }
    if (letters.includes('t')) bits |= 0o1000;
    if (operator === '+') now |= bits;
    else if (operator === '-') now &= ~bits;
    else now = (now & ~cleared) | bits;
  }
  return now;
}
