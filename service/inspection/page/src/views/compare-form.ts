// What the other side is, and what is shown of both.

import type { Question } from "../data/answers";
import { make } from "../dom";
import type { Page, Scene } from "../page";

const SHOWS = ["rollout", "mean", "head"] as const;

export class CompareForm {
  readonly element: HTMLFormElement;
  private readonly model: HTMLSelectElement;
  private readonly text = make("input", { type: "text", id: "other-text", spellcheck: false });
  private readonly shows: HTMLSelectElement;

  constructor(page: Page) {
    const { say, store, models, cache } = page;
    this.model = make(
      "select",
      { id: "other-model" },
      make("option", { value: "" }, say("compare.same")),
      ...models.map(({ name }) => make("option", { value: name }, name)),
    );
    this.model.addEventListener("change", () => store.set({ otherModel: this.model.value }));
    this.shows = make(
      "select",
      { id: "shows" },
      ...SHOWS.map((one) => make("option", { value: one }, say(`compare.${one}`))),
    );
    this.shows.addEventListener("change", () =>
      store.set({ shows: SHOWS.find((one) => one === this.shows.value) ?? "rollout" }),
    );
    this.text.readOnly = !cache.source.live;
    const field = (id: string, name: string, input: HTMLElement) =>
      make("div", { class: "field" }, make("label", { for: id }, name), input);
    this.element = make(
      "form",
      { class: "compare-form" },
      field("other-model", say("compare.model"), this.model),
      field("other-text", say("compare.text"), this.text),
      make("button", { type: "submit", class: "toggle" }, say("compare.look")),
      field("shows", say("compare.shows"), this.shows),
    );
    this.element.setAttribute("aria-label", say("compare.with"));
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      const { value } = this.text;
      // The same text goes on being the same when the first one changes.
      store.set({ otherText: value === store.state.text ? "" : value });
    });
  }

  show({ state }: Scene, other: Question): void {
    this.model.value = state.otherModel;
    this.shows.value = state.shows;
    if (document.activeElement !== this.text) this.text.value = other.text;
  }
}
