import type { User } from '../authn/user.ts';

/** One request as everything behind the HTTP edge sees it. */
export interface Context {
  user: User;
  verb: string;
  /** Field manager of writes. */
  manager: string;
  dryRun: boolean;
  fieldValidation: 'Ignore' | 'Warn' | 'Strict';
  /** Sent as `Warning` headers. */
  warnings: string[];
  subresource: string;
}

export function contextFor(user: User, more: Partial<Context> = {}): Context {
  return {
    user,
    verb: '',
    manager: 'apiserver',
    dryRun: false,
    fieldValidation: 'Warn',
    warnings: [],
    subresource: '',
    ...more,
  };
}

const MAX_WARNINGS = 50;

export function warn(context: Context, text: string): void {
  if (context.warnings.length < MAX_WARNINGS && !context.warnings.includes(text)) context.warnings.push(text);
}
