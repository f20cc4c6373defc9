import { COMMANDS, type CommandRow, type FlagRow, GLOBAL_FLAGS } from '#runtime/cli/table.ts';
import { OCI_VERSION } from '#spec/oci/config.ts';

export interface Version {
  version: string;
  commit: string;
}

/** Three lines as runc prints them: dockerd and containerd's tools parse `runc version`, `commit:` and `spec:`. */
export function versionText({ version, commit }: Version): string {
  return `runc version ${version}+estiba\ncommit: ${commit}\nspec: ${OCI_VERSION}\n`;
}

// The layout is runc's, since its users' scripts read it: NAME, then the line with name and purpose.
export function globalHelp(): string {
  return [
    'NAME:',
    '   runc - Open Container Initiative runtime (estiba-oci)',
    '',
    'Runs containers from bundles: a directory with config.json and a root file system.',
    '',
    '    estiba-oci run [ -b bundle ] <container-id>',
    '',
    'USAGE:',
    '   estiba-oci [global options] command [command options] [arguments...]',
    '',
    'COMMANDS:',
    ...columns(COMMANDS.map((row) => [row.name, row.usage])),
    '',
    'GLOBAL OPTIONS:',
    ...columns(GLOBAL_FLAGS.map(flagLine)),
    '',
  ].join('\n');
}

export function commandHelp(row: CommandRow): string {
  return [
    'NAME:',
    `   runc ${row.name} - ${row.usage}`,
    '',
    'USAGE:',
    `   estiba-oci ${row.name} [command options] ${row.args}`,
    '',
    ...(row.flags.length === 0 ? [] : ['OPTIONS:', ...columns(row.flags.map(flagLine)), '']),
  ].join('\n');
}

function flagLine(row: FlagRow): [string, string] {
  const value = row.value ? ' value' : '';
  const short = row.short ? `, -${row.short}${value}` : '';
  return [`--${row.name}${value}${short}`, row.usage];
}

function columns(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `   ${left.padEnd(width)}  ${right}`);
}
