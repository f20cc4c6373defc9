import { parentPort } from 'node:worker_threads';
import { assert, EstibaError, messageOf } from '#base/errors.ts';
import { Arrival } from '#image/layer/arrival.ts';
import { follow } from '#image/layer/follow.ts';
import { type SurveyJob, surveyMounted } from '#image/layer/mounted.ts';
import type { FromWorker, ToWorker } from '#image/layer/pool.ts';
import { unpackLayer } from '#image/layer/unpack.ts';

// The thread behind WorkerPool: unpacks the layers it is told to, reading along while they arrive, and surveys those of an image.

const port = parentPort;
assert(port, 'layer/worker.ts runs as a worker thread');
const arrivals = new Map<number, Arrival>();

port.on('message', (message: ToWorker) => {
  switch (message.do) {
    case 'unpack': {
      const arrival = new Arrival(message.path, message.sizeBytes);
      arrivals.set(message.id, arrival);
      unpackLayer(message.job, follow(arrival))
        .then((result): FromWorker => ({ id: message.id, result }))
        .catch((error: unknown): FromWorker => ({ id: message.id, error: plain(error) }))
        .then((answer) => {
          arrivals.delete(message.id);
          port.postMessage(answer);
        });
      return;
    }
    case 'survey':
      port.postMessage(surveyed(message.id, message.job));
      return;
    case 'arrived': {
      const arrival = arrivals.get(message.id);
      arrival?.advance(message.offset);
      if (message.ended) arrival?.finish();
      return;
    }
    case 'gone':
      arrivals.get(message.id)?.fail(new Error('the transfer failed'));
  }
});

function surveyed(id: number, job: SurveyJob): FromWorker {
  try {
    return { id, result: surveyMounted(job) };
  } catch (error) {
    return { id, error: plain(error) };
  }
}

function plain(error: unknown): { code?: string; message: string; hint?: string; data?: object } {
  if (!(error instanceof EstibaError)) return { message: messageOf(error) };
  return {
    code: error.code,
    message: error.message,
    data: { ...error.data },
    ...(error.hint === undefined ? {} : { hint: error.hint }),
  };
}
