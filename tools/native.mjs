// npm runs this when the package is installed. The package brings the native program for the machine it was packed on; on
// another architecture it is compiled here, which needs make and a C compiler.
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const NATIVE = fileURLToPath(new URL('../native', import.meta.url));
/** ELF's e_machine, by the names Node.js has for architectures. */
const MACHINES = { x64: 62, arm64: 183 };
const E_MACHINE_AT = 18;

if (machineOf(join(NATIVE, 'build/estiba-init')) !== MACHINES[process.arch]) {
  console.log(`estiba: compiling its native program for ${process.arch}`);
  execFileSync('make', ['-C', NATIVE, 'clean', 'all'], { stdio: 'inherit' });
}

function machineOf(path) {
  const header = Buffer.alloc(E_MACHINE_AT + 2);
  try {
    const fd = openSync(path, 'r');
    readSync(fd, header);
    closeSync(fd);
  } catch {
    return undefined; // not built yet
  }
  return header.readUInt16LE(E_MACHINE_AT);
}
