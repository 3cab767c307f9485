// Numbers as a grid of coloured cells, a pixel a cell; the style sheet makes the cells larger.

import type { Tensor } from "../data/seen";
import type { Palette } from "./palette";

/** Which numbers the ends of the colours stand for. */
export interface Range {
  readonly kind: "weights" | "signed";
  /** The largest weight, or the largest distance from 0. */
  readonly most: number;
}

export function rangeOf(data: Float32Array, kind: Range["kind"]): Range {
  let most = 0;
  for (const value of data) most = Math.max(most, Math.abs(value));
  return { kind, most: most || 1 };
}

/** Weights are shown by their square root: small ones are to be seen. */
export function shadeOf(value: number, range: Range): number {
  const part = Math.max(-1, Math.min(1, value / range.most));
  if (range.kind === "signed") return Math.round(127.5 + 127.5 * part);
  return Math.round(255 * Math.sqrt(Math.max(0, part)));
}

/** Paints a matrix [rows, columns] on a canvas, which gets as many pixels. */
export function paint(
  canvas: HTMLCanvasElement,
  matrix: Tensor,
  range: Range,
  palette: Palette,
): void {
  const [rows = 0, columns = 0] = matrix.shape;
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  if (!context || rows * columns === 0) return;
  const colours = range.kind === "weights" ? palette.ramp : palette.diverging;
  const pixels = new Uint32Array(rows * columns);
  for (let i = 0; i < pixels.length; i++)
    pixels[i] = colours[shadeOf(matrix.data[i] ?? 0, range)] ?? 0;
  context.putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), columns, rows), 0, 0);
}

/** A matrix of at most `most` rows and columns: each cell the largest of those that it stands for. */
export function shrunk(matrix: Tensor, most: number): Tensor {
  const [rows = 0, columns = 0] = matrix.shape;
  const step = Math.ceil(Math.max(rows, columns) / most);
  if (step <= 1) return matrix;
  const shape = [Math.ceil(rows / step), Math.ceil(columns / step)] as const;
  const data = new Float32Array(shape[0] * shape[1]);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      const cell = Math.floor(row / step) * shape[1] + Math.floor(column / step);
      data[cell] = Math.max(data[cell] ?? 0, matrix.data[row * columns + column] ?? 0);
    }
  return { shape, data };
}
