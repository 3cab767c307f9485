// The neuron view as a drawing.

import { visible } from "../data/reading";
import type { Tensor } from "../data/seen";
import type { Steps } from "../data/steps";
import { draw } from "../dom";
import { type Range, rangeOf } from "../draw/grid";
import { score, weight } from "../draw/numbers";
import { drawnGrid, drawnLegend, sheet, text } from "../draw/pictures";
import type { Page } from "../page";

const ROW = 22;
const TOP = 86;
const STRIP = 190;
const NUMBER = 74;
const GAP = 18;
const NAMES = 120;

export function neuronPicture(steps: Steps, { palette, say }: Page): SVGSVGElement {
  const colours = palette();
  const { keys, bias } = steps;
  const bottom = TOP + keys.length * ROW;
  const height = bottom + ROW + 84;
  const parts: SVGElement[] = [];
  let x = 16 + NAMES;
  const end = { "text-anchor": "end", "font-size": 12 };
  const baseline = (row: number) => TOP + row * ROW + 15;

  const strip = (name: string, tensor: Tensor, range: Range, single?: Tensor, below?: Tensor) => {
    parts.push(text(name, x, 48, colours.quiet, { "font-size": 12 }));
    const box = { x, width: STRIP };
    if (single)
      parts.push(drawnGrid(single, range, colours, { ...box, y: TOP - ROW - 6, height: ROW - 4 }));
    parts.push(drawnGrid(tensor, range, colours, { ...box, y: TOP, height: keys.length * ROW }));
    if (below)
      parts.push(drawnGrid(below, range, colours, { ...box, y: bottom + 6, height: ROW - 4 }));
    parts.push(drawnLegend(range, colours, name, { x, y: bottom + ROW + 30, width: STRIP }));
    x += STRIP + GAP;
  };
  const numbers = (name: string, values: Float32Array, written: (value: number) => string) => {
    parts.push(text(name, x + NUMBER, 48, colours.quiet, end));
    values.forEach((value, row) => {
      const said = steps.hidden[row] && values === steps.scores && bias ? "−∞" : written(value);
      parts.push(text(said, x + NUMBER, baseline(row), colours.ink, end));
    });
    x += NUMBER + GAP;
  };

  const signed = (...tensors: Tensor[]) =>
    rangeOf(Float32Array.from(tensors.flatMap(({ data }) => Array.from(data))), "signed");
  keys.forEach(({ token }, row) => {
    parts.push(text(visible(token), 16 + NAMES - 10, baseline(row), colours.ink, end));
  });
  const query = visible(steps.queries[steps.query]?.token ?? "");
  parts.push(text(`q: ${query}`, 16 + NAMES - 10, TOP - 14, colours.ink, end));
  parts.push(text("z", 16 + NAMES - 10, bottom + 20, colours.ink, end));

  strip("k", steps.k, signed(steps.q, steps.k), steps.q);
  strip("q × k", steps.products, signed(steps.products));
  numbers("q · k", steps.dots, score);
  numbers(bias ? say("neuron.scaled") : say("neuron.score"), steps.scaled, score);
  if (bias) numbers(say("neuron.bias"), bias, score);
  if (bias) numbers(say("neuron.score"), steps.scores, score);
  steps.weights.forEach((value, row) => {
    const [y, width] = [TOP + row * ROW + 3, (NUMBER + 8) * value];
    parts.push(
      draw("rect", {
        x: x - 4,
        y,
        width,
        height: ROW - 6,
        rx: 2,
        fill: colours.accent,
        opacity: 0.25,
      }),
    );
  });
  numbers(say("neuron.weight"), steps.weights, weight);
  strip("v", steps.v, signed(steps.v));
  strip(say("neuron.part"), steps.parts, signed(steps.parts, steps.sum), undefined, steps.sum);

  const { stack, kind, layer } = steps.attention;
  const site = say(kind === "cross" ? "site.cross" : `site.${stack}`);
  const title = `${site} · ${say("layer")} ${layer} · ${say("head")} ${steps.head} · ${say("neuron.query")} ${query}`;
  return sheet(x + 8, height, colours, title, text(title, 16, 24, colours.ink), ...parts);
}
