import { openCluster } from '#cli/cluster.ts';
import { ExitWith } from '#cli/errors.ts';
import { alignColumns, printInspected } from '#cli/output.ts';
import type { Command, Flags, Io } from '#cli/verb.ts';
import { explainObject } from '#up/why/explain.ts';
import { renderFindings } from '#up/why/finding.ts';

// Answers of `/estiba/v1/…`, as far as they are printed; `engine/core/insight` says all of them.
interface XrayLine {
  topic: string;
  name?: string;
  value: string;
  because: string;
  wished?: string;
}
interface XrayAnswer {
  container: { id: string; name: string; image: string; phase: string; pid: number };
  sees: XrayLine[];
  mayDo: XrayLine[];
  mayUse: XrayLine[];
}
interface Finding {
  code: string;
  fact: string;
  cause: string;
  evidence: string[];
  next: string[];
}
interface AuditAnswer {
  findings: { kind: string; what: string; where: string; because: string; cleanup?: string }[];
  looked: { what: string; count: number }[];
}
interface ExposedAnswer {
  ports: {
    container: string;
    containerPort: number;
    protocol: string;
    hostPort: number;
    reach: string;
    answersAt: string[];
    from: { at: string[]; ways: { links: string[]; open: string[]; depends: string[] }[] }[];
    unjudged: string[];
    listening: boolean;
    because: string;
  }[];
  onHost: { container: string; because: string }[];
  firewall: { where: string; says: string; fix: string }[];
}

export const xrayCommand: Command = async ({ flags, args, io, engine }) => {
  const answer = await engine.json<XrayAnswer>({ path: `/estiba/v1/xray/${encodeURIComponent(args[0] ?? '')}` });
  if (flags.on('json')) io.stdout.write(`${JSON.stringify(answer)}\n`);
  else if (flags.has('format')) printInspected(io, flags, [answer]);
  else io.stdout.write(renderXray(answer));
  return 0;
};

/** Three sections of lines, each with its reason; `!` marks what the kernel has otherwise than it was wished. */
function renderXray({ container: c, sees, mayDo, mayUse }: XrayAnswer): string {
  const section = (title: string, lines: readonly XrayLine[]): string =>
    `\n${title}\n${alignColumns(lines.map(renderLine))}`;
  const head = `${c.name} (${c.id.slice(0, 12)}) of ${c.image}, ${c.phase}${c.pid > 0 ? `, pid ${c.pid}` : ''}\n`;
  return `${head}${section('sees', sees)}${section('may do', mayDo)}${section('may use', mayUse)}`;
}

function renderLine({ topic, name, value, because, wished }: XrayLine): string {
  const mark = wished === undefined ? ' ' : '!';
  return `${mark} ${topic}${name === undefined ? '' : ` ${name}`}\t${value}${wished === undefined ? '' : `, wished ${wished}`}\t(${because})`;
}

type Way = ExposedAnswer['ports'][number]['from'][number]['ways'][number];

/** Nothing where the host's firewall lets everybody in. */
function waysText(at: readonly string[], ways: readonly Way[]): string {
  const isAll = (way: Way): boolean => way.open[0] === 'anywhere' || way.open[0] === 'this host';
  if (ways.every(isAll)) return '';
  const lines = ways.map(({ links, open, depends }) => {
    const may = depends.length > 0 ? [`perhaps ${depends.join(', ')}`] : [];
    const who = [...open, ...may].join(', ') || 'nobody';
    return `      by ${links.map((link) => (link === '*' ? 'any other link' : link)).join(', ')}: ${who}\n`;
  });
  return `    the host's firewall lets in, at ${at.join(' ')}:\n${lines.join('')}`;
}

export const exposedCommand: Command = async ({ flags, io, engine }) => {
  const answer = await engine.json<ExposedAnswer>({ path: '/estiba/v1/exposed' });
  if (flags.on('json')) {
    io.stdout.write(`${JSON.stringify(answer)}\n`);
    return 0;
  }
  for (const p of answer.ports) {
    const deaf = p.listening ? '' : ', and nobody listens';
    io.stdout.write(
      `${p.hostPort}/${p.protocol} → ${p.container}:${p.containerPort}: ${p.reach}${deaf}   (${p.because})\n`,
    );
    io.stdout.write(`    ${p.answersAt.join(' ')}\n`);
    io.stdout.write(p.from.map(({ at, ways }) => waysText(at, ways)).join(''));
    if (p.unjudged.length > 0)
      io.stdout.write(`    ${p.unjudged.join(' ')}: the host's firewall tells more sources apart than are looked at\n`);
  }
  for (const { container, because } of answer.onHost)
    io.stdout.write(`${container}: every port it opens is the host's   (${because})\n`);
  for (const { where, says, fix } of answer.firewall) io.stdout.write(`firewall ${where}: ${says}\n    ${fix}\n`);
  if (answer.ports.length + answer.onHost.length === 0) io.stdout.write('nothing is exposed\n');
  return 0;
};

/** Exit code 1 when something lies about, so that a script can ask. */
export const auditCommand: Command = async ({ flags, io, engine }) => {
  const clean = flags.on('clean');
  const answer = await engine.json<AuditAnswer>(
    clean ? { method: 'POST', path: '/estiba/v1/audit', query: { clean: 1 } } : { path: '/estiba/v1/audit' },
  );
  if (flags.on('json')) io.stdout.write(`${JSON.stringify(answer)}\n`);
  else {
    for (const { kind, what, where, because, cleanup } of answer.findings)
      io.stdout.write(
        `${kind}: ${what} ${where}\n    ${because}${cleanup === undefined ? '' : `\n    ${clean ? 'done' : 'would help'}: ${cleanup}`}\n`,
      );
    const looked = answer.looked.map(({ what, count }) => `${count} ${what}`).join(', ');
    io.stdout.write(
      `${answer.findings.length === 0 ? 'nothing amiss' : `${answer.findings.length} findings`}; looked at ${looked}\n`,
    );
  }
  return answer.findings.length === 0 ? 0 : 1;
};

export const showCommand: Command = async ({ flags, args, io, engine }) => {
  const body = await engine.open({
    path: `/estiba/v1/show/${encodeURIComponent(args[0] ?? '')}`,
    query: { as: flags.text('as') ?? 'docker-run' },
  });
  for await (const chunk of body) io.stdout.write(chunk as Buffer);
  return 0;
};

const KINDS =
  /^(pod|po|service|svc|ingress|ing|pvc|persistentvolumeclaim|deployment|deploy|statefulset|sts|daemonset|ds|job)s?\/(.+)$/;

/** `estiba why CONTAINER`, or of a cluster `pod/NAME`, `svc/NAME`, `ingress/NAME`, `pvc/NAME`, `deployment/NAME`. */
export const whyCommand: Command = async ({ flags, args, io, engine, global }) => {
  const [name = ''] = args;
  const [, kind, object] = KINDS.exec(name) ?? [];
  if (kind !== undefined && object !== undefined) {
    using open = openCluster(flags, global, io);
    const namespace = open.namespace ?? 'default';
    const findings = await explainObject(open.cluster.client, kind, object, namespace);
    if (findings === undefined)
      throw new ExitWith({ code: 1, says: `there is no ${kind} ${object} in namespace ${namespace}` });
    tell(findings, flags, io, () => renderFindings(name, findings));
    return 0;
  }
  const answer = await engine.json<{ findings: Finding[] }>({
    path: `/estiba/v1/why/${encodeURIComponent(name)}`,
    query: { port: flags.int('port') },
  });
  tell(answer.findings, flags, io, () =>
    renderFindings(
      name,
      answer.findings.map((f) => ({ ...f, level: 'info', next: f.next.join('; ') })),
    ),
  );
  return 0;
};

function tell(findings: readonly object[], flags: Flags, io: Io, render: () => string): void {
  io.stdout.write(flags.on('json') ? `${JSON.stringify(findings)}\n` : render());
}
