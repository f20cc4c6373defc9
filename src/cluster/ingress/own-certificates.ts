import type { Clock } from '#base/clock.ts';
import type { CertificateEntry } from '#cluster/ingress/model.ts';

const DAY_MS = 86_400_000;
/** Well before the year that a certificate lasts is over. */
const RENEW_AFTER_MS = 180 * DAY_MS;

/** Certificates of the cluster's own ingress authority, by host: one as long as the host is served, and a new one in time. */
export class OwnCertificates {
  readonly #known = new Map<string, { entry: CertificateEntry; issuedAtMs: number }>();
  readonly #clock: Clock;
  readonly #issue: (host: string) => CertificateEntry;

  constructor(clock: Clock, issue: (host: string) => CertificateEntry) {
    this.#clock = clock;
    this.#issue = issue;
  }

  of(host: string): CertificateEntry {
    return this.#known.get(host)?.entry ?? this.#make(host);
  }

  keepOnly(isServed: (host: string) => boolean): void {
    for (const host of this.#known.keys()) if (!isServed(host)) this.#known.delete(host);
  }

  /** Looks once a day; `renewed` is told each new one. Returns what ends it. */
  keepFresh(renewed: (host: string, entry: CertificateEntry) => void): () => void {
    let cancel = (): void => undefined;
    const look = (): void => {
      for (const [host, { issuedAtMs }] of [...this.#known])
        if (this.#clock.now() - issuedAtMs >= RENEW_AFTER_MS) renewed(host, this.#make(host));
      cancel = this.#clock.after(DAY_MS, look);
    };
    cancel = this.#clock.after(DAY_MS, look);
    return () => cancel();
  }

  #make(host: string): CertificateEntry {
    const entry = this.#issue(host);
    this.#known.set(host, { entry, issuedAtMs: this.#clock.now() });
    return entry;
  }
}
