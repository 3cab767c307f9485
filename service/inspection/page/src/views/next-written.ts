// The text so far, token by token, and the steps that go on with it.

import type { Answer, Token } from "../data/answers";
import { addedBy, visible } from "../data/reading";
import { fill, make } from "../dom";
import type { Page } from "../page";
import type { Word } from "../words";

interface Steps {
  likeliest(): void;
  draw(): void;
}

export class Written {
  readonly element: HTMLElement;
  private readonly texts = make("div", { class: "running" });
  private readonly back: HTMLButtonElement;
  private readonly over: HTMLButtonElement;

  constructor(
    private readonly page: Page,
    steps: Steps,
  ) {
    const { store } = page;
    this.back = this.button("next.back", () =>
      store.set({ written: store.state.written.slice(0, -1), lensState: null, lensPosition: null }),
    );
    this.over = this.button("next.over", () =>
      store.set({ written: [], lensState: null, lensPosition: null }),
    );
    const likeliest = this.button("next.likeliest", () => steps.likeliest());
    const draw = this.button("next.draw", () => steps.draw());
    likeliest.classList.add("chief");
    const row = make("div", { class: "stepping" }, likeliest, draw, this.back, this.over);
    this.element = make("section", { class: "written-text" }, this.texts, row);
  }

  /** `added` of the last tokens were added here. */
  show({ sequences }: Answer, added: number): void {
    const { say } = this.page;
    const target = sequences.at(-1)?.tokens ?? [];
    const source = sequences.length > 1 ? sequences[0]?.tokens : undefined;
    fill(
      this.texts,
      source ? this.running(say("next.source"), source, source.length) : null,
      this.running(say("next.so-far"), target, target.length - added),
    );
    for (const button of [this.back, this.over]) button.disabled = added === 0;
  }

  private running(name: string, tokens: readonly Token[], own: number): HTMLElement {
    const texts = addedBy(tokens);
    const pieces = tokens.map((token, place) => {
      const shown = token.special || token.text === "" ? visible(token.token) : texts[place];
      const text = shown ?? "";
      const kind = place >= own ? "piece added" : token.special ? "piece special" : "piece";
      return make("span", { class: kind }, text);
    });
    return make(
      "p",
      {},
      make("span", { class: "name" }, name),
      make("span", { class: "pieces" }, ...pieces),
    );
  }

  private button(word: Word, act: () => void): HTMLButtonElement {
    const id = word.replace(".", "-");
    const button = make("button", { type: "button", id, class: "toggle" }, this.page.say(word));
    button.addEventListener("click", act);
    return button;
  }
}
