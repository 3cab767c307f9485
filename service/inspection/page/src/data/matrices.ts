// Matrices by groups of tokens, and what stands out in them.

import type { Group } from "./reading";
import type { Tensor } from "./seen";

/** Each cell the mean over the tokens of its two groups. */
export function averaged(
  matrix: Tensor,
  rows: readonly Group[],
  columns: readonly Group[],
): Tensor {
  const [, width = 0] = matrix.shape;
  const data = new Float32Array(rows.length * columns.length);
  rows.forEach((row, at) => {
    columns.forEach((column, beside) => {
      let sum = 0;
      for (const from of row.places)
        for (const to of column.places) sum += matrix.data[from * width + to] ?? 0;
      data[at * columns.length + beside] = sum / (row.places.length * column.places.length);
    });
  });
  return { shape: [rows.length, columns.length], data };
}

/** The place of the largest number of a row. */
export function largestOf(matrix: Tensor, row: number): number {
  const [, width = 0] = matrix.shape;
  let best = 0;
  for (let place = 1; place < width; place++)
    if (value(matrix, row, place) > value(matrix, row, best)) best = place;
  return best;
}

export function value({ shape, data }: Tensor, row: number, column: number): number {
  return data[row * (shape[1] ?? 0) + column] ?? 0;
}

/** One matrix less another of the same shape. */
export function difference(matrix: Tensor, other: Tensor): Tensor {
  const data = matrix.data.map((one, place) => one - (other.data[place] ?? 0));
  return { shape: matrix.shape, data };
}
