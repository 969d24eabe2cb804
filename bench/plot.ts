/** Plots as SVG, without a library. */

const FONT = `font-family="sans-serif" font-size="12"`;
const COLOURS = ["#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#17becf", "#7f7f7f"];

const escape = (text: string): string => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const text = (x: number, y: number, what: string, more = ""): string =>
  `<text x="${round(x)}" y="${round(y)}" ${more}>${escape(what)}</text>`;
const line = (x1: number, y1: number, x2: number, y2: number, stroke = "#333"): string =>
  `<line x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}" stroke="${stroke}"/>`;
const round = (value: number): string => value.toFixed(1);

const svg = (width: number, height: number, parts: readonly string[]): string =>
  `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" ${FONT}>
<rect width="100%" height="100%" fill="#fff"/>
${parts.join("\n")}
</svg>
`;

/** 1, 2 or 5 times a power of ten: about `count` steps up to `max`. */
export function ticks(max: number, count = 5): number[] {
  const rough = (max > 0 ? max : 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  return Array.from({ length: Math.ceil(max / step) + 1 }, (_, n) => n * step);
}

export const short = (value: number): string =>
  value >= 10_000
    ? `${(value / 1_000).toFixed(0)}k`
    : value >= 100
      ? value.toFixed(0)
      : value >= 10
        ? value.toFixed(1)
        : value.toFixed(2).replace(/\.?0+$/, "");

export interface Bar {
  label: string;
  value: number;
  min: number;
  max: number;
}

/** Horizontal bars, each with a whisker from its minimum to its maximum. */
export function bars(title: string, unit: string, all: readonly Bar[]): string {
  const [width, left, right, top, step] = [760, 190, 80, 50, 30];
  const steps = ticks(Math.max(...all.map((bar) => bar.max)));
  const end = steps.at(-1) ?? 1;
  const x = (value: number): number => left + ((width - left - right) * value) / end;
  const bottom = top + step * all.length;
  const parts = [text(left, 22, title, `font-size="15" font-weight="bold"`)];
  for (const value of steps)
    parts.push(line(x(value), top - 5, x(value), bottom, "#ddd"), text(x(value), bottom + 16, short(value), `text-anchor="middle"`));
  all.forEach((bar, n) => {
    const y = top + n * step;
    const middle = y + 10;
    parts.push(
      text(left - 8, middle + 4, bar.label, `text-anchor="end"`),
      `<rect x="${left}" y="${y}" width="${round(Math.max(0, x(bar.value) - left))}" height="20" fill="${COLOURS[n % COLOURS.length] ?? ""}"/>`,
      line(x(bar.min), middle, x(bar.max), middle),
      line(x(bar.min), middle - 5, x(bar.min), middle + 5),
      line(x(bar.max), middle - 5, x(bar.max), middle + 5),
      text(x(bar.max) + 8, middle + 4, short(bar.value)),
    );
  });
  parts.push(text(width - right, bottom + 36, unit, `text-anchor="end" fill="#555"`));
  return svg(width, bottom + 46, parts);
}

export interface Series {
  name: string;
  /** x, y */
  points: readonly (readonly [number, number])[];
}

export interface Axes {
  x: string;
  y: string;
  /** Labelled vertical marks, such as the start of an overload. */
  marks?: readonly { at: number; label: string }[];
}

/** Line chart with a common x axis; both axes start at zero. */
export function lines(title: string, series: readonly Series[], axes: Axes): string {
  const [width, height, left, right, top, bottom] = [860, 380, 70, 190, 50, 50];
  const points = series.flatMap((one) => one.points);
  const xs = ticks(Math.max(0, ...points.map(([x]) => x)), 8);
  const ys = ticks(Math.max(0, ...points.map(([, y]) => y)));
  const [endX, endY] = [xs.at(-1) ?? 1, ys.at(-1) ?? 1];
  const x = (value: number): number => left + ((width - left - right) * value) / endX;
  const y = (value: number): number => height - bottom - ((height - top - bottom) * value) / endY;
  const parts = [text(left, 22, title, `font-size="15" font-weight="bold"`)];
  for (const value of xs) parts.push(text(x(value), height - bottom + 18, short(value), `text-anchor="middle"`));
  for (const value of ys)
    parts.push(line(left, y(value), width - right, y(value), "#ddd"), text(left - 8, y(value) + 4, short(value), `text-anchor="end"`));
  for (const { at, label } of axes.marks ?? [])
    parts.push(line(x(at), top, x(at), height - bottom, "#999"), text(x(at) + 3, top - 4, label, `fill="#555"`));
  series.forEach((one, n) => {
    const colour = COLOURS[n % COLOURS.length] ?? "";
    const path = one.points.map(([px, py]) => `${round(x(px))},${round(y(py))}`).join(" ");
    parts.push(
      `<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="1.6"/>`,
      line(width - right + 12, top + 10 + n * 20, width - right + 32, top + 10 + n * 20, colour),
      text(width - right + 38, top + 14 + n * 20, one.name),
    );
  });
  parts.push(text(width - right, height - 12, axes.x, `text-anchor="end" fill="#555"`), text(left - 60, 40, axes.y, `fill="#555"`));
  return svg(width, height, parts);
}
