import { array, boolean, type Out, object, optional, record, text } from '#base/shape.ts';
import { texts } from '#spec/oci/fields.ts';
import { parseJson } from '#spec/oci/json.ts';

const flag = () => optional(object({ enabled: optional(boolean()) }));
const names = () => optional(array(text({ nonEmpty: true })));

/** What a runtime says of itself (features.md, features-linux.md). A missing field means unknown, not "no". */
export const Features = object({
  ociVersionMin: text({ nonEmpty: true }),
  ociVersionMax: text({ nonEmpty: true }),
  hooks: names(),
  mountOptions: names(),
  linux: optional(
    object({
      namespaces: names(),
      capabilities: names(),
      cgroup: optional(
        object({
          v1: optional(boolean()),
          v2: optional(boolean()),
          systemd: optional(boolean()),
          systemdUser: optional(boolean()),
          rdma: optional(boolean()),
        }),
      ),
      seccomp: optional(
        object({
          enabled: optional(boolean()),
          actions: names(),
          operators: names(),
          archs: names(),
          knownFlags: optional(texts()),
          supportedFlags: optional(texts()),
        }),
      ),
      apparmor: flag(),
      selinux: flag(),
      intelRdt: flag(),
      memoryPolicy: optional(object({ modes: names(), flags: names() })),
      mountExtensions: optional(object({ idmap: flag() })),
      netDevices: flag(),
    }),
  ),
  annotations: optional(record(text())),
  potentiallyUnsafeConfigAnnotations: optional(texts()),
});
export type OciFeatures = Out<typeof Features>;

export function parseFeatures(source: string): OciFeatures {
  return Features(parseJson(source), '$');
}
