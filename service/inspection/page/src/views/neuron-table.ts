// The table of the neuron view: a row a key, a column for each step.

import { visible } from "../data/reading";
import type { Tensor } from "../data/seen";
import type { Steps } from "../data/steps";
import { fill, make } from "../dom";
import { paint, type Range, rangeOf } from "../draw/grid";
import { score, weight } from "../draw/numbers";
import { legend } from "../draw/pictures";
import type { Page } from "../page";

export class NeuronTable {
  readonly element: HTMLElement;
  private readonly table = make("table", { class: "neuron-table" });
  private readonly legends = make("div", { class: "legends" });
  private built = "";
  private rows: HTMLTableRowElement[] = [];

  constructor(
    private readonly page: Page,
    private readonly follow: (key: number) => void,
  ) {
    this.element = make(
      "div",
      { class: "neuron-box" },
      make(
        "div",
        { class: "scroll", tabindex: 0, role: "region", "aria-label": page.say("neuron.table") },
        this.table,
      ),
      this.legends,
    );
    this.table.addEventListener("click", (event) => {
      const row = event.target instanceof Element ? event.target.closest("tr") : null;
      const key = row?.dataset.key;
      if (key !== undefined) this.follow(Number(key));
    });
  }

  show(steps: Steps, key: number, upTo: number, hideSpecial: boolean): void {
    const { attention, query, head } = steps;
    const shape = JSON.stringify([
      attention,
      query,
      head,
      steps.keys,
      Array.from(steps.dots),
      upTo,
      hideSpecial,
    ]);
    if (shape !== this.built) this.build(steps, upTo, hideSpecial);
    this.built = shape;
    for (const row of this.rows) {
      const isFollowed = row.dataset.key === String(key);
      row.classList.toggle("followed", isFollowed);
      row.querySelector("button")?.setAttribute("aria-pressed", String(isFollowed));
    }
  }

  private build(steps: Steps, upTo: number, hideSpecial: boolean): void {
    const { say } = this.page;
    const palette = this.page.palette();
    const places = steps.keys.flatMap((token, place) =>
      hideSpecial && token.special ? [] : [place],
    );
    const vectors = rangeOf(Float32Array.of(most(steps.q), most(steps.k)), "signed");
    const [products, values, parts] = [steps.products, steps.v, steps.parts].map((tensor) =>
      rangeOf(Float32Array.of(most(tensor)), "signed"),
    ) as [Range, Range, Range];
    const open = (step: number) => step <= upTo;
    const title = (step: number, name: string, says: string) =>
      make("th", { scope: "col", class: open(step) ? "" : "to-come", title: says }, name);
    const above = (step: number, name: string, says: string) => {
      const cell = title(step, name, says);
      cell.classList.add("of-strip");
      return cell;
    };
    const strip = (step: number, tensor: Tensor, range: Range) => {
      if (!open(step)) return make("td", { class: "strip to-come", rowspan: places.length });
      const canvas = make("canvas", { "aria-hidden": true });
      paint(canvas, picked(tensor, places), range, palette);
      const cell = make("td", { class: "strip", rowspan: places.length }, canvas);
      canvas.style.setProperty("--rows", String(places.length));
      return cell;
    };
    const single = (step: number, tensor: Tensor, range: Range) => {
      if (!open(step)) return make("td", { class: "strip to-come" });
      const canvas = make("canvas", { "aria-hidden": true });
      paint(canvas, tensor, range, palette);
      canvas.style.setProperty("--rows", "1");
      return make("td", { class: "strip" }, canvas);
    };
    const number = (step: number, text: string, isHidden = false) =>
      make(
        "td",
        { class: `number${open(step) ? "" : " to-come"}${isHidden ? " masked" : ""}` },
        open(step) ? text : "",
      );

    const { bias } = steps;
    const query = visible(steps.queries[steps.query]?.token ?? "");
    const head = make(
      "thead",
      {},
      make(
        "tr",
        {},
        make("th", { scope: "col" }, say("neuron.key")),
        above(1, "k", say("step.vectors")),
        above(2, "q × k", say("step.products")),
        title(3, "q · k", say("step.dot")),
        title(4, bias ? say("neuron.scaled") : say("neuron.score"), say("step.scale")),
        bias ? title(4, say("neuron.bias"), say("neuron.bias")) : null,
        bias ? title(4, say("neuron.score"), say("step.scale")) : null,
        title(5, say("neuron.weight"), say("step.softmax")),
        above(6, "v", say("step.sum")),
        above(6, say("neuron.part"), say("step.sum")),
      ),
      make(
        "tr",
        { class: "query-line" },
        make("th", { scope: "row" }, make("span", { class: "tag" }, "q"), query),
        single(1, steps.q, vectors),
        make("td", { colspan: bias ? 8 : 6 }),
      ),
    );
    this.rows = places.map((place, row) => {
      const token = steps.keys[place];
      const isHidden = steps.hidden[place] ?? false;
      const button = make("button", { type: "button", class: "key" }, visible(token?.token ?? ""));
      const share = steps.weights[place] ?? 0;
      const cell = number(5, weight(share), isHidden);
      cell.classList.add("weight");
      cell.style.setProperty("--part", open(5) ? share.toFixed(4) : "0");
      const first = row === 0;
      return make(
        "tr",
        { "data-key": place, class: isHidden ? "is-masked" : "" },
        make("th", { scope: "row", class: token?.special ? "special" : "" }, button),
        first && strip(1, steps.k, vectors),
        first && strip(2, steps.products, products),
        number(3, score(steps.dots[place] ?? 0)),
        number(4, score(steps.scaled[place] ?? 0)),
        bias && number(4, score(bias[place] ?? 0)),
        bias && number(4, isHidden ? say("neuron.masked") : score(steps.scores[place] ?? 0)),
        cell,
        first && strip(6, steps.v, values),
        first && strip(6, steps.parts, parts),
      );
    });
    const foot = make(
      "tfoot",
      {},
      make(
        "tr",
        { class: "sum-line" },
        make(
          "th",
          { scope: "row" },
          make("span", { class: "tag" }, "z"),
          open(6) ? say("neuron.sum") : "",
        ),
        make("td", { colspan: bias ? 7 : 5 }),
        make("td", { class: "arrow" }, open(6) ? "Σ" : ""),
        single(6, steps.sum, parts),
      ),
    );
    fill(
      this.table,
      make("caption", { class: "unseen" }, say("neuron.table")),
      head,
      make("tbody", {}, ...this.rows),
      foot,
    );
    fill(
      this.legends,
      legend(vectors, palette, "q, k", 150),
      open(2) && legend(products, palette, "q × k", 150),
      open(6) && legend(values, palette, "v", 150),
      open(6) && legend(parts, palette, `${say("neuron.part")}, z`, 150),
    );
  }
}

function most({ data }: Tensor): number {
  return data.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
}

/** Some rows of a matrix. */
function picked({ shape, data }: Tensor, places: readonly number[]): Tensor {
  const [, width = 0] = shape;
  const found = new Float32Array(places.length * width);
  places.forEach((place, row) => {
    found.set(data.subarray(place * width, (place + 1) * width), row * width);
  });
  return { shape: [places.length, width], data: found };
}
