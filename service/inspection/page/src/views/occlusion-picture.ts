// Classes and what one hangs on, as a drawing.

import { visible } from "../data/reading";
import { draw } from "../dom";
import { type Range, shadeOf } from "../draw/grid";
import { score, share } from "../draw/numbers";
import { css } from "../draw/palette";
import { drawnLegend, sheet, text } from "../draw/pictures";
import type { Page, Scene } from "../page";
import type { ClassScore, Occluded } from "./occlusion";

const ROW = 22;
const MARGIN = 16;
const BARS = { left: 190, width: 260 };
const TOKENS = 560;
const TOP = 56;

export function occlusionPicture(
  scores: readonly ClassScore[],
  tokens: readonly Occluded[],
  range: Range,
  { palette, say }: Page,
  { base, state, question }: Scene,
): SVGSVGElement {
  const colours = palette();
  const label = state.label || (scores[0]?.label ?? "");
  const classes = scores.map((one, place) => {
    const y = TOP + place * ROW;
    return draw(
      "g",
      {},
      text(one.label, BARS.left - 10, y + 15, colours.ink, { "text-anchor": "end" }),
      draw("rect", {
        x: BARS.left,
        y: y + 4,
        width: one.probability * BARS.width,
        height: ROW - 8,
        fill: colours.accent,
      }),
      text(share(one.probability), BARS.left + BARS.width + 8, y + 15, colours.quiet),
    );
  });
  const known = tokens.filter(({ drop }) => drop !== null);
  const rows = known.map(({ token, drop }, place) => {
    const y = TOP + place * ROW;
    const fill = css(colours.diverging[shadeOf(drop ?? 0, range)] ?? 0);
    return draw(
      "g",
      {},
      draw("rect", { x: TOKENS, y: y + 2, width: 18, height: ROW - 4, fill, stroke: colours.line }),
      text(visible(token.token), TOKENS + 28, y + 15, colours.ink),
      text(score(drop ?? 0), TOKENS + 250, y + 15, colours.quiet, { "text-anchor": "end" }),
    );
  });
  const height = TOP + Math.max(classes.length, rows.length) * ROW + 70;
  return sheet(
    TOKENS + 280,
    height,
    colours,
    `${base.answer.model} · ${question.text}`,
    text(`${base.answer.model} · ${visible(question.text).slice(0, 60)}`, MARGIN, 24, colours.ink),
    text(say("occlusion.title", { label }), TOKENS, 24, colours.ink),
    ...classes,
    ...rows,
    drawnLegend(range, colours, say("occlusion.legend"), { x: TOKENS, y: height - 44, width: 220 }),
  );
}
