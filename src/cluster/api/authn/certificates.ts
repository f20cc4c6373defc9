import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  X509Certificate,
} from 'node:crypto';
import { isIPv4, isIPv6 } from 'node:net';
import { bits, boolean, type Der, explicit, implicit, integer, octets, oid, sequence, set, time, utf8 } from './der.ts';

/**
 * The cluster's own authority and what it signs: the server's certificate and those of clients, whose common name is the user and
 * whose organizations are its groups, as Kubernetes reads them. ECDSA P-256 throughout: a key costs well under a millisecond.
 */
export interface KeyPair {
  /** PEM */
  certificate: string;
  /** PEM, PKCS#8 */
  key: string;
}

const DAY_MS = 86_400_000;
// Clocks of clients may lag a little behind the signer's.
const SKEW_MS = 3_600_000;
const AUTHORITY_DAYS = 3650;
const LEAF_DAYS = 365;

const OID = {
  ecdsaSha256: '1.2.840.10045.4.3.2',
  commonName: '2.5.4.3',
  organization: '2.5.4.10',
  subjectKeyId: '2.5.29.14',
  keyUsage: '2.5.29.15',
  alternativeName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyId: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
};

interface Name {
  commonName: string;
  organizations: readonly string[];
}

export function makeAuthority(name: string, nowMs: number): KeyPair {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const subject = { commonName: name, organizations: [] };
  const extensions = [
    extension(OID.basicConstraints, sequence(boolean(true)), true),
    // digitalSignature, keyCertSign, cRLSign
    extension(OID.keyUsage, bits(Buffer.of(0b10000110), 1), true),
    extension(OID.subjectKeyId, octets(keyId(publicKey))),
  ];
  const certificate = issue({
    subject,
    issuer: subject,
    publicKey,
    signer: privateKey,
    nowMs,
    days: AUTHORITY_DAYS,
    extensions,
  });
  return { certificate, key: exportKey(privateKey) };
}

export function signServer(
  authority: KeyPair,
  options: { name: string; dnsNames: readonly string[]; addresses: readonly string[]; nowMs: number },
): KeyPair {
  const names = [
    ...options.dnsNames.map((n) => implicit(2, Buffer.from(n))),
    ...options.addresses.map((a) => implicit(7, addressBytes(a))),
  ];
  return signLeaf(authority, { commonName: options.name, organizations: [] }, options.nowMs, [
    extension(OID.extendedKeyUsage, sequence(oid(OID.serverAuth))),
    extension(OID.alternativeName, sequence(...names)),
  ]);
}

export function signClient(
  authority: KeyPair,
  options: { user: string; groups: readonly string[]; nowMs: number },
): KeyPair {
  return signLeaf(authority, { commonName: options.user, organizations: options.groups }, options.nowMs, [
    extension(OID.extendedKeyUsage, sequence(oid(OID.clientAuth))),
  ]);
}

function signLeaf(authority: KeyPair, subject: Name, nowMs: number, extensions: readonly Der[]): KeyPair {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const parent = new X509Certificate(authority.certificate);
  const issuer = { commonName: /^CN=(.*)$/m.exec(parent.subject)?.[1] ?? '', organizations: [] };
  const all = [
    extension(OID.basicConstraints, sequence(), true),
    // digitalSignature
    extension(OID.keyUsage, bits(Buffer.of(0b10000000), 7), true),
    extension(OID.authorityKeyId, sequence(implicit(0, keyId(parent.publicKey)))),
    ...extensions,
  ];
  const signer = createPrivateKey(authority.key);
  return {
    certificate: issue({ subject, issuer, publicKey, signer, nowMs, days: LEAF_DAYS, extensions: all }),
    key: exportKey(privateKey),
  };
}

/** RFC 5280, 4.1: the signed part, the algorithm, the signature. */
function issue(o: {
  subject: Name;
  issuer: Name;
  publicKey: KeyObject;
  signer: KeyObject;
  nowMs: number;
  days: number;
  extensions: readonly Der[];
}): string {
  const algorithm = sequence(oid(OID.ecdsaSha256));
  const signed = sequence(
    explicit(0, integer(Buffer.of(2))),
    integer(randomBytes(16)),
    algorithm,
    nameOf(o.issuer),
    sequence(time(o.nowMs - SKEW_MS), time(o.nowMs + o.days * DAY_MS)),
    nameOf(o.subject),
    o.publicKey.export({ type: 'spki', format: 'der' }),
    explicit(3, sequence(...o.extensions)),
  );
  return pem('CERTIFICATE', sequence(signed, algorithm, bits(sign('sha256', signed, o.signer))));
}

function nameOf({ commonName, organizations }: Name): Der {
  const part = (type: string, value: string): Der => set(sequence(oid(type), utf8(value)));
  return sequence(...organizations.map((o) => part(OID.organization, o)), part(OID.commonName, commonName));
}

function extension(id: string, value: Der, critical = false): Der {
  return sequence(oid(id), ...(critical ? [boolean(true)] : []), octets(value));
}

function keyId(key: KeyObject): Buffer {
  const bare = key.type === 'private' ? createPublicKey(key) : key;
  return createHash('sha1')
    .update(bare.export({ type: 'spki', format: 'der' }))
    .digest();
}

function addressBytes(address: string): Buffer {
  if (isIPv4(address)) return Buffer.from(address.split('.').map(Number));
  if (!isIPv6(address)) throw new RangeError(`${address} is no IP address`);
  const [head = '', tail] = address.split('::');
  const groups = (text: string): number[] => (text === '' ? [] : text.split(':').map((g) => Number.parseInt(g, 16)));
  const left = groups(head);
  const right = tail === undefined ? [] : groups(tail);
  const all = [...left, ...new Array<number>(8 - left.length - right.length).fill(0), ...right];
  return Buffer.from(all.flatMap((g) => [g >> 8, g & 0xff]));
}

function exportKey(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }).toString();
}

function pem(label: string, der: Buffer): string {
  return `-----BEGIN ${label}-----\n${(der.toString('base64').match(/.{1,64}/g) ?? []).join('\n')}\n-----END ${label}-----\n`;
}
