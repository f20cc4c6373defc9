import { BadContainerConfig } from '#cluster/node/errors.ts';
import type { ConditionalProfile, SecuritySpec } from '#engine/core/spec.ts';
import type { Container, PodSpec, SeccompProfile, SecurityContext } from '#spec/kubernetes/types.gen.ts';

/** The container's security context with the pod's behind it, in the engine's words. */
export interface Security {
  spec: SecuritySpec;
  /** `undefined`: the image's. */
  user?: string;
  groups: string[];
}

export function securityOf(
  pod: PodSpec,
  container: Container,
  image: { user: string },
  readProfile: (name: string) => ConditionalProfile,
): Security {
  const context: SecurityContext = container.securityContext ?? {};
  const runAsUser = context.runAsUser ?? pod.securityContext?.runAsUser;
  const runAsGroup = context.runAsGroup ?? pod.securityContext?.runAsGroup;
  checkNonRoot(pod, container, image.user, runAsUser);
  const user = userOf(image.user, runAsUser, runAsGroup);
  const groups = [...(pod.securityContext?.supplementalGroups ?? []), pod.securityContext?.fsGroup].filter(
    (g) => g !== undefined,
  );
  const unmasked = context.procMount === 'Unmasked';
  return {
    ...(user === undefined ? {} : { user }),
    groups: groups.map(String),
    spec: {
      privileged: context.privileged ?? false,
      capAdd: context.capabilities?.add ?? [],
      capDrop: context.capabilities?.drop ?? [],
      noNewPrivileges: context.allowPrivilegeEscalation === false,
      seccomp: seccompOf(context.seccompProfile ?? pod.securityContext?.seccompProfile, readProfile),
      readonlyRoot: context.readOnlyRootFilesystem ?? false,
      ...(unmasked ? { maskedPaths: [], readonlyPaths: [] } : {}),
    },
  };
}

function userOf(image: string, uid: number | undefined, gid: number | undefined): string | undefined {
  if (uid === undefined && gid === undefined) return undefined;
  const name = uid === undefined ? (image.split(':')[0] ?? '') || '0' : String(uid);
  return gid === undefined ? name : `${name}:${gid}`;
}

/** The kubelet's words. */
function checkNonRoot(pod: PodSpec, container: Container, imageUser: string, uid: number | undefined): void {
  if (!(container.securityContext?.runAsNonRoot ?? pod.securityContext?.runAsNonRoot)) return;
  if (uid === 0) refuse("container's runAsUser breaks non-root policy");
  if (uid !== undefined) return;
  const [user = ''] = imageUser.split(':');
  if (user === '' || user === '0' || user === 'root') refuse('container has runAsNonRoot and image will run as root');
  if (!/^\d+$/.test(user))
    refuse(`container has runAsNonRoot and image has non-numeric user (${user}), cannot verify user is non-root`);
}

function refuse(message: string): never {
  throw new BadContainerConfig({ message });
}

/** Without a wish the default profile, as a kubelet with `--seccomp-default`: who needs more says Unconfined. */
function seccompOf(
  profile: SeccompProfile | undefined,
  readProfile: (name: string) => ConditionalProfile,
): SecuritySpec['seccomp'] {
  if (!profile || profile.type === 'RuntimeDefault') return 'default';
  if (profile.type === 'Unconfined') return 'unconfined';
  return { profile: readProfile(profile.localhostProfile ?? '') };
}
