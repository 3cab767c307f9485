// The logit lens: what each state of the stream would say, layers × positions.

import type { Answer, Inquiry, Question, Token } from "../data/answers";
import { visible } from "../data/reading";
import { at, type Seen, type Tensor } from "../data/seen";
import { fill, make } from "../dom";
import { type Heat, HeatTable, type Place } from "../draw/heat-table";
import { share } from "../draw/numbers";
import { legend } from "../draw/pictures";
import type { Page, Scene } from "../page";
import { continued } from "./next";

/** Positions that are shown: the last ones of a longer text. */
const MOST_POSITIONS = 40;

export function lensInquiry(
  question: Question,
  written: readonly number[],
  tokens: number,
): Inquiry {
  const all = { ...question, include: ["logit_lens"] as const, ...continued(written) };
  if (tokens <= MOST_POSITIONS) return all;
  const first = tokens - MOST_POSITIONS;
  return { ...all, positions: Array.from({ length: MOST_POSITIONS }, (_, at) => first + at) };
}

interface Read {
  readonly seen: Seen;
  readonly states: readonly number[];
  readonly positions: readonly number[];
  readonly texts: Readonly<Record<string, string>>;
  readonly tokens: readonly Token[];
}

export class Lens {
  readonly element: HTMLElement;
  /** What is shown, if it has come. */
  heat: Heat | null = null;
  private readonly table: HeatTable;
  private readonly note = make("p", { class: "note" });
  private readonly detail = make("aside", { class: "lens-detail" });
  private readonly key = make("div");
  private read: Read | null = null;
  private pointed: Place | null = null;

  constructor(private readonly page: Page) {
    const { say, store } = page;
    this.table = new HeatTable({
      point: (cell) => {
        this.pointed = cell;
        this.tell();
      },
      pick: ({ row, column }) => {
        if (!this.read) return;
        const { states, positions } = this.read;
        store.set({
          lensState: states[states.length - 1 - row] ?? null,
          lensPosition: positions[column] ?? null,
        });
      },
    });
    this.element = make(
      "section",
      { class: "lens" },
      make("h2", {}, say("lens.title")),
      make("p", { class: "note" }, say("lens.explain")),
      this.note,
      make("div", { class: "lens-body" }, this.table.element, this.detail),
      this.key,
    );
  }

  show({ state, question }: Scene, now: Answer): void {
    const { say } = this.page;
    const tokens = now.sequences.at(-1)?.tokens ?? [];
    const { seen, error } = this.page.cache.of(lensInquiry(question, state.written, tokens.length));
    this.element.setAttribute("aria-busy", String(!seen && !error));
    const shown = Math.min(tokens.length, MOST_POSITIONS);
    const last = say("lens.last", { count: shown, all: tokens.length });
    this.note.textContent = error?.message ?? (shown < tokens.length ? last : "");
    const told = seen?.answer.logit_lens;
    if (!seen || !told) return;
    if (this.read?.seen !== seen) {
      this.read = { seen, ...told, tokens };
      this.pointed = null;
    }
    this.heat = this.heatOf(this.read);
    const palette = this.page.palette();
    this.table.show(this.heat, palette);
    fill(this.key, legend(this.heat.range, palette, say("lens.legend")));
    this.tell();
  }

  /** The last state stands at the top. */
  private heatOf(read: Read): Heat {
    const { say } = this.page;
    const { states, positions, tokens } = read;
    const rows = states.length;
    const [ids, probs] = [this.best("ids"), this.best("probabilities")];
    const stateOf = (row: number) => rows - 1 - row;
    const names = states.map((state) => this.stateName(state)).reverse();
    const label = (position: number) => visible(tokens[position]?.token ?? "");
    const said = (row: number, column: number) =>
      visible(read.texts[String(ids(stateOf(row), column))] ?? "");
    const width = positions.length;
    const data = Float32Array.from({ length: rows * width }, (_, place) =>
      probs(stateOf(Math.floor(place / width)), place % width),
    );
    return {
      name: say("lens.title"),
      rows: names,
      columns: positions.map(label),
      matrix: { shape: [rows, width], data },
      range: { kind: "weights", most: 1 },
      tell: (row, column) =>
        say("lens.cell", {
          state: names[row] ?? "",
          token: label(positions[column] ?? 0),
          said: said(row, column),
          share: share(data[row * width + column] ?? 0),
        }),
      write: said,
      marked: (row, column) =>
        row > 0 && ids(stateOf(row), column) === ids(states.length - 1, column),
    };
  }

  /** The likeliest of a state and position: its id, or its probability. */
  private best(what: "ids" | "probabilities"): (state: number, column: number) => number {
    const tensor = this.tensor(what);
    const [, columns = 0, top = 0] = tensor.shape;
    return (state, column) => tensor.data[(state * columns + column) * top] ?? 0;
  }

  private tensor(what: "ids" | "probabilities"): Tensor {
    if (!this.read) throw new Error("nothing was read");
    return this.read.seen.tensor(`logit_lens.${what}`);
  }

  private stateName(state: number): string {
    const { say } = this.page;
    return state === 0 ? say("lens.embeddings") : say("lens.layer", { layer: state - 1 });
  }

  /** The likeliest tokens of the cell that is pointed at, or held. */
  private tell(): void {
    const { say, store } = this.page;
    const cell = this.pointed ?? this.held(store.state.lensState, store.state.lensPosition);
    if (!this.read || !cell) {
      fill(this.detail, make("p", { class: "note" }, say("lens.point")));
      return;
    }
    const { states, positions, tokens, texts } = this.read;
    const state = states.length - 1 - cell.row;
    const ids = at(at(this.tensor("ids"), state), cell.column).data;
    const probs = at(at(this.tensor("probabilities"), state), cell.column).data;
    const rows = Array.from(ids, (id, place) => {
      const row = make(
        "li",
        {},
        make("span", { class: "label" }, visible(texts[String(id)] ?? "")),
        make("span", { class: "value" }, share(probs[place] ?? 0)),
      );
      row.style.setProperty("--part", String(probs[place] ?? 0));
      return row;
    });
    const after = visible(tokens[positions[cell.column] ?? 0]?.token ?? "");
    fill(
      this.detail,
      make("h3", {}, this.stateName(states[state] ?? 0), make("small", {}, `… ${after} →`)),
      make("ol", {}, ...rows),
    );
  }

  private held(state: number | null, position: number | null): Place | null {
    if (!this.read || state === null || position === null) return null;
    const { states, positions } = this.read;
    const [at, column] = [states.indexOf(state), positions.indexOf(position)];
    return at < 0 || column < 0 ? null : { row: states.length - 1 - at, column };
  }

  numbers(): unknown {
    if (!this.read) return null;
    const { states, positions, texts } = this.read;
    return {
      states,
      positions,
      texts,
      ids: this.tensor("ids"),
      probabilities: this.tensor("probabilities"),
    };
  }
}
