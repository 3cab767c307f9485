// Links between two columns of tokens: the stronger the weight, the darker the line.

import type { Tensor } from "../data/seen";
import { draw } from "../dom";
import { plain } from "./numbers";

export interface Link {
  readonly query: number;
  readonly key: number;
  readonly weight: number;
  /** Which of the shown heads it is of. */
  readonly series: number;
}

/** Which links are wanted: of these rows or columns alone, where there are any. */
export interface Wanted {
  readonly least: number;
  readonly queries: ReadonlySet<number>;
  readonly keys: ReadonlySet<number>;
}

export function linksOf(patterns: readonly Tensor[], wanted: Wanted): Link[] {
  const { least, queries, keys } = wanted;
  const found: Link[] = [];
  const all = queries.size === 0 && keys.size === 0;
  patterns.forEach(({ shape, data }, series) => {
    const [rows = 0, columns = 0] = shape;
    for (let query = 0; query < rows; query++) {
      if (!all && queries.size > 0 && !queries.has(query)) continue;
      for (let key = 0; key < columns; key++) {
        const weight = data[query * columns + key] ?? 0;
        if (weight < least || weight === 0) continue;
        if (!all && keys.size > 0 && !keys.has(key)) continue;
        found.push({ query, key, weight, series });
      }
    }
  });
  return found;
}

/** Where lines begin and end: rows of `row` pixels at both sides of a field. */
export interface Field {
  readonly width: number;
  readonly height: number;
  readonly row: number;
}

/** The darkness of a weight. */
const opacityOf = (weight: number): number => Math.min(1, 0.06 + 0.94 * weight ** 0.7);
const thicknessOf = (weight: number, row: number): number => (row / 24) * (0.75 + 2.75 * weight);

/** As elements: for few links, and for drawings. */
export function drawnLinks(
  links: readonly Link[],
  field: Field,
  colours: readonly string[],
  left = 0,
  top = 0,
): SVGGElement {
  const lines = [...links]
    .sort((a, b) => a.weight - b.weight)
    .map(({ query, key, weight, series }) =>
      draw("path", {
        d: curve(
          left,
          top + (query + 0.5) * field.row,
          left + field.width,
          top + (key + 0.5) * field.row,
        ),
        fill: "none",
        stroke: colours[series % colours.length] ?? "currentColor",
        "stroke-opacity": opacityOf(weight).toFixed(3),
        "stroke-width": thicknessOf(weight, field.row).toFixed(2),
      }),
    );
  return draw("g", { "stroke-linecap": "round" }, ...lines);
}

function curve(x1: number, y1: number, x2: number, y2: number): string {
  const bend = (x2 - x1) * 0.4;
  return `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
}

const SAMPLES = [0.1, 0.5, 1];
const SAMPLE = 58;

/** What the lines stand for: some weights, each beside its line; 20 pixels high. */
export function drawnLinkKey(ink: string, row: number): SVGGElement {
  const samples = SAMPLES.flatMap((value, place) => {
    const x = place * SAMPLE;
    const line = draw("path", {
      d: `M${x} 10H${x + 26}`,
      stroke: ink,
      "stroke-opacity": opacityOf(value),
      "stroke-width": thicknessOf(value, row),
    });
    return [line, draw("text", { x: x + 31, y: 14, fill: ink, "font-size": 11 }, plain(value))];
  });
  return draw("g", {}, ...samples);
}

/** How many darknesses a canvas has: all lines of one are a single stroke. */
const STEPS = 12;

/** The same on a canvas: for many. */
export function paintLinks(
  canvas: HTMLCanvasElement,
  links: readonly Link[],
  field: Field,
  colours: readonly string[],
): void {
  const sharpness = Math.min(2, devicePixelRatio || 1);
  canvas.width = Math.round(field.width * sharpness);
  canvas.height = Math.round(field.height * sharpness);
  const context = canvas.getContext("2d");
  if (!context) return;
  context.scale(sharpness, sharpness);
  const bend = field.width * 0.4;
  const paths = new Map<number, Path2D>();
  for (const { query, key, weight, series } of links) {
    const step = Math.min(STEPS - 1, Math.floor(weight * STEPS));
    const bucket = step * 64 + series;
    const path = paths.get(bucket) ?? new Path2D();
    paths.set(bucket, path);
    const [from, to] = [(query + 0.5) * field.row, (key + 0.5) * field.row];
    path.moveTo(0, from);
    path.bezierCurveTo(bend, from, field.width - bend, to, field.width, to);
  }
  for (const [bucket, path] of [...paths].sort(([a], [b]) => a - b)) {
    const weight = (Math.floor(bucket / 64) + 0.5) / STEPS;
    context.globalAlpha = opacityOf(weight);
    context.lineWidth = thicknessOf(weight, field.row);
    context.strokeStyle = colours[(bucket % 64) % colours.length] ?? "black";
    context.stroke(path);
  }
}
