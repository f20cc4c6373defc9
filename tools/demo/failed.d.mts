export function explain(failure: {
  message: string;
  step: string;
  host: { mirrors: string[]; npmRegistry: string };
  left: string;
  log: string;
}): string;
