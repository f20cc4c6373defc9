import type { ComposeProject, ComposeService } from '#spec/compose/model.ts';
import { type Position, refuse } from '#spec/compose/tree.ts';
import { APP_LABEL, SERVICE_LABEL } from '#spec/estiba/cluster.ts';

/** What stands at a path on this machine. */
export type PathKind = 'file' | 'directory' | 'socket' | 'device' | 'missing';

/** All that the mapping reads; nothing is asked of the machine while it decides. */
export interface ComposeInput {
  project: ComposeProject;
  namespace: string;
  /** Bind sources, by the path as the model has it. */
  paths: Readonly<Record<string, PathKind>>;
  /** Contents of the files that secrets and configs name. */
  files: Readonly<Record<string, Uint8Array>>;
  /** Where variables without a value are taken from. */
  environment: Readonly<Record<string, string | undefined>>;
  /** Absolute folder that relative paths start from. */
  folder: string;
  /** Ids of images that were built, by service: a rebuilt image rolls its pods. */
  built?: Readonly<Record<string, string>>;
  /** `other`: a cluster that is not this machine and knows nothing of Estiba. */
  cluster: 'estiba' | 'other';
}

export function selectorOf(input: ComposeInput, service: string): Record<string, string> {
  return { [APP_LABEL]: input.project.name, [SERVICE_LABEL]: service };
}

/** Refuses an attribute of a service, by file and line. */
export function refuseAttribute(service: ComposeService, attribute: string, rule: string): never {
  return refuse(service.where(attribute), `services.${service.name}.${attribute}`, rule);
}

// RFC 1035: names of Services and namespaces.
const LABEL = /^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$/;
const LABEL_OR_DIGIT = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

/** Names that pods look up have to stay as they are; one that Kubernetes does not take is refused, not changed. */
export function dnsName(name: string, at: Position, path: string): string {
  if (LABEL.test(name)) return name;
  const near = objectName(name);
  const rule =
    'in Kubernetes a name has lower case letters, digits and -, begins with a letter, and is at most 63 long';
  return refuse(at, path, `${JSON.stringify(name)}: ${rule}${near === name ? '' : `; ${near} would do`}`);
}

/** Names nobody looks up (volumes, secrets) are brought into the form that Kubernetes wants. */
export function objectName(name: string): string {
  const made = name
    .toLowerCase()
    .replace(/[^a-z0-9-]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 63)
    .replace(/-+$/, '');
  return LABEL_OR_DIGIT.test(made) ? made : 'x';
}

// A name with an optional prefix: apimachinery's rule for keys of annotations and labels.
const QUALIFIED = /^([a-z0-9]([-a-z0-9.]*[a-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;

/** Labels of Compose are free text; Kubernetes has room for such only in annotations. */
export function annotationsOf(
  labels: Readonly<Record<string, string>>,
  at: Position,
  path: string,
): Record<string, string> {
  for (const key of Object.keys(labels))
    if (!QUALIFIED.test(key)) refuse(at, path, `${JSON.stringify(key)} is no key of an annotation in Kubernetes`);
  return { ...labels };
}

/**
 * Kubernetes replaces `$(NAME)` in commands and values, and reads `$$` as `$` (Container.command). Text that came through
 * Compose is meant as it stands.
 */
export function literal(text: string): string {
  return /\$[$(]/.test(text) ? text.replaceAll('$', '$$$$') : text;
}

export function seconds(ms: number): number {
  return Math.max(1, Math.ceil(ms / 1000));
}
