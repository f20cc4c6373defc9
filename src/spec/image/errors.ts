import { defineError } from '#base/errors.ts';

export const DigestInvalid = defineError('DIGEST_INVALID', (d: { text: string }) => ({
  message: `${JSON.stringify(d.text.slice(0, 160))} is not a digest`,
  hint: 'digests look like sha256:<64 lower-case hex digits> or sha512:<128>',
}));

export const ReferenceInvalid = defineError('REFERENCE_INVALID', (d: { text: string; rule: string }) => ({
  message: `invalid reference format: ${JSON.stringify(d.text.slice(0, 300))}: ${d.rule}`,
  hint: 'references look like [registry[:port]/]path[:tag][@sha256:…], the path in lower case',
}));

export const PlatformInvalid = defineError('PLATFORM_INVALID', (d: { text: string; rule: string }) => ({
  message: `${JSON.stringify(d.text.slice(0, 100))} is not a platform: ${d.rule}`,
  hint: 'platforms look like linux/amd64 or linux/arm64/v8',
}));

export const ManifestInvalid = defineError('MANIFEST_INVALID', (d: { what: string; rule: string }) => ({
  message: `${d.what}: ${d.rule}`,
}));

export const MediaTypeUnsupported = defineError('MEDIA_TYPE_UNSUPPORTED', (d: { what: string; mediaType: string }) => ({
  message: `${d.what}: media type ${JSON.stringify(d.mediaType.slice(0, 120))} is not one we read`,
  hint: d.mediaType.includes('manifest.v1+')
    ? 'Docker schema 1 has been retired everywhere; push the image again with a current tool'
    : 'images are OCI 1.x or Docker schema 2, their layers tar, tar+gzip or tar+zstd',
}));
