/** Kubernetes' rules for names. Each returns what is wrong, in upstream's words, or undefined. */
export type NameRule = (text: string) => string | undefined;

const LABEL = /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?$/;
const DNS_1035 = /^[a-z](?:[-a-z0-9]*[a-z0-9])?$/;
const SUBDOMAIN = /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*$/;
const QUALIFIED = /^[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?$/;
const ENV_NAME = /^[^\0=]+$/;
const CONFIG_KEY = /^[-._a-zA-Z0-9]+$/;

function bounded(text: string, max: number): string | undefined {
  return Buffer.byteLength(text) > max ? `must be no more than ${max} bytes` : undefined;
}

export const dnsLabel: NameRule = (text) =>
  bounded(text, 63) ??
  (LABEL.test(text)
    ? undefined
    : "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')");

export const dnsSubdomain: NameRule = (text) =>
  bounded(text, 253) ??
  (SUBDOMAIN.test(text)
    ? undefined
    : "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')");

export const dns1035Label: NameRule = (text) =>
  bounded(text, 63) ??
  (DNS_1035.test(text)
    ? undefined
    : "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')");

/** What may stand in a path: the names of RBAC objects. */
export const pathSegment: NameRule = (text) =>
  text === '.' || text === '..'
    ? `may not be '${text}'`
    : text.includes('/')
      ? "may not contain '/'"
      : text.includes('%')
        ? "may not contain '%'"
        : bounded(text, 253);

/** `[prefix/]name` of labels, annotations, finalizers and extended resources. */
export const qualifiedName: NameRule = (text) => {
  const parts = text.split('/');
  if (parts.length > 2)
    return "a valid label key must consist of alphanumeric characters, '-', '_' or '.' with an optional DNS subdomain prefix and '/'";
  const [prefix, name] = parts.length === 2 ? [parts[0] ?? '', parts[1] ?? ''] : [undefined, parts[0] ?? ''];
  if (prefix !== undefined) {
    if (prefix === '') return 'prefix part must be non-empty';
    const wrong = dnsSubdomain(prefix);
    if (wrong) return `prefix part ${wrong}`;
  }
  if (name === '') return 'name part must be non-empty';
  if (name.length > 63) return 'name part must be no more than 63 bytes';
  return QUALIFIED.test(name)
    ? undefined
    : "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
};

export const labelValue: NameRule = (text) =>
  bounded(text, 63) ??
  (text === '' || QUALIFIED.test(text)
    ? undefined
    : "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')");

export const envName: NameRule = (text) =>
  ENV_NAME.test(text)
    ? undefined
    : "environment variable names must be printable ASCII characters other than '=' character";

export const configKey: NameRule = (text) =>
  bounded(text, 253) ??
  (!CONFIG_KEY.test(text)
    ? "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
    : text === '.' || text === '..' || text.startsWith('..')
      ? `must not be '${text === '.' ? '.' : '..'}'`
      : undefined);

export const portName: NameRule = (text) => {
  if (text.length > 15) return 'must be no more than 15 characters';
  if (!/^[-a-z0-9]+$/.test(text)) return 'must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)';
  if (!/[a-z]/.test(text)) return 'must contain at least one letter (a-z)';
  if (text.includes('--')) return 'must not contain consecutive hyphens';
  return text.startsWith('-') || text.endsWith('-') ? 'must not begin or end with a hyphen' : undefined;
};

export function portNumber(value: unknown): string | undefined {
  return Number.isInteger(value) && Number(value) >= 1 && Number(value) <= 65535
    ? undefined
    : 'must be between 1 and 65535, inclusive';
}
