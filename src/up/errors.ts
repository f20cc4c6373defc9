import { defineError } from '#base/errors.ts';

export const UpInvalid = defineError('UP_INVALID', (d: { where: string; problem: string; hint?: string }) => ({
  message: `${d.where}: ${d.problem}`,
  ...(d.hint === undefined ? {} : { hint: d.hint }),
}));

export const NothingToRun = defineError('UP_NOTHING', (d: { path: string }) => ({
  message: `${d.path} holds nothing that could be brought up`,
  hint: 'a compose.yaml, a kustomization.yaml, Kubernetes manifests (*.yaml, *.yml, *.json) or a Dockerfile',
}));

export const KindUnknown = defineError('UP_KIND_UNKNOWN', (d: { apiVersion: string; kind: string; from: string }) => ({
  message: `${d.from}: the cluster has no kind ${d.kind} of ${d.apiVersion}`,
  hint: '`kubectl api-resources` lists what it has',
}));

export const NotReady = defineError(
  'UP_NOT_READY',
  (d: { app: string; seconds: number; waiting: readonly string[] }) => ({
    message: `${d.app} was not ready after ${d.seconds} s: ${d.waiting.join('; ')}`,
    hint: 'the objects stay: `estiba why` explains each, `estiba up --undo-on-failure` would bring back what ran before',
  }),
);

export const WillNotBeReady = defineError('UP_FAILED', (d: { app: string; failed: readonly string[] }) => ({
  message: `${d.app} cannot become ready: ${d.failed.join('; ')}`,
  hint: 'the objects stay: `estiba why` explains each, `estiba up --undo-on-failure` would bring back what ran before',
}));

export const NotOurs = defineError('UP_NOT_OURS', (d: { what: string; app: string; owner: string }) => ({
  message: `${d.what} belongs to the app ${d.owner}, not to ${d.app}`,
  hint: 'choose another --name or --namespace, or take it down there first',
}));

export const NoSuchApp = defineError('UP_NO_SUCH_APP', (d: { app: string; known: readonly string[] }) => ({
  message: `there is no app ${d.app}`,
  hint: d.known.length === 0 ? 'no app runs here; `estiba up` brings one up' : `there are ${d.known.join(', ')}`,
}));

export const KubeconfigInvalid = defineError('KUBECONFIG_INVALID', (d: { path: string; problem: string }) => ({
  message: `${d.path}: ${d.problem}`,
  hint: 'give --kubeconfig or --kube-context, or start `estiba daemon`',
}));
