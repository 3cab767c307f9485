// What is read: the model, its text, and another text where one is wanted.

import type { Answer, Task } from "../data/answers";
import { fill, make } from "../dom";
import type { Page } from "../page";
import type { State } from "../state";

export class Composer {
  readonly element: HTMLFormElement;
  private readonly model: HTMLSelectElement;
  private readonly text = make("textarea", {
    id: "text",
    rows: 1,
    required: true,
    spellcheck: false,
  });
  private readonly second = make("textarea", { id: "second", rows: 1, spellcheck: false });
  private readonly labels = {
    text: make("label", { for: "text" }),
    second: make("label", { for: "second" }),
  };

  constructor(private readonly page: Page) {
    const { say, models, cache } = page;
    const options = models.map(({ name }) => make("option", { value: name }, name));
    this.model = make("select", { id: "model" }, ...options);
    this.model.addEventListener("change", () =>
      page.store.set({ model: this.model.value, written: [] }),
    );
    for (const area of [this.text, this.second]) {
      area.readOnly = !cache.source.live;
      area.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        this.element.requestSubmit();
      });
      area.addEventListener("input", () => grow(area));
    }
    this.element = make(
      "form",
      { class: "composer" },
      make(
        "div",
        { class: "field field-model" },
        make("label", { for: "model" }, say("model")),
        this.model,
      ),
      make("div", { class: "field" }, this.labels.text, this.text),
      make("div", { class: "field" }, this.labels.second, this.second),
      cache.source.live
        ? make("button", { type: "submit", class: "primary" }, say("look"))
        : make("p", { class: "note" }, say("offline")),
    );
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      const { value } = this.text;
      if (value !== "")
        page.store.set({
          text: value,
          second: this.second.value,
          queries: [],
          keys: [],
          query: null,
          key: null,
          written: [],
        });
    });
  }

  /** `answer` says which stacks the model has, once that is known. */
  show(state: State, answer: Answer | null): void {
    const { say, models } = this.page;
    const info = models.find((one) => one.name === state.model) ?? models[0];
    if (info) this.model.value = info.name;
    const task: Task = info?.task ?? "embed";
    const translates = answer?.stacks.encoder !== undefined && answer.stacks.decoder !== undefined;
    const first = translates ? "source" : task === "generate" ? "prompt" : "text";
    fill(this.labels.text, say(first));
    fill(this.labels.second, say(translates ? "second.target" : `second.${task}`));
    for (const [area, value] of [
      [this.text, state.text],
      [this.second, state.second],
    ] as const) {
      // What is being typed stays until it is sent.
      if (document.activeElement === area || area.value === value) continue;
      area.value = value;
      grow(area);
    }
  }
}

/** As high as its text. To know that, the browser lays out the whole page: not for every change. */
function grow(area: HTMLTextAreaElement): void {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight}px`;
}
