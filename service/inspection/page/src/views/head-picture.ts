// The head view as a drawing.

import { draw } from "../dom";
import { drawnLinks, type Link } from "../draw/links";
import type { Page } from "../page";
import type { HeadScene } from "./head";

const ROW = 24;
const SIDE = 150;
const MIDDLE = 320;
const TOP = 64;
/** More lines than that would make a drawing that nothing opens. */
const MOST_LINES = 20_000;

export function headPicture(
  shown: HeadScene,
  links: readonly Link[],
  { palette, say }: Page,
  model: string,
): SVGSVGElement {
  const colours = palette();
  const rows = Math.max(shown.queries.length, shown.keys.length);
  const [width, height] = [2 * SIDE + MIDDLE, TOP + rows * ROW + 16];
  const text = (x: number, y: number, anchor: string, content: string, fill = colours.ink) =>
    draw("text", { x, y, "text-anchor": anchor, fill }, content);
  const strongest = [...links].sort((a, b) => b.weight - a.weight).slice(0, MOST_LINES);
  const { stack, kind, layer } = shown.attention;
  const site = say(kind === "cross" ? "site.cross" : `site.${stack}`);
  const title = `${model} · ${site} · ${say("layer")} ${layer} · ${say("heads")} ${shown.heads.join(", ")}`;
  return draw(
    "svg",
    {
      xmlns: "http://www.w3.org/2000/svg",
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      "font-family": colours.font,
      "font-size": 13,
      role: "img",
    },
    draw("title", {}, title),
    draw("rect", { width, height, fill: colours.paper }),
    text(16, 24, "start", title),
    text(SIDE - 10, TOP - 12, "end", say("head.queries"), colours.quiet),
    text(SIDE + MIDDLE + 10, TOP - 12, "start", say("head.keys"), colours.quiet),
    ...shown.queries.map(({ label }, place) =>
      text(SIDE - 10, TOP + (place + 0.68) * ROW, "end", label),
    ),
    ...shown.keys.map(({ label }, place) =>
      text(SIDE + MIDDLE + 10, TOP + (place + 0.68) * ROW, "start", label),
    ),
    drawnLinks(
      strongest,
      { width: MIDDLE, height: rows * ROW, row: ROW },
      colours.series,
      SIDE,
      TOP,
    ),
  );
}
