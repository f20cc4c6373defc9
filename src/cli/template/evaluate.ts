import { TemplateInvalid } from '#cli/errors.ts';
import { type Node, type Operand, type Pipe, parseTemplate } from '#cli/template/parse.ts';

type Function_ = (...args: unknown[]) => unknown;

interface Scope {
  dot: unknown;
  variables: ReadonlyMap<string, unknown>;
}

/** Compiles a template once; the answer prints it for a value. */
export function compileTemplate(source: string): (value: unknown) => string {
  const nodes = parseTemplate(source);
  return (value) => printNodes(nodes, { dot: value, variables: new Map([['', value]]) });
}

function printNodes(nodes: readonly Node[], scope: Scope): string {
  let out = '';
  let here = scope;
  for (const node of nodes) {
    if (node.is === 'text') out += node.text;
    else if (node.is === 'print') out += show(evaluate(node.pipe, here));
    else if (node.is === 'set')
      here = { ...here, variables: new Map(here.variables).set(node.name, evaluate(node.pipe, here)) };
    else out += printBlock(node, here);
  }
  return out;
}

function printBlock(node: Extract<Node, { is: 'if' | 'with' | 'range' }>, scope: Scope): string {
  const value = evaluate(node.pipe, scope);
  if (node.is === 'range') return printRange(node, value, scope);
  if (!truth(value)) return printNodes(node.otherwise, scope);
  const named = node.names[0] === undefined ? scope.variables : new Map(scope.variables).set(node.names[0], value);
  return printNodes(node.body, { dot: node.is === 'with' ? value : scope.dot, variables: named });
}

function printRange(node: Extract<Node, { is: 'if' | 'with' | 'range' }>, value: unknown, scope: Scope): string {
  const entries: [unknown, unknown][] = Array.isArray(value)
    ? value.map((item, i) => [i, item])
    : isMap(value)
      ? Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
      : value === null || value === undefined
        ? []
        : no(`range can't iterate over ${show(value)}`);
  if (entries.length === 0) return printNodes(node.otherwise, scope);
  return entries
    .map(([key, item]) => {
      const variables = new Map(scope.variables);
      const [first, second] = node.names;
      if (second !== undefined) variables.set(first ?? '', key).set(second, item);
      else if (first !== undefined) variables.set(first, item);
      return printNodes(node.body, { dot: item, variables });
    })
    .join('');
}

function evaluate(pipe: Pipe, scope: Scope): unknown {
  let piped: unknown[] = [];
  for (const call of pipe) piped = [evaluateCall(call, piped, scope)];
  return piped[0];
}

function evaluateCall([first, ...rest]: Operand[], piped: unknown[], scope: Scope): unknown {
  if (!first) return undefined;
  const args = rest.map((operand) => valueOf(operand, scope));
  if (first.is === 'word') {
    const call = FUNCTIONS[first.word] ?? no(`function "${first.word}" not defined`);
    return call(...args, ...piped);
  }
  const value = valueOf(first, scope);
  // `.Label "name"`: rows offer a few methods.
  if (typeof value === 'function') return (value as Function_)(...args, ...piped);
  return args.length + piped.length === 0 ? value : no(`can't give argument to non-function ${show(value)}`);
}

function valueOf(operand: Operand, scope: Scope): unknown {
  switch (operand.is) {
    case 'literal':
      return operand.value;
    case 'word':
      return (FUNCTIONS[operand.word] ?? no(`function "${operand.word}" not defined`))();
    case 'field': {
      const { of, path } = operand;
      let at = of === '.' ? scope.dot : 'pipe' in of ? evaluate(of.pipe, scope) : variable(of.variable, scope);
      for (const name of path) at = field(at, name);
      return at;
    }
  }
}

function variable(name: string, { variables }: Scope): unknown {
  return variables.has(name) ? variables.get(name) : no(`undefined variable $${name}`);
}

function field(of: unknown, name: string): unknown {
  if (of === null || of === undefined) return no(`nil data; no entry for key "${name}"`);
  if (typeof of !== 'object') return no(`can't evaluate field ${name} in ${show(of)}`);
  const object = of as Record<string, unknown>;
  if (Object.hasOwn(object, name)) return object[name];
  // Inspected objects are shown as the server sent them: a field that is not there is a mistake of the one who asks.
  return no(`map has no entry for key "${name}"`);
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function truth(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0;
  return isMap(value) ? Object.keys(value).length > 0 : Boolean(value);
}

function no(problem: string): never {
  throw new TemplateInvalid({ problem });
}

/** As Go's fmt prints: `map[a:1 b:2]`, `[x y]`, `<no value>`. */
export function show(value: unknown): string {
  if (value === undefined || value === null) return '<no value>';
  if (Array.isArray(value)) return `[${value.map(show).join(' ')}]`;
  if (!isMap(value)) return String(value);
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `map[${entries.map(([k, v]) => `${k}:${show(v)}`).join(' ')}]`;
}

const FUNCTIONS: Readonly<Record<string, Function_>> = {
  json: (value) => JSON.stringify(value ?? null),
  join: (list, separator) => (Array.isArray(list) ? list.map(show).join(String(separator)) : no('join wants a list')),
  split: (text, separator) => String(text).split(String(separator)),
  upper: (text) => String(text).toUpperCase(),
  lower: (text) => String(text).toLowerCase(),
  title: (text) => String(text).replace(/\b\p{L}/gu, (c) => c.toUpperCase()),
  pad: (text, before, after) => `${' '.repeat(Number(before))}${String(text)}${' '.repeat(Number(after))}`,
  truncate: (text, length) => [...String(text)].slice(0, Number(length)).join(''),
  println: (...args) => `${args.map(show).join(' ')}\n`,
  print: (...args) => args.map(show).join(''),
  printf: (format, ...args) => printf(String(format), args),
  table: () => '',
  len: (value) =>
    typeof value === 'string' || Array.isArray(value) ? value.length : Object.keys(Object(value)).length,
  index: (value, ...keys) =>
    keys.reduce(
      (at: unknown, key) =>
        at === null || at === undefined ? undefined : (at as Record<string, unknown>)[String(key)],
      value,
    ),
  slice: (value, from = 0, to) =>
    typeof value === 'string' || Array.isArray(value)
      ? value.slice(Number(from), to === undefined ? undefined : Number(to))
      : no('slice wants text or a list'),
  not: (value) => !truth(value),
  and: (...args) => args.find((a) => !truth(a)) ?? args.at(-1),
  or: (...args) => args.find(truth) ?? args.at(-1),
  eq: (first, ...others) => others.some((o) => o === first),
  ne: (a, b) => a !== b,
  lt: (a, b) => Number(a) < Number(b),
  le: (a, b) => Number(a) <= Number(b),
  gt: (a, b) => Number(a) > Number(b),
  ge: (a, b) => Number(a) >= Number(b),
};

function printf(format: string, args: unknown[]): string {
  const queue = [...args];
  return format.replace(
    /%(-?)(0?)(\d*)(?:\.(\d+))?([a-zA-Z%])/g,
    (_, left: string, zero: string, width: string, precision: string | undefined, verb: string) => {
      if (verb === '%') return '%';
      const value = queue.shift();
      const text =
        verb === 'q'
          ? JSON.stringify(show(value))
          : verb === 'f'
            ? Number(value).toFixed(precision === undefined ? 6 : Number(precision))
            : verb === 'x'
              ? Number(value).toString(16)
              : verb === 's' || verb === 'd' || verb === 'v' || verb === 't'
                ? show(value)
                : no(`printf knows no %${verb}`);
      const cut = verb === 's' && precision !== undefined ? text.slice(0, Number(precision)) : text;
      const size = Number(width || 0);
      return left ? cut.padEnd(size) : cut.padStart(size, zero ? '0' : ' ');
    },
  );
}
