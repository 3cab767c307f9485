// Two texts token by token: a matrix of cosines, links between what is near, and of each token the
// nearest.

import type { Inquiry, Question } from "../data/answers";
import { averaged, largestOf, value } from "../data/matrices";
import { type Group, groupsOf } from "../data/reading";
import type { Seen, Tensor } from "../data/seen";
import { fill, make } from "../dom";
import { drawnHeat } from "../draw/heat-picture";
import { type Heat, HeatTable, type Place } from "../draw/heat-table";
import { drawnLinks, linksOf } from "../draw/links";
import { score, weight } from "../draw/numbers";
import { legend, sheet, text } from "../draw/pictures";
import type { Page, Scene, View } from "../page";

export function similarityInquiry(question: Question): Inquiry {
  return { ...question, include: ["pooled", "similarity"] };
}

const ROW = 24;
/** With more tokens than that no links are drawn: the matrix and the table say it. */
const MOST_LINKED = 60;
const MARGIN = 16;

interface Shown {
  readonly seen: Seen;
  readonly matrix: Tensor;
  readonly rows: readonly Group[];
  readonly columns: readonly Group[];
  readonly heat: Heat;
}

export class Similarity implements View {
  readonly element: HTMLElement;
  private readonly cosine = make("output", { class: "cosine" });
  private readonly about = make("p", { class: "note" });
  private readonly table: HeatTable;
  private readonly key = make("div");
  private readonly field = make("div", { class: "link-field", "aria-hidden": true });
  private readonly left = make("ol", { class: "link-side", "aria-hidden": true });
  private readonly right = make("ol", { class: "link-side", "aria-hidden": true });
  private readonly least: HTMLInputElement;
  private readonly leastSaid = make("output", { for: "near" });
  private readonly nearest = make("tbody");
  private readonly observer = new ResizeObserver(() => this.link());
  private pointed: Place | null = null;
  private scene: Scene | null = null;
  private shown: Shown | null = null;

  constructor(private readonly page: Page) {
    const { say, store } = page;
    this.table = new HeatTable({
      point: (cell) => {
        this.pointed = cell;
        this.link();
      },
    });
    this.least = make("input", { type: "range", id: "near", min: 0, max: 1, step: 0.02 });
    this.least.addEventListener("input", () => store.set({ near: Number(this.least.value) }));
    const nearest = make(
      "table",
      { class: "nearest" },
      make("caption", {}, say("vectors.nearest")),
      this.nearest,
    );
    this.element = make(
      "div",
      { class: "similarity" },
      make("div", { class: "cosine-row" }, this.cosine, this.about),
      make(
        "div",
        { class: "similarity-body" },
        make(
          "section",
          {},
          make("h2", {}, say("vectors.matrix")),
          this.table.element,
          this.key,
          make("p", { class: "note" }, say("vectors.matrix.why")),
        ),
        make(
          "section",
          {},
          make("h2", {}, say("vectors.links")),
          make("label", { class: "slider" }, say("vectors.least"), this.least, this.leastSaid),
          make("div", { class: "link-pairs" }, this.left, this.field, this.right),
          nearest,
        ),
      ),
    );
    this.observer.observe(this.field);
  }

  show(scene: Scene): void {
    this.scene = scene;
    const { state, question } = scene;
    const { say } = this.page;
    const { seen, error } = this.page.cache.of(similarityInquiry(question));
    this.element.setAttribute("aria-busy", String(!seen && !error));
    if (error) fill(this.about, error.message);
    if (!seen) return;
    const [first, last] = [seen.answer.sequences[0], seen.answer.sequences.at(-1)];
    const [rows, columns] = [first, last].map((one) => groupsOf(one?.tokens ?? [], state));
    if (!rows || !columns) return;
    const matrix = averaged(seen.tensor("similarity"), rows, columns);
    this.shown = { seen, matrix, rows, columns, heat: this.heatOf(matrix, rows, columns) };
    const { cosine } = seen.answer;
    fill(
      this.cosine,
      cosine === undefined ? null : make("span", { class: "name" }, say("vectors.cosine")),
      cosine === undefined ? null : weight(cosine),
    );
    const notes = [
      cosine === undefined ? say("vectors.alone") : "",
      seen.answer.texts[0] === question.text ? "" : say("vectors.prompt"),
      state.mergePieces ? say("vectors.merged") : "",
    ];
    fill(this.about, notes.filter(Boolean).join(" "));
    this.least.value = String(state.near);
    this.leastSaid.textContent = weight(state.near);
    const palette = this.page.palette();
    this.table.show(this.shown.heat, palette);
    fill(this.key, legend(this.shown.heat.range, palette, say("vectors.legend")));
    for (const [side, groups] of [
      [this.left, rows],
      [this.right, columns],
    ] as const)
      fill(side, ...groups.map(({ label }) => make("li", {}, label)));
    this.list();
    this.link();
  }

  private heatOf(matrix: Tensor, rows: readonly Group[], columns: readonly Group[]): Heat {
    const { say } = this.page;
    const [of, beside] = [rows, columns].map((groups) => groups.map(({ label }) => label));
    return {
      name: say("vectors.matrix"),
      rows: of ?? [],
      columns: beside ?? [],
      matrix,
      range: { kind: "signed", most: 1 },
      tell: (row, column) =>
        say("vectors.cell", {
          row: rows[row]?.label ?? "",
          column: columns[column]?.label ?? "",
          value: score(value(matrix, row, column)),
        }),
      write: (row, column) => value(matrix, row, column).toFixed(2),
    };
  }

  /** Of each token of the first text the nearest of the second, for who sees no links. */
  private list(): void {
    if (!this.shown) return;
    const { matrix, rows, columns } = this.shown;
    const alone = this.shown.seen.answer.sequences.length === 1;
    const lines = rows.map(({ label }, row) => {
      const best = alone ? otherThan(matrix, row) : largestOf(matrix, row);
      return make(
        "tr",
        {},
        make("th", { scope: "row" }, label),
        make("td", {}, columns[best]?.label ?? ""),
        make("td", { class: "number" }, score(value(matrix, row, best))),
      );
    });
    fill(this.nearest, ...lines);
  }

  private link(): void {
    const { shown, scene } = this;
    if (!shown || !scene) return;
    const { rows, columns } = shown;
    const most = Math.max(rows.length, columns.length);
    if (most > MOST_LINKED) {
      fill(this.field);
      this.field.parentElement?.setAttribute("hidden", "");
      return;
    }
    this.field.parentElement?.removeAttribute("hidden");
    const field = { width: this.field.clientWidth, height: most * ROW, row: ROW };
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("width", String(field.width));
    svg.setAttribute("height", String(field.height));
    svg.append(drawnLinks(this.links(), field, [this.page.palette().accent]));
    fill(this.field, svg);
  }

  /** Of the cell's row that is pointed at, else of all. */
  private links() {
    const { shown, scene, pointed } = this;
    if (!shown || !scene) return [];
    const queries = new Set(pointed ? [pointed.row] : []);
    // From the least that is shown on: contextual vectors are all rather near one another.
    const { near } = scene.state;
    const data = shown.matrix.data.map((one) => (one - near) / Math.max(0.01, 1 - near));
    return linksOf([{ ...shown.matrix, data }], { least: 0, queries, keys: new Set() });
  }

  picture(): SVGSVGElement | null {
    const { shown, scene } = this;
    if (!shown || !scene) return null;
    const palette = this.page.palette();
    const { answer } = shown.seen;
    const { say } = this.page;
    const title = `${answer.model} · ${say("vectors.matrix")}`;
    const said =
      answer.cosine === undefined ? "" : `${say("vectors.cosine")}: ${weight(answer.cosine)}`;
    const laid = drawnHeat(shown.heat, palette, MARGIN, 64, [40, 22]);
    return sheet(
      Math.max(420, laid.width + 2 * MARGIN),
      laid.height + 64 + MARGIN,
      palette,
      title,
      text(title, MARGIN, 24, palette.ink),
      text(said, MARGIN, 46, palette.quiet),
      laid.part,
    );
  }

  numbers(): unknown {
    if (!this.shown) return null;
    const { seen, matrix, rows, columns } = this.shown;
    const labels = (groups: readonly Group[]) => groups.map(({ label }) => label);
    return {
      texts: seen.answer.texts,
      cosine: seen.answer.cosine ?? null,
      pooled: seen.tensor("pooled"),
      rows: labels(rows),
      columns: labels(columns),
      similarity: matrix,
    };
  }

  close(): void {
    this.observer.disconnect();
  }
}

/** The largest of a row beside its own place: every token is nearest to itself. */
function otherThan(matrix: Tensor, row: number): number {
  const [, width = 0] = matrix.shape;
  const data = Float32Array.from({ length: width }, (_, column) =>
    column === row && width > 1 ? Number.NEGATIVE_INFINITY : value(matrix, row, column),
  );
  return largestOf({ shape: [1, width], data }, 0);
}
