// One side of a comparison: a head, the mean of a layer's heads, or the rollout, by tokens.

import {
  attentionOf,
  type Grouping,
  gathered,
  groupsOf,
  patternOf,
  type Site,
  sidesOf,
} from "../data/reading";
import { at, type Seen, type Tensor } from "../data/seen";
import type { Range } from "../draw/grid";
import type { Heat } from "../draw/heat-table";
import { share } from "../draw/numbers";
import type { Say } from "../words";

export interface Wanted {
  readonly site: Site;
  readonly layer: number;
  readonly head: number;
  readonly shows: "head" | "mean" | "rollout";
  readonly grouping: Grouping;
}

export interface Shown {
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  readonly matrix: Tensor;
}

/** What an answer shows of what is wanted; null where it isn't in it. */
export function sideOf(seen: Seen, wanted: Wanted): Shown | null {
  const found = wanted.shows === "rollout" ? rolled(seen, wanted) : looked(seen, wanted);
  if (!found) return null;
  const [queries, keys] = [
    groupsOf(found.queries, wanted.grouping),
    groupsOf(found.keys, wanted.grouping),
  ];
  return {
    rows: queries.map(({ label }) => label),
    columns: keys.map(({ label }) => label),
    matrix: gathered(found.matrix, queries, keys),
  };
}

function rolled(seen: Seen, { site, layer }: Wanted) {
  const { sequences } = seen.answer;
  const tokens = (site === "encoder" ? sequences[0] : sequences.at(-1))?.tokens ?? [];
  const rollout = seen.tensor(`${site}.rollout`);
  return { queries: tokens, keys: tokens, matrix: at(rollout, layer) };
}

function looked(seen: Seen, { site, layer, head, shows }: Wanted) {
  const attention = attentionOf(seen.answer, site, layer);
  if (!attention) return null;
  const heads = shows === "head" ? [head] : attention.heads;
  const patterns = heads.map((one) => patternOf(seen, attention, one));
  const [first] = patterns;
  if (!first) return null;
  const data = first.data.map(
    (_, place) => patterns.reduce((sum, { data }) => sum + (data[place] ?? 0), 0) / patterns.length,
  );
  return { ...sidesOf(seen.answer, attention), matrix: { shape: first.shape, data } };
}

export function heatOf(side: Shown, range: Range, name: string, say: Say): Heat {
  const { rows, columns, matrix } = side;
  const number = (row: number, column: number) => matrix.data[row * columns.length + column] ?? 0;
  return {
    name,
    rows,
    columns,
    matrix,
    range,
    tell: (row, column) =>
      say("compare.cell", {
        row: rows[row] ?? "",
        column: columns[column] ?? "",
        value: share(number(row, column)),
      }),
  };
}
