export interface XrayLine {
  /** Stable, for programs: `namespace.network`, `mount`, `limit.memory`. */
  topic: string;
  /** What it is about: a path, an interface. */
  name?: string;
  /** As the kernel has it; as it was wished, when nothing runs. */
  value: string;
  because: string;
  /** Only where the kernel has it otherwise. */
  wished?: string;
}

/** A line of the kernel's beside a wish: marked when they are not the same. */
export function compared(
  line: Omit<XrayLine, 'value' | 'wished'>,
  wished: string,
  actual: string | undefined,
): XrayLine {
  return actual === undefined || actual === wished ? { ...line, value: wished } : { ...line, value: actual, wished };
}
