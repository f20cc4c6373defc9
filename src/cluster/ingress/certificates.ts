import { createSecureContext, type SecureContext } from 'node:tls';
import { messageOf } from '#base/errors.ts';
import type { Logger } from '#base/log.ts';
import { type CertificateEntry, FALLBACK_HOST, type IngressEntry } from '#cluster/ingress/model.ts';

/** Which certificate a client is shown, by the name it asks for: its Ingress' secret, else one signed by our own authority. */
export class Certificates {
  readonly #secrets = new Map<string, CertificateEntry>();
  readonly #own = new Map<string, CertificateEntry>();
  /** Host → secret's key. */
  #wanted = new Map<string, string>();
  #contexts = new Map<string, SecureContext | undefined>();
  readonly #log: Logger;

  constructor(log: Logger) {
    this.#log = log;
  }

  setSecret(key: string, entry: CertificateEntry | undefined): void {
    put(this.#secrets, key, entry);
    this.#contexts.delete(`secret ${key}`);
  }

  setOwn(host: string, entry: CertificateEntry | undefined): void {
    put(this.#own, host, entry);
    this.#contexts.delete(`own ${host}`);
  }

  setIngresses(ingresses: readonly IngressEntry[]): void {
    const wanted = new Map<string, string>();
    for (const { namespace, tls } of [...ingresses].sort((a, b) => a.createdAtMs - b.createdAtMs))
      for (const { hosts, secret } of tls)
        for (const host of secret === undefined ? [] : hosts)
          if (!wanted.has(host.toLowerCase())) wanted.set(host.toLowerCase(), `${namespace}/${secret}`);
    this.#wanted = wanted;
  }

  clear(): void {
    this.#secrets.clear();
    this.#own.clear();
    this.#wanted.clear();
    this.#contexts.clear();
  }

  /** Undefined: nothing to show, the handshake fails. `name` absent: the client sent none. */
  contextFor(name: string | undefined): SecureContext | undefined {
    const host = (name ?? '').toLowerCase();
    const wildcard = `*.${host.slice(host.indexOf('.') + 1)}`;
    for (const known of [host, wildcard]) {
      const secret = this.#wanted.get(known);
      const context =
        (secret === undefined ? undefined : this.#context(`secret ${secret}`, this.#secrets.get(secret))) ??
        this.#context(`own ${known}`, this.#own.get(known));
      if (context) return context;
    }
    return this.#context(`own ${FALLBACK_HOST}`, this.#own.get(FALLBACK_HOST));
  }

  /** For clients that send no name. */
  fallback(): CertificateEntry | undefined {
    return this.#own.get(FALLBACK_HOST);
  }

  #context(id: string, entry: CertificateEntry | undefined): SecureContext | undefined {
    if (!entry) return undefined;
    if (this.#contexts.has(id)) return this.#contexts.get(id);
    let context: SecureContext | undefined;
    try {
      context = createSecureContext({ cert: entry.certificate, key: entry.key, minVersion: 'TLSv1.2' });
    } catch (error) {
      // A secret with a key that does not fit: said once, and our own certificate is shown instead.
      this.#log.warn('certificate not usable', { of: id, error: messageOf(error) });
    }
    this.#contexts.set(id, context);
    return context;
  }
}

function put<T>(map: Map<string, T>, key: string, value: T | undefined): void {
  if (value === undefined) map.delete(key);
  else map.set(key, value);
}
