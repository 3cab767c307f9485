// The head view as a drawing.

import { draw } from "../dom";
import { drawnLinkKey, drawnLinks, type Link } from "../draw/links";
import { sheet, text } from "../draw/pictures";
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
  const [width, height] = [2 * SIDE + MIDDLE, TOP + rows * ROW + 44];
  const end = { "text-anchor": "end" };
  const strongest = [...links].sort((a, b) => b.weight - a.weight).slice(0, MOST_LINES);
  const { stack, kind, layer } = shown.attention;
  const site = say(kind === "cross" ? "site.cross" : `site.${stack}`);
  const title = `${model} · ${site} · ${say("layer")} ${layer} · ${say("heads")} ${shown.heads.join(", ")}`;
  const [before, after] = [SIDE - 10, SIDE + MIDDLE + 10];
  const baseline = (place: number) => TOP + (place + 0.68) * ROW;
  const field = { width: MIDDLE, height: rows * ROW, row: ROW };
  return sheet(
    width,
    height,
    colours,
    title,
    text(title, 16, 24, colours.ink),
    text(say("head.queries"), before, TOP - 12, colours.quiet, end),
    text(say("head.keys"), after, TOP - 12, colours.quiet),
    ...shown.queries.map(({ label }, place) =>
      text(label, before, baseline(place), colours.ink, end),
    ),
    ...shown.keys.map(({ label }, place) => text(label, after, baseline(place), colours.ink)),
    draw(
      "g",
      { transform: `translate(${SIDE + 10} ${height - 28})` },
      text(say("legend.weight"), -SIDE + 6, 14, colours.quiet, { "font-size": 11 }),
      drawnLinkKey(colours.quiet, ROW),
    ),
    drawnLinks(strongest, field, colours.series, SIDE, TOP),
  );
}
