import type { ComposeProject, ComposeService, DependsCondition } from '#spec/compose/model.ts';
import * as read from '#spec/compose/read.ts';

/** Services that have to be there first, the links' among them. One that is scaled to nothing is not waited for. */
export function dependenciesOf(project: ComposeProject, service: ComposeService): Record<string, DependsCondition> {
  const out: Record<string, DependsCondition> = {};
  for (const name of Object.keys(linksOf(service))) out[name] = 'service_started';
  for (const [name, { condition }] of Object.entries(service.dependsOn)) out[name] = condition;
  return Object.fromEntries(
    Object.entries(out).filter(([name]) => (project.services[name]?.replicas ?? 1) > 0 && project.services[name]),
  );
}

/** `SERVICE[:ALIAS]`: the names under which linked services are known. */
export function linksOf(service: ComposeService): Record<string, string> {
  const tree = service.rest.get('links');
  const texts = tree ? read.texts(tree, `services.${service.name}.links`) : [];
  return Object.fromEntries(texts.map((text) => [text.split(':')[0] ?? '', text.split(':')[1] ?? text]));
}
