// A table of coloured cells as a drawing.

import { draw } from "../dom";
import { shadeOf } from "./grid";
import type { Heat } from "./heat-table";
import { css, type Palette } from "./palette";
import { text } from "./pictures";

export interface Laid {
  readonly part: SVGGElement;
  readonly width: number;
  readonly height: number;
}

const LETTER = 7;
const FONT = 12;

/** Drawn with its top left corner at (x, y); `cell` is a cell's width and height. */
export function drawnHeat(
  heat: Heat,
  palette: Palette,
  x: number,
  y: number,
  cell: readonly [number, number],
): Laid {
  const [wide, high] = cell;
  const longest = (names: readonly string[]) => Math.max(0, ...names.map(({ length }) => length));
  const left = longest(heat.rows) * LETTER + 10;
  const above = longest(heat.columns) * LETTER + 10;
  const colours = heat.range.kind === "weights" ? palette.ramp : palette.diverging;
  const middle = high / 2 + FONT / 2 - 2;
  const parts: SVGElement[] = heat.columns.map((name, column) => {
    const [at, from] = [left + (column + 0.5) * wide + 4, above - 6];
    return text(name, at, from, palette.ink, {
      "font-size": FONT,
      transform: `rotate(-90 ${at} ${from})`,
    });
  });
  heat.rows.forEach((name, row) => {
    const top = above + row * high;
    parts.push(
      text(name, left - 6, top + middle, palette.ink, { "font-size": FONT, "text-anchor": "end" }),
    );
    heat.columns.forEach((_, column) => {
      const value = heat.matrix.data[row * heat.columns.length + column] ?? 0;
      const shade = shadeOf(value, heat.range);
      const box = { x: left + column * wide, y: top, width: wide - 1, height: high - 1 };
      parts.push(
        draw(
          "rect",
          { ...box, fill: css(colours[shade] ?? 0) },
          draw("title", {}, heat.tell(row, column)),
        ),
      );
      if (heat.marked?.(row, column))
        parts.push(draw("rect", { ...box, fill: "none", stroke: palette.accent }));
      if (heat.write) {
        const isDark = heat.range.kind === "weights" ? shade > 150 : Math.abs(shade - 127) > 90;
        parts.push(
          text(
            heat.write(row, column),
            left + (column + 0.5) * wide,
            top + middle,
            isDark ? palette.paper : palette.ink,
            { "font-size": FONT - 1, "text-anchor": "middle" },
          ),
        );
      }
    });
  });
  return {
    part: draw("g", { transform: `translate(${x} ${y})` }, ...parts),
    width: left + heat.columns.length * wide,
    height: above + heat.rows.length * high,
  };
}
