// The model view as a drawing.

import { draw } from "../dom";
import { rangeOf, shrunk } from "../draw/grid";
import { drawnGrid, drawnLegend, sheet, text } from "../draw/pictures";
import type { Page } from "../page";
import type { HeadMap } from "./map-preview";

const CELL = 64;
const GAP = 6;
const LEFT = 56;
const TOP = 76;
const MOST_PIXELS = 64;

export function modelPicture(
  maps: readonly (readonly (HeadMap | null)[])[],
  model: string,
  { palette, say }: Page,
): SVGSVGElement {
  const colours = palette();
  const step = CELL + GAP;
  const heads = maps[0]?.length ?? 0;
  const width = Math.max(420, LEFT + heads * step + 16);
  const height = TOP + maps.length * step + 60;
  const attention = maps.flat().find((map) => map !== null)?.attention;
  const site = attention
    ? say(attention.kind === "cross" ? "site.cross" : `site.${attention.stack}`)
    : "";
  const title = `${model} · ${site} · ${say("view.model")}`;
  const names = { "text-anchor": "middle", "font-size": 12 };
  const columns = Array.from({ length: heads }, (_, head) =>
    text(String(head), LEFT + head * step + CELL / 2, TOP - 10, colours.quiet, names),
  );
  const rows = maps.flatMap((row, layer) => [
    text(String(layer), LEFT - 12, TOP + layer * step + CELL / 2 + 4, colours.quiet, {
      "text-anchor": "end",
      "font-size": 12,
    }),
    ...row.map((map, head) => {
      const box = { x: LEFT + head * step, y: TOP + layer * step, width: CELL, height: CELL };
      if (!map) return draw("rect", { ...box, fill: "none", stroke: colours.line });
      const range = rangeOf(map.matrix.data, "weights");
      return drawnGrid(shrunk(map.matrix, MOST_PIXELS), range, colours, box);
    }),
  ]);
  const legend = drawnLegend(
    { kind: "weights", most: 1 },
    colours,
    `${say("legend.weight")}, ${say("legend.root")}, ${say("legend.own")}`,
    { x: LEFT, y: height - 36, width: 240 },
  );
  return sheet(
    width,
    height,
    colours,
    title,
    text(title, 16, 28, colours.ink),
    text(`${say("layer")} ↓  ${say("head")} →`, 16, TOP - 32, colours.quiet, { "font-size": 12 }),
    ...columns,
    ...rows,
    legend,
  );
}
