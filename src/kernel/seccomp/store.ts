import { createHash, randomBytes } from 'node:crypto';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { type CompileOptions, compileSeccomp, type SeccompProgram } from '#kernel/seccomp/compile.ts';
import { FLAG_NEW_LISTENER, type SeccompProfile } from '#kernel/seccomp/profile.ts';

// Compiled programs on disk, for a runtime that starts anew with every call: compiling Docker's profile in a cold Node.js costs
// 8 ms, reading what an earlier call compiled half a one.
//
//   DIR/<sha256 of build, architecture and profile>.bpf      flags u32 · struct sock_filter[] · sha256 of both
//
// A program decides what a container may do, so the directory has to be its reader's alone; anything else in its place is
// passed by. A file is renamed into place whole; one that does not match its own digest is made again.

const MOST_PROGRAMS = 64;
const DIGEST_BYTES = 32;
const INSTRUCTION_BYTES = 8;
const OTHERS_WRITE = 0o022;

export interface SeccompStoreOptions extends CompileOptions {
  dir: string;
  uid: number;
  /** Which compiler and tables: another build does not read what this one wrote. */
  build: string;
}

/** `compileSeccomp` with a memory. The file system's failures cost time, never a program: without it everything is compiled. */
export class SeccompStore {
  readonly #o: SeccompStoreOptions;

  constructor(options: SeccompStoreOptions) {
    this.#o = options;
  }

  compile(profile: SeccompProfile): SeccompProgram {
    const path = join(this.#o.dir, `${this.#key(profile)}.bpf`);
    const found = this.#isOurs() ? readProgram(path) : undefined;
    if (found) return found;
    const program = compileSeccomp(profile, this.#o);
    this.#keep(path, program);
    return program;
  }

  #key(profile: SeccompProfile): string {
    const { listenerMetadata: _, listenerPath: __, ...rest } = profile; // the agent's affairs, not the program's
    const { build, native, newCalls = 'enosys' } = this.#o;
    const text = JSON.stringify([build, native, newCalls, rest], (_key, value: unknown) =>
      typeof value === 'bigint' ? `${value}n` : value,
    );
    return createHash('sha256').update(text).digest('hex');
  }

  #isOurs(): boolean {
    try {
      const stats = lstatSync(this.#o.dir);
      return stats.isDirectory() && stats.uid === this.#o.uid && (stats.mode & OTHERS_WRITE) === 0;
    } catch {
      return false; // not there yet
    }
  }

  #keep(path: string, { flags, filter }: SeccompProgram): void {
    try {
      mkdirSync(dirname(this.#o.dir), { recursive: true });
      if (!existsSync(this.#o.dir)) mkdirSync(this.#o.dir, { mode: 0o700 });
      if (!this.#isOurs()) return;
      const head = Buffer.alloc(4);
      head.writeUInt32LE(flags);
      const body = Buffer.concat([head, filter]);
      const temporary = `${path}.${randomBytes(6).toString('hex')}`;
      writeFileSync(temporary, Buffer.concat([body, digest(body)]), { mode: 0o600, flag: 'wx' });
      renameSync(temporary, path);
      // Whoever makes profiles by the thousand gets them compiled by the thousand.
      for (const name of readdirSync(this.#o.dir).slice(MOST_PROGRAMS))
        rmSync(join(this.#o.dir, name), { force: true });
    } catch {
      // A full or read-only disk: the next call compiles again.
    }
  }
}

function readProgram(path: string): SeccompProgram | undefined {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch {
    return undefined; // not compiled yet, or not readable: compiled anew
  }
  const body = bytes.subarray(0, Math.max(0, bytes.length - DIGEST_BYTES));
  const filter = body.subarray(4);
  if (filter.length === 0 || filter.length % INSTRUCTION_BYTES !== 0) return undefined;
  if (!digest(body).equals(bytes.subarray(body.length))) return undefined;
  const flags = body.readUInt32LE(0);
  return { filter, flags, notify: (flags & FLAG_NEW_LISTENER) !== 0 };
}

function digest(body: Uint8Array): Buffer {
  return createHash('sha256').update(body).digest();
}
