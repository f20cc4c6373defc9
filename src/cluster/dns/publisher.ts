import type { FeedTopic } from '#base/feed.ts';
import { ENDPOINT_SLICES, keyIn, keyOf, type ObjectKey, SERVICES } from '#cluster/client/resources.ts';
import type { ClusterView } from '#cluster/client/view.ts';
import { type DnsSettings, namesOf } from '#cluster/dns/records.ts';
import { SERVICE_PREFIX, SETTINGS_KEY } from '#cluster/dns/server.ts';
import { SERVICE_NAME_LABEL } from '#spec/kubernetes/endpoints.ts';

/** Tells the name server what the API knows: `view` ─▶ names ─▶ feed. Call before the view starts. */
export function publishNames(view: ClusterView, topic: FeedTopic, settings: DnsSettings): void {
  const services = view.of(SERVICES);
  const slices = view.of(ENDPOINT_SLICES);
  slices.informer.addIndex('service', (s) => [
    keyIn(s.metadata.namespace, s.metadata.labels?.[SERVICE_NAME_LABEL] ?? ''),
  ]);
  topic.set(SETTINGS_KEY, settings);
  const say = (key: ObjectKey): void => {
    const service = services.get(key);
    const names = service && namesOf(service, slices.informer.by('service', key));
    if (names) topic.set(`${SERVICE_PREFIX}${key}`, names);
    else topic.drop(`${SERVICE_PREFIX}${key}`);
  };
  services.informer.onChange((now, before) => {
    const service = now ?? before;
    if (service) say(keyOf(service));
  });
  slices.informer.onChange((now, before) => {
    for (const slice of [now, before])
      if (slice) say(keyIn(slice.metadata.namespace, slice.metadata.labels?.[SERVICE_NAME_LABEL] ?? ''));
  });
}
