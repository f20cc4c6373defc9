import { array, integer, number, type Out, object, oneOf, optional, string } from '#base/shape.ts';

/**
 * What the proxy at the edge knows, as it comes over the feed (base/feed.ts). Keys of the topic:
 *
 *     settings               SettingsEntry
 *     ing/<ns>/<name>        IngressEntry
 *     be/<ns>/<svc>:<port>   BackendEntry
 *     tls/<ns>/<secret>      CertificateEntry     given by the user
 *     own/<host>             CertificateEntry     signed by our own authority, for hosts without a usable secret
 */
export const KEY = { settings: 'settings', ingress: 'ing/', backend: 'be/', secret: 'tls/', own: 'own/' } as const;
/** Under `own/`: for clients that name no host we know. */
export const FALLBACK_HOST = 'ingress.estiba.invalid';

const listenShape = object({ ip: string(), port: integer({ min: 0, max: 65535 }) });

export const settingsShape = object({ http: array(listenShape), https: array(listenShape) });
export type SettingsEntry = Out<typeof settingsShape>;

const pathShape = object({
  /** '' for every host; `*.example.org` for one label before the rest. */
  host: string(),
  path: string(),
  type: oneOf('Exact', 'Prefix'),
  /** Key of the backend without `be/`. */
  backend: string(),
});
export type PathRule = Out<typeof pathShape>;

export const ingressShape = object({
  namespace: string(),
  name: string(),
  createdAtMs: number(),
  rules: array(pathShape),
  defaultBackend: optional(string()),
  tls: array(object({ hosts: array(string()), secret: optional(string()) })),
});
export type IngressEntry = Out<typeof ingressShape>;

export const backendShape = object({
  targets: array(object({ ip: string(), port: integer() })),
  /** Why there is none, in the words of the page that clients get. */
  why: optional(string()),
  /** `h2c`: HTTP/2 without TLS, which gRPC servers speak. */
  protocol: oneOf('http', 'https', 'h2c'),
});
export type BackendEntry = Out<typeof backendShape>;
export type Target = BackendEntry['targets'][number];

export const certificateShape = object({ certificate: string(), key: string() });
export type CertificateEntry = Out<typeof certificateShape>;
