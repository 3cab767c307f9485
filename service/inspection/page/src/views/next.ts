// What comes next: the distribution after the text, a generation step by step, the logit lens.

import type { Answer, Inquiry, NextTokens, Question, Token } from "../data/answers";
import { type Chances, chancesOf, drawn } from "../data/sampling";
import { fill, make } from "../dom";
import type { Page, Scene, View } from "../page";
import { Bars } from "./next-bars";
import { Lens } from "./next-lens";
import { nextPicture } from "./next-picture";
import { Sliders } from "./next-sliders";
import { Written } from "./next-written";

/** Tokens whose logits are asked for: the sliders need no others. */
const LISTED = 200;

export function nextInquiry(question: Question, written: readonly number[]): Inquiry {
  return { ...question, include: ["next_tokens"], top: LISTED, ...continued(written) };
}

/** Of the tokens that were added, if there are any. */
export function continued(written: readonly number[]): Pick<Inquiry, "continuation"> {
  return written.length > 0 ? { continuation: written } : {};
}

export interface NextScene {
  readonly next: NextTokens;
  readonly chances: Chances;
  /** The tokens that the next one follows: of the target, where there is one. */
  readonly tokens: readonly Token[];
}

export function makeNextView(page: Page): View {
  return new NextView(page);
}

class NextView implements View {
  readonly element: HTMLElement;
  private readonly text: Written;
  private readonly sliders: Sliders;
  private readonly bars: Bars;
  private readonly lens: Lens;
  private readonly trouble = make("p", { class: "note" });
  private scene: Scene | null = null;
  private shown: NextScene | null = null;

  constructor(private readonly page: Page) {
    this.text = new Written(page, {
      likeliest: () => this.take(0),
      draw: () => this.draw(),
    });
    this.sliders = new Sliders(page);
    this.bars = new Bars(page, (place) => this.take(place));
    this.lens = new Lens(page);
    this.element = make(
      "div",
      { class: "next-view" },
      this.text.element,
      this.trouble,
      make("div", { class: "next-body" }, this.bars.element, this.sliders.element),
      this.lens.element,
    );
  }

  show(scene: Scene): void {
    this.scene = scene;
    const { state, question } = scene;
    const { seen, error } = this.page.cache.of(nextInquiry(question, state.written));
    this.element.setAttribute("aria-busy", String(!seen && !error));
    fill(this.trouble, error?.message ?? null);
    this.sliders.show(state, this.shown?.chances ?? null);
    const next = seen?.answer.next_tokens?.[0];
    if (!seen || !next) return;
    const chances = chancesOf(next, state);
    this.shown = { next, chances, tokens: lastOf(seen.answer) };
    this.text.show(seen.answer, state.written.length);
    this.sliders.show(state, chances);
    this.bars.show(this.shown);
    this.lens.show(scene, seen.answer);
  }

  private take(place: number): void {
    const token = this.shown?.next.tokens[place];
    const { store, say } = this.page;
    if (!token || this.element.getAttribute("aria-busy") === "true") return;
    store.set({ written: [...store.state.written, token.id], lensState: null, lensPosition: null });
    this.page.announce(say("next.taken", { token: token.text }));
  }

  /** One by its chance; another time where it falls on one that isn't listed. */
  private draw(): void {
    if (!this.shown) return;
    const { chances } = this.shown;
    const listed = 1 - chances.rest.kept;
    this.take(Math.max(0, drawn(chances, Math.random() * listed)));
  }

  picture(): SVGSVGElement | null {
    if (!this.shown || !this.scene) return null;
    return nextPicture(this.shown, this.lens.heat, this.page, this.scene.base.answer.model);
  }

  numbers(): unknown {
    if (!this.shown) return null;
    const { next, chances, tokens } = this.shown;
    return {
      after: tokens.map(({ token }) => token),
      tokens: next.tokens.map((token, place) => ({ ...token, ...chances.tokens[place] })),
      rest: { tokens: next.rest.tokens, ...chances.rest },
      lens: this.lens.numbers(),
    };
  }
}

/** The tokens of the sequence that goes on. */
function lastOf({ sequences }: Answer): readonly Token[] {
  return sequences.at(-1)?.tokens ?? [];
}
