/** Numbers, times and foreign text as people read them. Pure. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function bytes(count: number): string {
  let [value, unit] = [count, 0];
  while (value >= 1024 && unit < UNITS.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

/** Of one CPU: 150 % is one and a half. */
export function percent(value: number): string {
  return `${value >= 10 ? Math.round(value) : value.toFixed(1)} %`;
}

/** `5 s`, `12 min`, `3 h`, `4 d`. */
export function span(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s}\u00a0s`;
  if (s < 3_600) return `${Math.floor(s / 60)}\u00a0min`;
  if (s < 2 * 86_400) return `${Math.floor(s / 3_600)}\u00a0h`;
  return `${Math.floor(s / 86_400)}\u00a0d`;
}

export function clockTime(ms: number): string {
  return new Date(ms).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });
}

export function dateTime(ms: number): string {
  return new Date(ms).toLocaleString([], { dateStyle: 'medium', timeStyle: 'medium' });
}

// Terminal sequences: CSI, then strings (OSC, DCS, SOS, PM, APC) to their end, then two-letter escapes (ECMA-48, 5.3 to 5.6).
const SEQUENCES =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  /(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b[ -/]*[0-~]/g;
// What is left of controls, and letters that turn the direction of those after them.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROLS = /[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g;

/** A line of a log without what it would do to a terminal. What a carriage return writes over is gone, as it would be there. */
export function plain(line: string): string {
  const said = line.replace(SEQUENCES, '').replace(/\r+$/, '');
  return said.slice(said.lastIndexOf('\r') + 1).replace(CONTROLS, '');
}
