// Sums over the tokens that are held: what they look at together, as a table.

import type { Group } from "../data/reading";
import { fill, make } from "../dom";
import { weight } from "../draw/numbers";
import { seriesOf } from "../draw/series";
import type { Say } from "../words";
import type { HeadScene } from "./head";
import { sumOf } from "./token-column";

const MOST_ROWS = 12;

export class SumTable {
  readonly element = make("aside", { class: "sums" });
  private readonly told = make("p");
  private readonly body = make("tbody");
  private readonly head = make("thead");

  constructor(private readonly say: Say) {
    const table = make("table", {}, this.head, this.body);
    fill(this.element, make("h2", {}, say("sums.title")), this.told, table);
  }

  show(
    shown: HeadScene,
    focus: { readonly queries: ReadonlySet<number>; readonly keys: ReadonlySet<number> },
  ): void {
    const side = focus.queries.size > 0 ? "keys" : "queries";
    const others = side === "keys" ? focus.queries : focus.keys;
    if (others.size === 0) {
      this.told.textContent = this.say("sums.none");
      fill(this.head);
      fill(this.body);
      return;
    }
    const from = side === "keys" ? shown.queries : shown.keys;
    const tokens = [...others].map((place) => from[place]?.label ?? "").join(", ");
    this.told.textContent = this.say(side === "keys" ? "sums.queries" : "sums.keys", { tokens });
    const rows = shown[side].map((group: Group, place) => ({
      group,
      sums: shown.patterns.map((pattern) => sumOf(pattern, side, place, others)),
    }));
    const total = (sums: readonly number[]) => sums.reduce((sum, one) => sum + one, 0);
    rows.sort((a, b) => total(b.sums) - total(a.sums));
    const heads = shown.heads.map((head, series) => {
      const cell = make("th", { scope: "col" }, `${this.say("head")} ${head}`);
      if (shown.heads.length > 1) cell.style.setProperty("--series", seriesOf(series));
      return cell;
    });
    fill(this.head, make("tr", {}, make("th", { scope: "col" }, this.say("sums.token")), ...heads));
    fill(
      this.body,
      ...rows
        .slice(0, MOST_ROWS)
        .map(({ group, sums }) =>
          make(
            "tr",
            {},
            make("th", { scope: "row" }, group.label),
            ...sums.map((sum) => make("td", {}, weight(sum))),
          ),
        ),
    );
  }
}
