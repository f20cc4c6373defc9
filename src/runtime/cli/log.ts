export type Level = 'debug' | 'info' | 'warning' | 'error';

export interface CliLog {
  debug(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}

export interface LogOptions {
  debug: boolean;
  format: 'text' | 'json';
  now: () => number;
  /** The log file, or stderr. */
  write(line: string): void;
}

/** Lines as runc's logger writes them: containerd reads the last error out of the JSON form, scripts grep the text. */
export function cliLog(options: LogOptions): CliLog {
  const put = (level: Level, message: string): void => {
    const time = new Date(options.now()).toISOString().replace(/\.\d+Z$/, 'Z');
    options.write(
      options.format === 'json'
        ? `${JSON.stringify({ level, msg: message, time })}\n`
        : `time=${JSON.stringify(time)} level=${level} msg=${quote(message)}\n`,
    );
  };
  return {
    debug: (message) => {
      if (options.debug) put('debug', message);
    },
    warn: (message) => put('warning', message),
    error: (message) => put('error', message),
  };
}

function quote(message: string): string {
  return /^[\w./@^+-]+$/.test(message) ? message : JSON.stringify(message);
}
