/**
 * `WWW-Authenticate` (RFC 9110 §11.6.1), as registries send it:
 *
 *     Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull"
 *     Basic realm="team registry", Bearer realm="…"
 */
export interface Challenge {
  /** Lower case: `bearer`, `basic`, … */
  scheme: string;
  /** Names in lower case. Without parameters a scheme may carry one opaque token, which no registry scheme uses; it is dropped. */
  parameters: Readonly<Record<string, string>>;
}

/** A header longer than this is somebody's attack or mistake. */
const CHALLENGE_MAX_LENGTH = 16_384;

const TOKEN = /[!#$%&'*+\-.^_`|~0-9A-Za-z]+/y;
const QUOTED = /"((?:[^"\\]|\\.)*)"/y;
const SPACE = /[ \t]*/y;

/** All challenges of a header, in order. What does not parse ends the list: half a header is better than none. */
export function parseChallenges(header: string): Challenge[] {
  const text = header.slice(0, CHALLENGE_MAX_LENGTH);
  const challenges: Challenge[] = [];
  let at = 0;
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (!match) return undefined;
    at = pattern.lastIndex;
    return match[1] ?? match[0];
  };
  const skip = (char: string): boolean => {
    take(SPACE);
    if (text[at] !== char) return false;
    at++;
    take(SPACE);
    return true;
  };

  let parameters: Record<string, string> = Object.create(null);
  for (;;) {
    while (skip(','));
    const word = take(TOKEN);
    if (word === undefined) return challenges;
    const beforeEquals = at;
    if (challenges.length > 0 && skip('=')) {
      const value = take(QUOTED)?.replace(/\\(.)/g, '$1') ?? take(TOKEN);
      if (value === undefined) return challenges;
      parameters[word.toLowerCase()] ??= value;
      continue;
    }
    at = beforeEquals;
    parameters = Object.create(null);
    challenges.push({ scheme: word.toLowerCase(), parameters });
    take(SPACE);
  }
}

export function formatChallenge(scheme: string, parameters: Readonly<Record<string, string>>): string {
  const list = Object.entries(parameters).map(([name, value]) => `${name}="${value.replace(/["\\]/g, '\\$&')}"`);
  return `${scheme} ${list.join(',')}`;
}
