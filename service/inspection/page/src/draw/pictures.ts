// Parts that drawings are put together of: grids, legends, text.

import { scaleLinear, scaleSqrt } from "d3-scale";
import type { Tensor } from "../data/seen";
import { draw } from "../dom";
import { paint, type Range } from "./grid";
import { plain } from "./numbers";
import { css, type Palette } from "./palette";

/** Where a part lies. */
export interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** A drawing that stands by itself. */
export function sheet(
  width: number,
  height: number,
  palette: Palette,
  title: string,
  ...parts: (SVGElement | null)[]
): SVGSVGElement {
  return draw(
    "svg",
    {
      xmlns: "http://www.w3.org/2000/svg",
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      "font-family": palette.font,
      "font-size": 13,
      role: "img",
    },
    draw("title", {}, title),
    draw("rect", { width, height, fill: palette.paper }),
    ...parts,
  );
}

export function text(
  content: string,
  x: number,
  y: number,
  fill: string,
  more: Readonly<Record<string, string | number>> = {},
): SVGTextElement {
  return draw("text", { x, y, fill, ...more }, content);
}

/** A matrix as a picture in a drawing, every cell with sharp edges. */
export function drawnGrid(
  matrix: Tensor,
  range: Range,
  palette: Palette,
  box: Box,
): SVGImageElement {
  const cells = document.createElement("canvas");
  paint(cells, matrix, range, palette);
  const canvas = document.createElement("canvas");
  const times = Math.max(1, Math.ceil((2 * box.width) / Math.max(1, cells.width)));
  const down = Math.max(1, Math.ceil((2 * box.height) / Math.max(1, cells.height)));
  canvas.width = cells.width * times;
  canvas.height = cells.height * down;
  const context = canvas.getContext("2d");
  if (context) {
    context.imageSmoothingEnabled = false;
    context.drawImage(cells, 0, 0, canvas.width, canvas.height);
  }
  return draw("image", { ...box, href: canvas.toDataURL(), preserveAspectRatio: "none" });
}

const STRIP = 10;
const SHADES = 48;

/** What the colours stand for: a strip of them with numbers below, 40 pixels high. */
export function drawnLegend(
  range: Range,
  palette: Palette,
  label: string,
  box: Pick<Box, "x" | "y" | "width">,
): SVGGElement {
  const isSigned = range.kind === "signed";
  const colours = isSigned ? palette.diverging : palette.ramp;
  const scale = isSigned
    ? scaleLinear([-range.most, range.most], [0, box.width])
    : scaleSqrt([0, range.most], [0, box.width]);
  const shades = Array.from({ length: SHADES }, (_, place) =>
    draw("rect", {
      x: (place * box.width) / SHADES,
      width: box.width / SHADES + 0.5,
      height: STRIP,
      fill: css(colours[Math.round((place * 255) / (SHADES - 1))] ?? 0),
    }),
  );
  const values = isSigned
    ? [-range.most, 0, range.most]
    : [0, range.most / 16, range.most / 4, range.most];
  const ticks = values.map((value, place) =>
    text(plain(value), scale(value), STRIP + 14, palette.quiet, {
      "font-size": 11,
      "text-anchor": place === 0 ? "start" : place === values.length - 1 ? "end" : "middle",
    }),
  );
  return draw(
    "g",
    { transform: `translate(${box.x} ${box.y})` },
    text(label, 0, -6, palette.quiet, { "font-size": 11 }),
    ...shades,
    draw("rect", { width: box.width, height: STRIP, fill: "none", stroke: palette.line }),
    ...ticks,
  );
}

/** The same on the page. */
export function legend(range: Range, palette: Palette, label: string, width = 220): SVGSVGElement {
  return draw(
    "svg",
    {
      class: "legend",
      width,
      height: 44,
      viewBox: `0 0 ${width} 44`,
      role: "img",
      "aria-label": label,
    },
    drawnLegend(range, palette, label, { x: 0, y: 16, width }),
  );
}
