import { PlatformInvalid } from '#spec/image/errors.ts';

/** Where an image runs, in Go's words (image-index.md, `platform`). */
export interface Platform {
  os: string;
  architecture: string;
  variant?: string;
  'os.version'?: string;
  'os.features'?: string[];
}

const ARCHITECTURES: Record<string, [architecture: string, variant?: string]> = {
  x86_64: ['amd64'],
  'x86-64': ['amd64'],
  x64: ['amd64'],
  aarch64: ['arm64'],
  armhf: ['arm', 'v7'],
  armel: ['arm', 'v6'],
  i386: ['386'],
  ia32: ['386'],
  ppc64el: ['ppc64le'],
};

/** Variant that is meant when none is said, so that `linux/arm` finds `arm/v7` and `arm64/v8` is `arm64`. */
const DEFAULT_VARIANT: Record<string, string> = { arm: 'v7', arm64: 'v8', amd64: 'v1' };

/** `linux/arm64/v8`, `linux/amd64`, `arm64`, `linux`; what is left out is the host's. */
export function parsePlatform(text: string, host: Platform): Platform {
  const parts = text.trim().split('/');
  if (parts.length > 3 || parts.some((p) => !/^[A-Za-z0-9_.-]+$/.test(p))) {
    throw new PlatformInvalid({ text, rule: 'it has one to three parts of letters, digits, _ . -' });
  }
  const [first = '', second, third] = parts.map((p) => p.toLowerCase());
  if (second !== undefined) return normalize({ os: first, architecture: second, ...(third ? { variant: third } : {}) });
  if (KNOWN_OS.has(first)) return normalize({ ...host, os: first });
  if (first in ARCHITECTURES || KNOWN_ARCHITECTURES.has(first)) return normalize({ os: host.os, architecture: first });
  throw new PlatformInvalid({ text, rule: 'it names neither an operating system nor an architecture that we know' });
}

const KNOWN_OS = new Set(['linux', 'windows', 'darwin', 'freebsd', 'wasip1']);
const KNOWN_ARCHITECTURES = new Set([
  'amd64',
  'arm64',
  'arm',
  '386',
  'ppc64le',
  's390x',
  'riscv64',
  'loong64',
  'mips64le',
]);

/** One spelling for each platform: Go's architecture names, no variant where it is the default. */
export function normalize(platform: Platform): Platform {
  const [architecture, implied] = ARCHITECTURES[platform.architecture.toLowerCase()] ?? [
    platform.architecture.toLowerCase(),
  ];
  let variant = (platform.variant ?? implied)?.toLowerCase();
  if (variant !== undefined && /^\d/.test(variant)) variant = `v${variant}`;
  if (architecture !== 'arm' && variant === DEFAULT_VARIANT[architecture]) variant = undefined;
  if (architecture === 'arm' && variant === undefined) variant = 'v7';
  const { variant: _, ...rest } = platform;
  return { ...rest, os: platform.os.toLowerCase(), architecture, ...(variant === undefined ? {} : { variant }) };
}

export function formatPlatform({ os, architecture, variant }: Platform): string {
  return [os, architecture, variant].filter((p) => p !== undefined && p !== '').join('/');
}

/** From `process.arch` and, for 32-bit ARM, its version. */
export function hostPlatform(arch: string, armVersion?: number): Platform {
  return normalize({
    os: 'linux',
    architecture: arch,
    ...(armVersion === undefined ? {} : { variant: `v${armVersion}` }),
  });
}

/** What runs on `wanted`, best first: itself, then older variants, then the 32-bit sister. */
export function acceptable(wanted: Platform): Platform[] {
  const base = normalize(wanted);
  const level = Number((base.variant ?? DEFAULT_VARIANT[base.architecture] ?? '').slice(1));
  const older = (lowest: number): Platform[] =>
    Array.from({ length: Math.max(0, level - lowest) }, (_, i) => normalize({ ...base, variant: `v${level - 1 - i}` }));
  switch (base.architecture) {
    case 'amd64':
      return [base, ...older(1), { os: base.os, architecture: '386' }];
    case 'arm64':
      return [
        base,
        ...older(8),
        ...['v8', 'v7', 'v6', 'v5'].map((variant) => ({ os: base.os, architecture: 'arm', variant })),
      ];
    case 'arm':
      return [base, ...older(5)];
    default:
      return [base];
  }
}

/**
 * The entry that suits `wanted` best, or undefined. `exact` leaves the 32-bit sister out: a user who wrote
 * `--platform linux/amd64` does not want a 386 image. Of equals the first wins, as the specification says.
 */
export function choosePlatform<T extends { platform?: Platform | undefined }>(
  entries: readonly T[],
  wanted: Platform,
  rule: { exact?: boolean } = {},
): T | undefined {
  const candidates = acceptable(wanted).filter((p) => !rule.exact || p.architecture === normalize(wanted).architecture);
  for (const candidate of candidates) {
    const found = entries.find((e) => e.platform !== undefined && samePlatform(e.platform, candidate));
    if (found) return found;
  }
  return undefined;
}

export function samePlatform(a: Platform, b: Platform): boolean {
  return formatPlatform(normalize(a)) === formatPlatform(normalize(b));
}
