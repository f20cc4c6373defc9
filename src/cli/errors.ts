import { defineError } from '#base/errors.ts';

export const CliUsage = defineError('CLI_USAGE', (d: { why: string; see?: string }) => ({
  message: d.why,
  ...(d.see === undefined ? {} : { hint: `see '${d.see} --help'` }),
}));

/** A program's exit code is ours: `run`, `exec`, `start -a`. */
export const ExitWith = defineError('CLI_EXIT', (d: { code: number; says: string }) => ({ message: d.says }));

export const HelperFailed = defineError('CLI_CREDENTIAL_HELPER', (d: { helper: string; why: string }) => ({
  message: `docker-credential-${d.helper} fails: ${d.why}`,
  hint: 'mend or remove credsStore and credHelpers in ~/.docker/config.json',
}));

export const TemplateInvalid = defineError('CLI_TEMPLATE', (d: { problem: string }) => ({
  message: `--format: ${d.problem}`,
}));
