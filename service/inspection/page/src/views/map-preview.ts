// One head's map, large enough for its tokens, and where its weight goes.

import type { Attention } from "../data/answers";
import type { Group } from "../data/reading";
import type { Tensor } from "../data/seen";
import { fill, make } from "../dom";
import { paint, rangeOf } from "../draw/grid";
import { share } from "../draw/numbers";
import { legend } from "../draw/pictures";
import type { Page } from "../page";

/** With more tokens than that they are not written beside the map. */
const MOST_WRITTEN = 24;

/** A head's pattern as it is shown. */
export interface HeadMap {
  readonly attention: Attention;
  readonly head: number;
  readonly matrix: Tensor;
  readonly queries: readonly Group[];
  readonly keys: readonly Group[];
}

export class MapPreview {
  readonly element = make("aside", { class: "preview", "aria-live": "polite" });
  private readonly title = make("h2");
  private readonly about = make("p", { class: "note" });
  private readonly canvas = make("canvas", { "aria-hidden": true });
  private readonly queries = make("ol", { class: "beside", "aria-hidden": true });
  private readonly keys = make("ol", { class: "above", "aria-hidden": true });
  private readonly key = make("div");
  private readonly shares = make("dl", { class: "shares" });

  constructor(private readonly page: Page) {
    fill(
      this.element,
      this.title,
      this.about,
      make("div", { class: "labelled" }, this.keys, this.queries, this.canvas),
      this.key,
      this.shares,
      make("p", { class: "note" }, page.say("model.open")),
    );
  }

  show({ attention, head, matrix, queries, keys }: HeadMap): void {
    const { say } = this.page;
    const palette = this.page.palette();
    const range = rangeOf(matrix.data, "weights");
    const { layer, window } = attention;
    this.title.textContent = say("model.cell", { layer, head });
    const notes: string[] = [];
    const kv = attention.kv_head_of[attention.heads.indexOf(head)];
    if (attention.kv_heads.length < attention.heads.length && kv !== undefined)
      notes.push(say("model.kv", { kv: attention.kv_heads[kv] ?? kv }));
    if (window !== null) notes.push(say("about.window", { window }));
    this.about.textContent = notes.join(" · ");
    paint(this.canvas, matrix, range, palette);
    for (const [list, groups] of [
      [this.queries, queries],
      [this.keys, keys],
    ] as const) {
      const written = groups.length <= MOST_WRITTEN ? groups : [];
      fill(list, ...written.map(({ label }) => make("li", {}, make("span", {}, label))));
    }
    fill(this.key, legend(range, palette, `${say("legend.weight")}, ${say("legend.root")}`));
    const rows = sharesOf(matrix, attention.kind === "self").map(([word, part]) => [
      make("dt", {}, say(word)),
      make("dd", {}, share(part)),
    ]);
    fill(this.shares, ...rows.flat());
  }
}

type Destination = "share.self" | "share.before" | "share.after" | "share.first" | "share.last";

/** Where a token's weight goes on average: places that many heads are found to look at. */
function sharesOf({ shape, data }: Tensor, isSelf: boolean): [Destination, number][] {
  const [rows = 0, columns = 0] = shape;
  const mean = (key: (query: number) => number) => {
    let sum = 0;
    for (let row = 0; row < rows; row++) {
      const column = key(row);
      if (column >= 0 && column < columns) sum += data[row * columns + column] ?? 0;
    }
    return rows === 0 ? 0 : sum / rows;
  };
  const ends: [Destination, number][] = [
    ["share.first", mean(() => 0)],
    ["share.last", mean(() => columns - 1)],
  ];
  if (!isSelf) return ends;
  return [
    ["share.self", mean((query) => query)],
    ["share.before", mean((query) => query - 1)],
    ["share.after", mean((query) => query + 1)],
    ...ends,
  ];
}
