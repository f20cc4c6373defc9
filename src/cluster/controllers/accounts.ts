import { isCode } from '#base/errors.ts';
import { DONE, type Requeue } from '#cluster/client/queue.ts';
import { CONFIG_MAPS, keyIn, type Live, NAMESPACES, SECRETS, SERVICE_ACCOUNTS } from '#cluster/client/resources.ts';
import type { Secret } from '#spec/kubernetes/types.gen.ts';
import { type ControllerDeps, onSelf, type Reconciler, reconciler } from './loop.ts';

const ROOT_CA = 'kube-root-ca.crt';
const TOKEN_SECRET = 'kubernetes.io/service-account-token';
const ACCOUNT_NAME = 'kubernetes.io/service-account.name';
const ACCOUNT_UID = 'kubernetes.io/service-account.uid';

/** Every namespace has an account `default` and the cluster's authority, again when somebody deletes them. */
export function accountController(deps: ControllerDeps, authorityPem: string): Reconciler {
  const { view } = deps;
  const namespaces = view.of(NAMESPACES);
  const accounts = view.of(SERVICE_ACCOUNTS);
  const maps = view.of(CONFIG_MAPS);
  const loop = reconciler(deps, 'accounts', reconcile);
  onSelf(namespaces, loop);
  accounts.informer.onChange((now, before) => {
    if (!now && before?.metadata.name === 'default') loop.queue.add(before.metadata.namespace ?? '');
  });
  maps.informer.onChange((now, before) => {
    const map = now ?? before;
    if (map?.metadata.name === ROOT_CA) loop.queue.add(map.metadata.namespace ?? '');
  });
  return loop;

  async function reconcile(namespace: string): Promise<Requeue> {
    const home = namespaces.get(namespace);
    if (!home || home.metadata.deletionTimestamp) return DONE;
    if (!accounts.get(keyIn(namespace, 'default')))
      await unlessThere(() => accounts.create({ metadata: { name: 'default', namespace } }));
    const map = maps.get(keyIn(namespace, ROOT_CA));
    const data = { 'ca.crt': authorityPem };
    if (!map) {
      const annotations = {
        'kubernetes.io/description':
          'Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc.',
      };
      await unlessThere(() => maps.create({ metadata: { name: ROOT_CA, namespace, annotations }, data }));
    } else if (map.data?.['ca.crt'] !== authorityPem) await maps.update({ ...map, data });
    return DONE;
  }
}

async function unlessThere(create: () => Promise<unknown>): Promise<void> {
  try {
    await create();
  } catch (error) {
    if (!isCode(error, 'KUBE_ALREADY_EXISTS')) throw error;
  }
}

/** Fills token secrets that people make by hand, and drops those whose account has gone. */
export function tokenSecretController(deps: ControllerDeps, authorityPem: string): Reconciler {
  const { view } = deps;
  const secrets = view.of(SECRETS);
  const accounts = view.of(SERVICE_ACCOUNTS);
  const loop = reconciler(deps, 'token-secrets', reconcile);
  secrets.informer.onChange((now) => {
    if (now?.type === TOKEN_SECRET) loop.queue.add(keyIn(now.metadata.namespace, now.metadata.name));
  });
  accounts.informer.onChange((now, before) => {
    const account = now ?? before;
    for (const secret of secrets.inNamespace(account?.metadata.namespace ?? ''))
      if (secret.type === TOKEN_SECRET && secret.metadata.annotations?.[ACCOUNT_NAME] === account?.metadata.name)
        loop.queue.add(keyIn(secret.metadata.namespace, secret.metadata.name));
  });
  return loop;

  async function reconcile(key: string): Promise<Requeue> {
    const secret = secrets.get(key);
    const name = secret?.metadata.annotations?.[ACCOUNT_NAME];
    if (!secret || secret.type !== TOKEN_SECRET || !name || secret.metadata.deletionTimestamp) return DONE;
    const account = await accounts.fresh(keyIn(secret.metadata.namespace, name));
    const uid = secret.metadata.annotations?.[ACCOUNT_UID];
    if (!account || (uid !== undefined && uid !== account.metadata.uid)) {
      await secrets.remove(secret);
      return DONE;
    }
    if (secret.data?.['token'] && secret.data['ca.crt'] && uid) return DONE;
    await fill(secret, name, account.metadata.uid);
    return DONE;
  }

  async function fill(secret: Live<Secret>, account: string, uid: string): Promise<void> {
    const namespace = secret.metadata.namespace ?? '';
    const boundObjectRef = { apiVersion: 'v1', kind: 'Secret', name: secret.metadata.name, uid: secret.metadata.uid };
    // The server shortens what is longer than it grants.
    const request = { spec: { audiences: [], boundObjectRef, expirationSeconds: YEAR_SECONDS } };
    const answer = await view.client.raw<{ status: { token: string } }>({
      method: 'POST',
      path: `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`,
      body: { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', ...request },
    });
    const data = {
      ...secret.data,
      token: base64(answer.status.token),
      namespace: base64(namespace),
      'ca.crt': base64(authorityPem),
    };
    const annotations = { ...secret.metadata.annotations, [ACCOUNT_UID]: uid };
    await secrets.update({ ...secret, metadata: { ...secret.metadata, annotations }, data });
  }
}

const YEAR_SECONDS = 365 * 24 * 3600;

function base64(text: string): string {
  return Buffer.from(text, 'utf8').toString('base64');
}
