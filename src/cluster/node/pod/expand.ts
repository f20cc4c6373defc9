/**
 * `$(NAME)` in command, args, env and subPathExpr: replaced when the name is known, left as it stands when not; `$$` is a dollar
 * that is no reference. As the Kubernetes API defines it (Container.command).
 */
export function expand(text: string, values: ReadonlyMap<string, string>): string {
  return text.replace(/\$\$|\$\(([^)]*)\)/g, (whole, name: string | undefined) => {
    if (name === undefined) return '$';
    return values.get(name) ?? whole;
  });
}
