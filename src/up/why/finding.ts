/** One answer to "why": what is, what makes it so, what shows it, what to do next. The code is stable: scripts may match it. */
export interface Finding {
  code: string;
  /** `info`: nothing is wrong. `waiting`: it may come by itself. `broken`: it will not. */
  level: 'info' | 'waiting' | 'broken';
  fact: string;
  cause: string;
  /** Lines as the cluster has them: statuses, conditions, events. */
  evidence: readonly string[];
  /** A command or a change. */
  next: string;
}

export function renderFindings(subject: string, findings: readonly Finding[]): string {
  return findings
    .map(({ code, fact, cause, evidence, next }) => {
      const lines = [
        `${subject}: ${fact}  [${code}]`,
        ...(cause === '' ? [] : [`  because ${cause}`]),
        ...evidence.map((e) => `  seen: ${e}`),
        `  next: ${next}`,
      ];
      return `${lines.join('\n')}\n`;
    })
    .join('');
}
