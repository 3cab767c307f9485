// What comes next, as a drawing: the bars, and the lens below them.

import { addedBy, visible } from "../data/reading";
import { draw } from "../dom";
import { drawnHeat } from "../draw/heat-picture";
import type { Heat } from "../draw/heat-table";
import { share } from "../draw/numbers";
import { sheet, text } from "../draw/pictures";
import type { Page } from "../page";
import type { NextScene } from "./next";
import { MOST_BARS } from "./next-bars";

const ROW = 22;
const BARS = { left: 170, width: 360 };
const TOP = 84;
const MARGIN = 16;

export function nextPicture(
  { next, chances, tokens }: NextScene,
  heat: Heat | null,
  { palette, say, store }: Page,
  model: string,
): SVGSVGElement {
  const colours = palette();
  const { temperature, topK, topP } = store.state;
  const texts = addedBy(tokens);
  const written = tokens.map(({ special, token }, at) => (special ? token : texts[at])).join("");
  const sampling = [
    `${say("next.temperature")} ${temperature}`,
    topK > 0 ? `${say("next.top-k")} ${topK}` : "",
    topP < 1 ? `${say("next.top-p")} ${topP}` : "",
  ];
  const rows = next.tokens.slice(0, MOST_BARS).map(({ text: token }, place) => {
    const chance = chances.tokens[place] ?? { tempered: 0, kept: 0 };
    const y = TOP + place * ROW;
    return draw(
      "g",
      {},
      text(visible(token), BARS.left - 10, y + 15, colours.ink, { "text-anchor": "end" }),
      bar(chance.kept, y + 4, ROW - 10, colours.accent),
      bar(chance.tempered, y + ROW - 4, 1.5, colours.quiet),
      text(share(chance.kept), BARS.left + BARS.width + 10, y + 15, colours.quiet),
    );
  });
  const below = TOP + rows.length * ROW + 2 * MARGIN;
  const lens = heat && drawnHeat(heat, colours, MARGIN, below, [64, 20]);
  return sheet(
    Math.max(BARS.left + BARS.width + 80, (lens?.width ?? 0) + 2 * MARGIN),
    below + (lens?.height ?? 0) + MARGIN,
    colours,
    `${model} · ${say("view.next")}`,
    text(`${model} · ${say("view.next")}`, MARGIN, 24, colours.ink),
    text(`${visible(written).slice(-90)} →`, MARGIN, 46, colours.ink),
    text(sampling.filter(Boolean).join(" · "), MARGIN, 66, colours.quiet, { "font-size": 11 }),
    ...rows,
    lens?.part ?? null,
  );
}

function bar(part: number, y: number, height: number, fill: string): SVGRectElement {
  return draw("rect", { x: BARS.left, y, width: Math.max(0, part * BARS.width), height, fill });
}
