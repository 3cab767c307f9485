// Two texts, or one text in two models, side by side.

import type { Inquiry, Question } from "../data/answers";
import { difference } from "../data/matrices";
import { firstInquiry, siteOf, sizeOf } from "../data/reading";
import type { Seen } from "../data/seen";
import { fill, make } from "../dom";
import { rangeOf } from "../draw/grid";
import { drawnHeat } from "../draw/heat-picture";
import { type Heat, HeatTable } from "../draw/heat-table";
import { score } from "../draw/numbers";
import { legend, sheet, text } from "../draw/pictures";
import type { Page, Scene, View } from "../page";
import { CompareForm } from "./compare-form";
import { Outcome } from "./compare-outcome";
import { heatOf, type Shown, sideOf } from "./compare-side";

const MARGIN = 24;
const TOP = 56;
/** Differences are coloured by the largest, but not by what half precision makes of equal numbers. */
const LEAST_DIFFERENCE = 0.005;

export function makeCompareView(page: Page): View {
  return new CompareView(page);
}

/** What the other side reads: whatever isn't said is as on the first. */
export function otherOf({ state, question, base }: Scene): Question {
  const { task } = base.answer;
  const embeds = task === "embed";
  const own = embeds && question.second !== null ? question.second : question.text;
  return {
    model: state.otherModel || question.model,
    text: state.otherText || own,
    second: embeds ? null : question.second,
  };
}

class CompareView implements View {
  readonly element: HTMLElement;
  private readonly form: CompareForm;
  private readonly why = make("p", { class: "note" });
  private readonly names = [make("h2"), make("h2")] as const;
  private readonly tables = [new HeatTable(), new HeatTable()] as const;
  private readonly keys = [make("div"), make("div")] as const;
  private readonly notes = [make("p", { class: "note" }), make("p", { class: "note" })] as const;
  private readonly between = new HeatTable();
  private readonly betweenKey = make("div");
  private readonly betweenNote = make("p", { class: "note" });
  private readonly outcome: Outcome;
  private shown: readonly (Shown | null)[] = [];
  private legend: "compare.legend" | "compare.legend.rollout" = "compare.legend";
  private apart: Heat | null = null;

  constructor(private readonly page: Page) {
    this.form = new CompareForm(page);
    this.outcome = new Outcome(page);
    const side = (at: 0 | 1) =>
      make(
        "section",
        {},
        this.names[at],
        this.tables[at].element,
        this.keys[at],
        this.notes[at],
        this.outcome.sides[at],
      );
    this.element = make(
      "div",
      { class: "compare-view" },
      this.form.element,
      this.why,
      make("div", { class: "compare-body" }, side(0), side(1)),
      make(
        "section",
        { class: "between" },
        make("h2", {}, page.say("compare.difference")),
        this.betweenNote,
        this.between.element,
        this.betweenKey,
      ),
    );
  }

  show(scene: Scene): void {
    const { state, question, base } = scene;
    const { say } = this.page;
    const embeds = base.answer.task === "embed";
    const first = embeds ? { ...question, second: null } : question;
    const questions = [first, otherOf(scene)] as const;
    this.form.show(scene, questions[1]);
    const site = siteOf(base.answer, state.site);
    const rolls = state.shows === "rollout" && site !== "cross";
    const shows = state.shows === "rollout" && !rolls ? "mean" : state.shows;
    this.legend = rolls ? "compare.legend.rollout" : "compare.legend";
    fill(
      this.why,
      [
        say(`compare.${state.shows}.why`),
        rolls || state.shows !== "rollout" ? "" : say("compare.cross"),
        state.mergePieces ? say("compare.merged") : "",
      ].join(" "),
    );
    this.shown = ([0, 1] as const).map((at) => {
      this.names[at].textContent = `${questions[at].model} · ${questions[at].text}`;
      const found = this.page.cache.of(firstInquiry(questions[at]));
      const side = found.seen
        ? this.sideOf(questions[at], found.seen, scene, shows)
        : (found.error ?? null);
      this.notes[at].textContent = side instanceof Error ? side.message : "";
      return side instanceof Error ? null : side;
    });
    this.element.setAttribute(
      "aria-busy",
      String(this.shown.some((one, at) => !one && this.notes[at]?.textContent === "")),
    );
    this.draw();
    this.outcome.show(scene, questions);
  }

  /** The side, or why it can't be shown; null while it isn't there. */
  private sideOf(
    question: Question,
    first: Seen,
    { state }: Scene,
    shows: "head" | "mean" | "rollout",
  ): Shown | Error | null {
    const site = siteOf(first.answer, state.site);
    const { layers, heads } = sizeOf(first.answer, site);
    const layer = Math.min(state.layer, layers - 1);
    const head = Math.min(state.heads[0] ?? 0, heads - 1);
    const wanted = { site, layer, head, shows, grouping: state };
    const inquiry: Inquiry =
      shows === "rollout"
        ? { ...question, include: ["rollout"] }
        : { ...question, include: ["pattern"], layers: [layer] };
    const { seen, error } = this.page.cache.of(inquiry);
    if (error) return error;
    return seen ? sideOf(seen, wanted) : null;
  }

  private draw(): void {
    const { say } = this.page;
    const palette = this.page.palette();
    const [first, second] = this.shown;
    const range = rangeOf(
      Float32Array.from(this.shown.flatMap((side) => (side ? [...side.matrix.data] : []))),
      "weights",
    );
    ([0, 1] as const).forEach((at) => {
      const side = this.shown[at];
      if (!side) return;
      this.tables[at].show(heatOf(side, range, this.names[at].textContent ?? "", say), palette);
      fill(this.keys[at], legend(range, palette, say(this.legend)));
    });
    this.apart = null;
    if (!first || !second) return;
    const alike =
      first.rows.length === second.rows.length && first.columns.length === second.columns.length;
    this.betweenNote.textContent = alike ? "" : say("compare.no-difference");
    this.between.element.hidden = this.betweenKey.hidden = !alike;
    if (!alike) return;
    const matrix = difference(second.matrix, first.matrix);
    const { most } = rangeOf(matrix.data, "signed");
    const signed = { kind: "signed", most: Math.max(most, LEAST_DIFFERENCE) } as const;
    const both = (a: string, b: string) => (a === b ? a : `${a} / ${b}`);
    const rows = first.rows.map((name, at) => both(name, second.rows[at] ?? ""));
    const columns = first.columns.map((name, at) => both(name, second.columns[at] ?? ""));
    this.apart = {
      ...heatOf({ matrix, rows, columns }, signed, say("compare.difference"), say),
      tell: (row, column) =>
        say("compare.cell", {
          row: rows[row] ?? "",
          column: columns[column] ?? "",
          value: score(matrix.data[row * columns.length + column] ?? 0),
        }),
      write: (row, column) => score(matrix.data[row * columns.length + column] ?? 0),
    };
    this.between.show(this.apart, palette);
    fill(this.betweenKey, legend(signed, palette, say("compare.legend.difference")));
    this.tellFarthest(this.apart);
  }

  private tellFarthest({ matrix, rows, columns }: Heat): void {
    const { data } = matrix;
    let far = 0;
    data.forEach((one, place) => {
      if (Math.abs(one) > Math.abs(data[far] ?? 0)) far = place;
    });
    this.betweenNote.textContent = this.page.say("compare.far", {
      row: rows[Math.floor(far / columns.length)] ?? "",
      column: columns[far % columns.length] ?? "",
      value: score(data[far] ?? 0),
    });
  }

  picture(): SVGSVGElement | null {
    const [first, second] = this.shown;
    if (!first || !second) return null;
    const { say } = this.page;
    const palette = this.page.palette();
    const range = rangeOf(
      Float32Array.from([...first.matrix.data, ...second.matrix.data]),
      "weights",
    );
    const names = this.names.map((name) => name.textContent ?? "");
    let left = MARGIN;
    const heats = [first, second].map((side, at) => heatOf(side, range, names[at] ?? "", say));
    if (this.apart) heats.push(this.apart);
    const titles = [...names, say("compare.difference")];
    const parts: SVGElement[] = [];
    let height = 0;
    heats.forEach((heat, at) => {
      const laid = drawnHeat(heat, palette, left, TOP, [34, 22]);
      parts.push(text((titles[at] ?? "").slice(0, 60), left, 28, palette.ink), laid.part);
      left += Math.max(laid.width, 240) + MARGIN;
      height = Math.max(height, laid.height);
    });
    return sheet(left, TOP + height + MARGIN, palette, names.join(" / "), ...parts);
  }

  numbers(): unknown {
    return this.shown.map(
      (side, at) =>
        side && {
          of: this.names[at]?.textContent,
          ...side,
          outcome: this.outcome.told[at] ?? null,
        },
    );
  }
}
