import type { BuildGraph, StepId } from '#build/graph.ts';
import type { BuildWarning } from '#spec/dockerfile/errors.ts';

/** What a build tells while it runs, in order. Times in milliseconds. */
export type BuildEvent =
  | { at: 'planned'; graph: BuildGraph }
  | { at: 'warning'; warning: BuildWarning; excerpt: string }
  | { at: 'start'; step: StepId }
  | { at: 'cached'; step: StepId }
  /** `layer`: what the step added, if anything. */
  | { at: 'done'; step: StepId; tookMs: number; layer?: string }
  | { at: 'failed'; step: StepId }
  | { at: 'output'; step: StepId; stream: 'stdout' | 'stderr'; text: Buffer }
  | { at: 'note'; text: string };

export type Tell = (event: BuildEvent) => void;
