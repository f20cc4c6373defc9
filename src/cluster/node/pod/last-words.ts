import { open } from 'node:fs/promises';
import { errnoOf } from '#base/errors.ts';
import type { AgentDeps } from '#cluster/node/deps.ts';
import type { Run } from '#cluster/node/pod/runs.ts';
import { messagePath } from '#cluster/node/pod/start.ts';
import { readLogs } from '#engine/core/log-reader.ts';
import type { Container } from '#spec/kubernetes/types.gen.ts';

export interface LastWords {
  text: string;
}

// The kubelet's bounds.
const MESSAGE_BYTES = 4096;
const LOG_BYTES = 2048;
const LOG_LINES = 80;

/** What a program left in its termination message file, or the end of its log where the pod asks for that. */
export async function lastWords(deps: AgentDeps, uid: string, container: Container, run: Run): Promise<LastWords> {
  const text = await readSome(messagePath(deps, uid, container.name, run.attempt));
  const wantsLog = container.terminationMessagePolicy === 'FallbackToLogsOnError' && run.exitCode !== 0;
  if (text !== '' || !wantsLog) return { text };
  const parts: Buffer[] = [];
  const places = { path: deps.engine.logPath(run.id), maxFiles: deps.engine.logFiles };
  await readLogs(places, 'json', { stdout: true, stderr: true, tail: LOG_LINES }, async (lines) => {
    parts.push(...lines.map((line) => line.text));
  });
  return { text: Buffer.concat(parts).subarray(-LOG_BYTES).toString('utf8') };
}

async function readSome(path: string): Promise<string> {
  try {
    const file = await open(path, 'r');
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(MESSAGE_BYTES), 0, MESSAGE_BYTES, 0);
      return buffer.toString('utf8', 0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return '';
    throw error;
  }
}
