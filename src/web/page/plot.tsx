import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import { usePage } from './context.ts';
import { bytes, percent } from './format.ts';
import type { Series } from './store.ts';

const HEIGHT = 150;
const WINDOW_S = { least: 60, most: 300 };

interface PlotProps {
  id: string;
  of: 'cpu' | 'memory';
  title: string;
  /** As now, beside the title. */
  value: string;
  /** What the line cannot pass: drawn, when it is near enough to be seen. */
  limit?: number;
}

/** CPU or memory of one thing over the last five minutes, moving. */
export function Plot({ id, of, title, value, limit }: PlotProps) {
  const { store } = usePage();
  const holder = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = holder.current;
    if (!element) return;
    let plot = draw(element, of, store.series(id), limit);
    const redraw = (): void => {
      plot.destroy();
      plot = draw(element, of, store.series(id), limit);
    };
    const resized = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: HEIGHT }));
    resized.observe(element);
    const scheme = matchMedia('(prefers-color-scheme: dark)');
    scheme.addEventListener('change', redraw);
    const unwatch = store.watch('figures', () => plot.setData(dataOf(of, store.series(id))));
    return () => {
      unwatch();
      scheme.removeEventListener('change', redraw);
      resized.disconnect();
      plot.destroy();
    };
  }, [id, of, limit, store]);
  return (
    <figure class="plot">
      <figcaption>
        <span>{title}</span>
        <span class="number strong">{value}</span>
      </figcaption>
      <div ref={holder} class="plot-area" data-testid={`plot-${of}`} />
    </figure>
  );
}

function dataOf(of: 'cpu' | 'memory', series: Series): uPlot.AlignedData {
  return [series.at, series[of]];
}

function draw(element: HTMLElement, of: 'cpu' | 'memory', series: Series, limit: number | undefined): uPlot {
  const style = getComputedStyle(element);
  const color = (name: string): string => style.getPropertyValue(name).trim();
  const line = color(of === 'cpu' ? '--cpu' : '--memory');
  const axis: uPlot.Axis = {
    stroke: color('--muted'),
    grid: { stroke: color('--line'), width: 1 },
    ticks: { show: false },
    font: '11px system-ui, sans-serif',
  };
  const least = of === 'cpu' ? 5 : 4 << 20;
  return new uPlot(
    {
      width: element.clientWidth,
      height: HEIGHT,
      padding: [8, 24, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { size: 6 } },
      scales: {
        x: { time: true, range: (_, min, max) => windowOf(min || Date.now() / 1000, max || Date.now() / 1000) },
        y: { range: (_, __, max) => [0, topOf(Math.max(max || 0, least), limit)] },
      },
      axes: [
        {
          ...axis,
          size: 26,
          space: 80,
          values: (_, at) => at.map((s) => new Date(s * 1000).toTimeString().slice(0, 8)),
        },
        {
          ...axis,
          size: 64,
          space: 34,
          ...(of === 'memory' ? { incrs: MEMORY_STEPS } : {}),
          values: (_, at) => at.map((v) => (of === 'cpu' ? percent(v).replace('.0', '') : bytes(v).replace('.0', ''))),
        },
      ],
      series: [{}, { stroke: line, fill: `${line}22`, width: 1.5, points: { show: false } }],
    },
    dataOf(of, series),
    element,
  );
}

/** Grows with what is known, so that the first minute is not a point in a corner. */
function windowOf(firstS: number, lastS: number): [number, number] {
  return [lastS - Math.min(WINDOW_S.most, Math.max(WINDOW_S.least, lastS - firstS)), lastS];
}

const MEMORY_STEPS = Array.from({ length: 24 }, (_, i) => 2 ** (20 + i));

function topOf(max: number, limit: number | undefined): number {
  return limit !== undefined && max > limit / 2 ? limit * 1.05 : max * 1.15;
}
