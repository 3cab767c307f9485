// The table of the neuron view: a row a key, a column for each step.

import { visible } from "../data/reading";
import type { Tensor } from "../data/seen";
import type { Steps } from "../data/steps";
import { fill, make } from "../dom";
import { paint, type Range, rangeOf } from "../draw/grid";
import { score, weight } from "../draw/numbers";
import { legend } from "../draw/pictures";
import type { Page } from "../page";

/** A column of numbers, one for each key. */
interface Column {
  /** At which step it appears. */
  readonly step: number;
  readonly cells: HTMLTableCellElement[];
  readonly text: (steps: Steps, key: number) => string;
}

/** A strip of colours: of all keys, or of one vector. */
interface Strip {
  readonly step: number;
  readonly canvas: HTMLCanvasElement;
  readonly tensor: (steps: Steps) => Tensor;
  readonly range: keyof Ranges;
}

interface Ranges {
  readonly vectors: Range;
  readonly products: Range;
  readonly values: Range;
  readonly parts: Range;
}

export class NeuronTable {
  readonly element: HTMLElement;
  private readonly table = make("table", { class: "neuron-table" });
  private readonly legends = make("div", { class: "legends" });
  private rows: HTMLTableRowElement[] = [];
  private columns: Column[] = [];
  private strips: Strip[] = [];
  private places: readonly number[] = [];
  /** What the table was built for, and what is written in it. */
  private built = "";
  private written: readonly unknown[] = [];

  constructor(
    private readonly page: Page,
    private readonly follow: (key: number) => void,
  ) {
    const label = page.say("neuron.table");
    this.element = make(
      "div",
      { class: "neuron-box" },
      make(
        "div",
        { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
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
    const { keys, queries, query, hidden, bias } = steps;
    const labels = keys.map(({ token }) => token);
    const shape = [labels, queries[query]?.token, hidden, bias !== null, hideSpecial];
    if (JSON.stringify(shape) !== this.built) this.build(steps, hideSpecial);
    this.built = JSON.stringify(shape);
    if (this.written[0] !== steps || this.written[1] !== upTo) this.write(steps, upTo);
    this.written = [steps, upTo];
    for (const row of this.rows) {
      const isFollowed = row.dataset.key === String(key);
      row.classList.toggle("followed", isFollowed);
      row.querySelector("button")?.setAttribute("aria-pressed", String(isFollowed));
    }
  }

  /** Rows and columns, without their numbers: heads of a layer have the same. */
  private build(steps: Steps, hideSpecial: boolean): void {
    const { say } = this.page;
    const { keys, hidden, bias } = steps;
    this.written = [];
    this.places = keys.flatMap((token, place) => (hideSpecial && token.special ? [] : [place]));
    this.columns = this.columnsOf(bias !== null);
    this.strips = [];
    const all = this.places.length;
    const strip = (
      step: number,
      range: keyof Ranges,
      tensor: (steps: Steps) => Tensor,
      rows = all,
    ) => {
      const canvas = make("canvas", { "aria-hidden": true });
      canvas.style.setProperty("--rows", String(rows));
      this.strips.push({ step, canvas, tensor, range });
      return make("td", { class: "strip", rowspan: rows }, canvas);
    };
    const rowsOf = (matrix: Tensor) => picked(matrix, this.places);

    const queryLine = make(
      "tr",
      { class: "query-line" },
      make(
        "th",
        { scope: "row" },
        make("span", { class: "tag" }, "q"),
        visible(steps.queries[steps.query]?.token ?? ""),
      ),
      strip(1, "vectors", ({ q }) => q, 1),
      make("td", { colspan: this.columns.length + 3 }),
    );
    this.rows = this.places.map((place, row) => {
      const token = keys[place];
      const isHidden = hidden[place] ?? false;
      const numbers = this.columns.map((column) => {
        const cell = make("td", { class: isHidden ? "number masked" : "number" });
        column.cells.push(cell);
        return cell;
      });
      numbers.at(-1)?.classList.add("weight");
      const isFirst = row === 0;
      const name = make("button", { type: "button", class: "key" }, visible(token?.token ?? ""));
      return make(
        "tr",
        { "data-key": place, class: isHidden ? "is-masked" : "" },
        make("th", { scope: "row", class: token?.special ? "special" : "" }, name),
        isFirst && strip(1, "vectors", ({ k }) => rowsOf(k)),
        isFirst && strip(2, "products", ({ products }) => rowsOf(products)),
        ...numbers,
        isFirst && strip(6, "values", ({ v }) => rowsOf(v)),
        isFirst && strip(6, "parts", ({ parts }) => rowsOf(parts)),
      );
    });
    const sumLine = make(
      "tr",
      { class: "sum-line" },
      make("th", { scope: "row" }, make("span", { class: "tag" }, "z"), say("neuron.sum")),
      make("td", { colspan: this.columns.length + 2 }),
      make("td", {}, "Σ"),
      strip(6, "parts", ({ sum }) => sum, 1),
    );
    fill(
      this.table,
      make("caption", { class: "unseen" }, say("neuron.table")),
      make("thead", {}, this.titles(bias !== null), queryLine),
      make("tbody", {}, ...this.rows),
      make("tfoot", {}, sumLine),
    );
  }

  private columnsOf(hasBias: boolean): Column[] {
    const { say } = this.page;
    const column = (step: number, text: Column["text"]): Column => ({ step, cells: [], text });
    const dot = column(3, ({ dots }, key) => score(dots[key] ?? 0));
    const scaled = column(4, (steps, key) => score(steps.scaled[key] ?? 0));
    const bias = column(4, (steps, key) => score(steps.bias?.[key] ?? 0));
    const added = column(4, ({ hidden, scores }, key) =>
      hidden[key] ? say("neuron.masked") : score(scores[key] ?? 0),
    );
    const weights = column(5, (steps, key) => weight(steps.weights[key] ?? 0));
    return hasBias ? [dot, scaled, bias, added, weights] : [dot, scaled, weights];
  }

  private titles(hasBias: boolean): HTMLElement {
    const { say } = this.page;
    const number = (name: string, says: string) => make("th", { scope: "col", title: says }, name);
    const strip = (name: string, says: string) =>
      make("th", { scope: "col", class: "of-strip", title: says }, name);
    const scored = say("neuron.score");
    return make(
      "tr",
      {},
      make("th", { scope: "col" }, say("neuron.key")),
      strip("k", say("step.vectors")),
      strip("q × k", say("step.products")),
      number("q · k", say("step.dot")),
      number(hasBias ? say("neuron.scaled") : scored, say("step.scale")),
      hasBias && number(say("neuron.bias"), say("neuron.bias")),
      hasBias && number(scored, say("step.scale")),
      number(say("neuron.weight"), say("step.softmax")),
      strip("v", say("step.sum")),
      strip(say("neuron.part"), say("step.sum")),
    );
  }

  /** The numbers of a head, as far as the steps are shown. */
  private write(steps: Steps, upTo: number): void {
    const { say } = this.page;
    const palette = this.page.palette();
    const ranges: Ranges = {
      vectors: rangeOf(Float32Array.of(most(steps.q), most(steps.k)), "signed"),
      products: rangeOf(steps.products.data, "signed"),
      values: rangeOf(steps.v.data, "signed"),
      parts: rangeOf(Float32Array.of(most(steps.parts), most(steps.sum)), "signed"),
    };
    for (const { step, canvas, tensor, range } of this.strips) {
      canvas.hidden = step > upTo;
      if (step <= upTo) paint(canvas, tensor(steps), ranges[range], palette);
    }
    for (const { step, cells, text } of this.columns)
      cells.forEach((cell, row) => {
        cell.textContent = step > upTo ? "" : text(steps, this.places[row] ?? 0);
      });
    this.columns.at(-1)?.cells.forEach((cell, row) => {
      const part = upTo < 5 ? 0 : (steps.weights[this.places[row] ?? 0] ?? 0);
      cell.style.setProperty("--part", part.toFixed(4));
    });
    fill(
      this.legends,
      legend(ranges.vectors, palette, "q, k", 150),
      upTo >= 2 && legend(ranges.products, palette, "q × k", 150),
      upTo >= 6 && legend(ranges.values, palette, "v", 150),
      upTo >= 6 && legend(ranges.parts, palette, `${say("neuron.part")}, z`, 150),
    );
  }
}

function most({ data }: Tensor): number {
  let largest = 0;
  for (const value of data) largest = Math.max(largest, Math.abs(value));
  return largest;
}

/** Some rows of a matrix. */
function picked(matrix: Tensor, places: readonly number[]): Tensor {
  const [rows = 0, width = 0] = matrix.shape;
  if (places.length === rows) return matrix;
  const data = new Float32Array(places.length * width);
  places.forEach((place, row) => {
    data.set(matrix.data.subarray(place * width, (place + 1) * width), row * width);
  });
  return { shape: [places.length, width], data };
}
