// How the next token is drawn: temperature, top-k and top-p.

import { type Chances, entropyOf } from "../data/sampling";
import { fill, make } from "../dom";
import { plain } from "../draw/numbers";
import type { Page } from "../page";
import type { State } from "../state";
import type { Word } from "../words";

interface Slider {
  readonly name: "temperature" | "topK" | "topP";
  readonly word: "next.temperature" | "next.top-k" | "next.top-p";
  readonly least: number;
  readonly most: number;
  readonly step: number;
  /** The value that changes nothing. */
  readonly off: number | null;
}

const SLIDERS: readonly Slider[] = [
  { name: "temperature", word: "next.temperature", least: 0, most: 2, step: 0.1, off: null },
  { name: "topK", word: "next.top-k", least: 0, most: 100, step: 1, off: 0 },
  { name: "topP", word: "next.top-p", least: 0.05, most: 1, step: 0.05, off: 1 },
];

export class Sliders {
  readonly element = make("section", { class: "sliders" });
  private readonly told = make("p", { class: "told" });
  private readonly rows: readonly ReturnType<Sliders["row"]>[];

  constructor(private readonly page: Page) {
    this.rows = SLIDERS.map((slider) => this.row(slider));
    fill(this.element, ...this.rows.map(({ element }) => element), this.told);
  }

  show(state: State, chances: Chances | null): void {
    const { say } = this.page;
    for (const { slider, input, said } of this.rows) {
      const value = state[slider.name];
      input.value = String(value);
      said.textContent = value === slider.off ? say("next.off") : plain(value);
    }
    if (!chances) return;
    const values = { count: chances.count, bits: entropyOf(chances).toFixed(1) };
    this.told.textContent = say(chances.rest.kept > 0 ? "next.told.more" : "next.told", values);
  }

  private row(slider: Slider) {
    const { say, store } = this.page;
    const { name, word, least, most, step } = slider;
    const input = make("input", {
      type: "range",
      id: name,
      min: least,
      max: most,
      step,
      "aria-describedby": `${name}-why`,
    });
    input.addEventListener("input", () => store.set({ [name]: Number(input.value) }));
    const said = make("output", { for: name });
    const why: Word = `${word}.why`;
    const element = make(
      "div",
      { class: "slider-row" },
      make("label", { for: name }, say(word)),
      said,
      input,
      make("p", { class: "note", id: `${name}-why` }, say(why)),
    );
    return { slider, input, said, element };
  }
}
