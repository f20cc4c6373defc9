/**
 * Errors carry data and say what to do. A code is declared once, in its layer's `errors.ts`; callers ask `isCode`, nobody
 * matches text. HTTP, gRPC and exit codes are tables over `code`, at the edge.
 */
export class EstibaError extends Error {
  override readonly name = 'EstibaError';
  readonly code: string;
  readonly data: Readonly<Record<string, unknown>>;
  readonly hint: string | undefined;

  constructor(
    code: string,
    message: string,
    options: { data?: object; hint?: string | undefined; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.data = { ...options.data };
    this.hint = options.hint;
  }

  toJSON(): { code: string; message: string; hint?: string; data: object; cause?: string } {
    return {
      code: this.code,
      message: this.message,
      ...(this.hint === undefined ? {} : { hint: this.hint }),
      data: this.data,
      ...(this.cause === undefined ? {} : { cause: messageOf(this.cause) }),
    };
  }
}

export interface ErrorText {
  /** One sentence that names what and where, without a full stop. */
  message: string;
  /** What the reader can do about it. */
  hint?: string;
}

export interface ErrorClass<D> {
  new (data: D, options?: { cause?: unknown }): EstibaError & { readonly data: Readonly<D> };
  readonly code: string;
}

/** Declares one error: `export const PortInUse = defineError('PORT_IN_USE', (d: { port: number }) => ({ message: … }))`. */
export function defineError<D extends object>(code: string, describe: (data: D) => ErrorText): ErrorClass<D> {
  return class extends EstibaError {
    static readonly code = code;
    declare readonly data: Readonly<D> & Readonly<Record<string, unknown>>;
    constructor(data: D, options: { cause?: unknown } = {}) {
      const text = describe(data);
      super(code, text.message, { data, hint: text.hint, cause: options.cause });
    }
  } as ErrorClass<D>;
}

export function isCode(error: unknown, ...codes: string[]): error is EstibaError {
  return error instanceof EstibaError && codes.includes(error.code);
}

/** `errno` code of a Node.js system error (`ENOENT`), or undefined. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || error instanceof EstibaError) return undefined;
  const code = (error as NodeJS.ErrnoException).code;
  return typeof code === 'string' ? code : undefined;
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The chain from the outermost error to the root cause, as one line: `a: b: c`. What a daemon logs, once. */
export function describeChain(error: unknown): string {
  const parts: string[] = [];
  for (let at: unknown = error, depth = 0; at !== undefined && depth < 16; depth++) {
    parts.push(messageOf(at));
    at = at instanceof Error ? at.cause : undefined;
  }
  return parts.join(': ');
}

/** For what cannot happen. Stays on in production: a wrong state is worse than a stop. */
export function assert(condition: unknown, what: string): asserts condition {
  if (!condition)
    throw new EstibaError('ASSERTION', `this cannot happen: ${what}`, {
      hint: 'please report it with the lines above',
    });
}
