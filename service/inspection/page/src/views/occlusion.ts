// What a class hangs on: its probability without each token.

import type { Answer, Inquiry, Question, Token } from "../data/answers";
import { visible } from "../data/reading";
import type { Seen } from "../data/seen";
import { fill, make } from "../dom";
import { type Range, rangeOf, shadeOf } from "../draw/grid";
import { score, share } from "../draw/numbers";
import { css } from "../draw/palette";
import { legend } from "../draw/pictures";
import type { Page, Scene, View } from "../page";
import { occlusionPicture } from "./occlusion-picture";

export function scoresInquiry(question: Question): Inquiry {
  return { ...question, include: ["class_scores"] };
}

export function occlusionInquiry(question: Question): Inquiry {
  return { ...question, include: ["attributions"] };
}

/** Classes that are listed, and how many of them at least. */
const MOST_CLASSES = 10;

export interface ClassScore {
  readonly label: string;
  readonly probability: number;
}

export interface Occluded {
  readonly token: Token;
  /** The probability without it, and what that is less; null for what frames the text. */
  readonly without: number | null;
  readonly drop: number | null;
  /** The class that is likeliest then. */
  readonly likeliest: string;
}

export class Occlusion implements View {
  readonly element: HTMLElement;
  private readonly classes = make("ol", { class: "classes" });
  private readonly title = make("h2");
  private readonly text = make("p", { class: "pieces coloured" });
  private readonly rows = make("tbody");
  private readonly key = make("div");
  private readonly note = make("p", { class: "note" });
  private readonly rest = make("p", { class: "note" });
  private scene: Scene | null = null;
  private scores: readonly ClassScore[] = [];
  private tokens: readonly Occluded[] = [];
  private range: Range = { kind: "signed", most: 1 };

  constructor(private readonly page: Page) {
    const { say } = page;
    this.classes.addEventListener("click", (event) => {
      const button = event.target instanceof Element ? event.target.closest("button") : null;
      if (button) page.store.set({ label: button.dataset.label ?? "" });
    });
    const columns = [
      "vectors.token",
      "occlusion.without",
      "occlusion.change",
      "occlusion.likeliest",
    ] as const;
    const head = columns.map((word) => make("th", { scope: "col" }, say(word)));
    this.element = make(
      "div",
      { class: "occlusion" },
      make(
        "section",
        { class: "class-list" },
        make("h2", {}, say("classes.title")),
        this.classes,
        this.rest,
      ),
      make(
        "section",
        { class: "hangs-on" },
        this.title,
        this.text,
        this.key,
        this.note,
        make("table", { class: "occluded" }, make("thead", {}, make("tr", {}, ...head)), this.rows),
      ),
    );
  }

  show(scene: Scene): void {
    this.scene = scene;
    const { state, question } = scene;
    const scored = this.page.cache.of(scoresInquiry(question));
    this.element.setAttribute("aria-busy", String(!scored.seen && !scored.error));
    if (scored.error) fill(this.note, scored.error.message);
    const told = scored.seen?.answer.class_scores;
    if (!told) return;
    this.scores = [...told].sort((a, b) => b.probability - a.probability);
    const label = this.scores.some((one) => one.label === state.label)
      ? state.label
      : (this.scores[0]?.label ?? "");
    this.list(label);
    const { seen, error } = this.page.cache.of(occlusionInquiry(question));
    this.title.textContent = this.page.say("occlusion.title", { label });
    fill(this.note, error?.message ?? this.page.say("occlusion.why"));
    this.tokens = seen ? occludedOf(seen, told, label) : [];
    this.colour();
  }

  private list(chosen: string): void {
    const { say } = this.page;
    const focused = document.activeElement?.id;
    const rows = this.scores.slice(0, MOST_CLASSES).map(({ label, probability }, place) => {
      const button = make(
        "button",
        {
          type: "button",
          id: `class-${place}`,
          class: "chance",
          "data-label": label,
          "aria-pressed": String(label === chosen),
          title: say("classes.choose", { label, share: share(probability) }),
        },
        make("span", { class: "label" }, label),
        barOf(probability),
        make("span", { class: "value" }, share(probability)),
      );
      return make("li", {}, button);
    });
    fill(this.classes, ...rows);
    const more = this.scores.length - rows.length;
    this.rest.textContent = more > 0 ? say("classes.more", { count: more }) : "";
    if (focused?.startsWith("class-")) document.getElementById(focused)?.focus();
  }

  private colour(): void {
    const { say } = this.page;
    const palette = this.page.palette();
    const drops = this.tokens.map(({ drop }) => drop ?? 0);
    this.range = rangeOf(Float32Array.from(drops), "signed");
    const pieces = this.tokens.map(({ token, drop }) => {
      const name = token.special ? visible(token.token) : spaced(token);
      const piece = make("span", { class: token.special ? "piece special" : "piece" }, name);
      if (drop === null) return piece;
      const colour = palette.diverging[shadeOf(drop / 1.6, this.range)] ?? 0;
      piece.style.setProperty("background-color", css(colour));
      piece.title = say("occlusion.cell", { token: visible(token.token), change: score(drop) });
      return piece;
    });
    fill(this.text, ...pieces);
    fill(
      this.key,
      this.tokens.length > 0 ? legend(this.range, palette, say("occlusion.legend")) : null,
    );
    const rows = this.tokens
      .filter(({ drop }) => drop !== null)
      .map(({ token, without, drop, likeliest }) => {
        const change = make("td", { class: "number" }, signedShare(drop ?? 0));
        const colour = palette.diverging[shadeOf((drop ?? 0) / 1.6, this.range)] ?? 0;
        change.style.setProperty("--tint", css(colour));
        return make(
          "tr",
          {},
          make("th", { scope: "row" }, visible(token.token)),
          make("td", { class: "number" }, share(without ?? 0)),
          change,
          make("td", {}, likeliest),
        );
      });
    fill(this.rows, ...rows);
  }

  picture(): SVGSVGElement | null {
    const { scene, scores, tokens, range } = this;
    if (!scene || scores.length === 0) return null;
    return occlusionPicture(scores.slice(0, MOST_CLASSES), tokens, range, this.page, scene);
  }

  numbers(): unknown {
    return {
      classes: this.scores,
      without: this.tokens.map(({ token, ...rest }) => ({ token: token.token, ...rest })),
    };
  }
}

/** Each token, and what is known of the text without it. */
function occludedOf(
  seen: Seen,
  scores: NonNullable<Answer["class_scores"]>,
  label: string,
): readonly Occluded[] {
  const told = seen.answer.attributions;
  const tokens = seen.answer.sequences[0]?.tokens ?? [];
  const at = scores.findIndex((one) => one.label === label);
  if (!told || at < 0) return [];
  const { data } = seen.tensor("occluded");
  return tokens.map((token, place) => {
    const row = told.positions.indexOf(place);
    if (row < 0) return { token, without: null, drop: null, likeliest: "" };
    const probs = data.subarray(row * scores.length, (row + 1) * scores.length);
    const without = probs[at] ?? 0;
    const best = probs.reduce((best, one, place) => (one > (probs[best] ?? 0) ? place : best), 0);
    const drop = (scores[at]?.probability ?? 0) - without;
    return { token, without, drop, likeliest: scores[best]?.label ?? "" };
  });
}

/** A token as a part of running text: pieces of a word stand together. */
function spaced({ text, token }: Token): string {
  return text.trim() === "" ? visible(token) : text;
}

function signedShare(drop: number): string {
  const said = share(Math.abs(drop));
  return Math.abs(drop) < 0.0005 ? said : `${drop < 0 ? "−" : "+"}${said}`;
}

function barOf(part: number): HTMLElement {
  const element = make("span", { class: "bar-of", "aria-hidden": true });
  element.style.setProperty("--kept", String(part));
  element.style.setProperty("--tempered", "0");
  return element;
}
