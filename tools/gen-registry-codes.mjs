// Makes src/registry/server/codes.gen.ts from the two tables of the OCI distribution specification (v1.1), given as JSON:
//   node tools/gen-registry-codes.mjs error-codes-and-endpoints.json > src/registry/server/codes.gen.ts
import { readFileSync } from 'node:fs';

const { source, errorCodes } = JSON.parse(readFileSync(process.argv[2], 'utf8'));

// Statuses stand in the specification's prose and endpoint table, not beside the codes.
const STATUS = {
  BLOB_UNKNOWN: 404,
  BLOB_UPLOAD_INVALID: 400,
  BLOB_UPLOAD_UNKNOWN: 404,
  DIGEST_INVALID: 400,
  MANIFEST_BLOB_UNKNOWN: 400,
  MANIFEST_INVALID: 400,
  MANIFEST_UNKNOWN: 404,
  NAME_INVALID: 400,
  NAME_UNKNOWN: 404,
  SIZE_INVALID: 400,
  UNAUTHORIZED: 401,
  DENIED: 403,
  UNSUPPORTED: 405,
  TOOMANYREQUESTS: 429,
};

const rows = errorCodes.map(({ code, meaning }) => {
  if (!STATUS[code]) throw new Error(`no HTTP status known for ${code}`);
  return `  ${code}: [${STATUS[code]}, '${meaning.replaceAll("'", "\\'")}'],`;
});
process.stdout.write(`// Made by tools/gen-registry-codes.mjs from ${source}. Do not edit.
/** Error code of the distribution specification: usual HTTP status, meaning. */
export const ERROR_CODES = {
${rows.join('\n')}
} as const;
export type WireCode = keyof typeof ERROR_CODES;
`);
