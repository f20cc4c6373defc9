import { basename, dirname } from 'node:path';
import { parseDockerfile } from '#spec/dockerfile/instructions.ts';
import { APP_LABEL, SERVICE_LABEL } from '#spec/estiba/cluster.ts';
import { type AppPlan, compact, inOrder, type UpObject, unlessEmpty } from '#up/objects.ts';

export interface DockerfileInput {
  text: string;
  file: string;
  app: string;
  namespace: string;
  built: Readonly<Record<string, string>> | undefined;
}

/** One image, one Deployment; every port of `EXPOSE` is published under its own number. */
export function planDockerfile({ text, file, app, namespace, built }: DockerfileInput): AppPlan {
  const image = `${app}:latest`;
  const labels = { [APP_LABEL]: app, [SERVICE_LABEL]: app };
  const ports = exposedPorts(text, file);
  const container = compact({
    name: 'main',
    image,
    imagePullPolicy: 'IfNotPresent',
    ports: unlessEmpty(ports.map(({ port, protocol }) => ({ containerPort: port, protocol }))),
  });
  const id = built?.[app];
  const template = {
    metadata: compact({ labels, annotations: id === undefined ? undefined : { 'estiba.dev/built': id } }),
    spec: {
      // Docker's own grace: whoever runs a Dockerfile knows that one.
      terminationGracePeriodSeconds: 10,
      enableServiceLinks: false,
      automountServiceAccountToken: false,
      containers: [container],
    },
  };
  const metadata = { name: app, namespace, labels: { [SERVICE_LABEL]: app } };
  const service = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata,
    spec: {
      type: 'LoadBalancer',
      selector: labels,
      ports: ports.map(({ port, protocol }) => ({ name: `${protocol.toLowerCase()}-${port}`, port, protocol })),
    },
  };
  const objects: UpObject[] = [
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } },
    ...(ports.length === 0 ? [] : [service]),
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata,
      spec: { replicas: 1, selector: { matchLabels: labels }, template },
    } as UpObject,
  ];
  const build = { service: app, image, context: dirname(file), dockerfile: basename(file), args: {} };
  return { app, namespace, builds: [build], objects: inOrder(objects) };
}

/** Ports of the last stage: that is the image. */
function exposedPorts(text: string, file: string): { port: number; protocol: 'TCP' | 'UDP' | 'SCTP' }[] {
  const { stages } = parseDockerfile(text, file);
  const words = (stages.at(-1)?.instructions ?? []).flatMap((i) => (i.do === 'expose' ? i.ports : []));
  return words.flatMap((word) => {
    const [, port = '', protocol = 'tcp'] = /^(\d+)(?:\/(tcp|udp|sctp))?$/i.exec(word) ?? [];
    return port === '' ? [] : [{ port: Number(port), protocol: protocol.toUpperCase() as 'TCP' }];
  });
}
