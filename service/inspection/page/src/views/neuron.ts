// The neuron view: how one query's weights come about, dimension by dimension, step by step.

import { attentionOf, siteOf, visible } from "../data/reading";
import { type Steps, stepInquiry, stepsOf } from "../data/steps";
import { fill, make } from "../dom";
import { distance, share } from "../draw/numbers";
import type { Page, Scene, View } from "../page";
import { equation, inNumbers, STEPS, sentence } from "./equations";
import { neuronPicture } from "./neuron-picture";
import { NeuronTable } from "./neuron-table";

export function makeNeuronView(page: Page): View {
  return new NeuronView(page);
}

class NeuronView implements View {
  readonly element: HTMLElement;
  private readonly queries = make("div", { class: "query-chips", role: "radiogroup" });
  private chips = "";
  private readonly steps = make("ol", { class: "steps" });
  private readonly table: NeuronTable;
  private readonly note = make("p", { class: "note" });
  private shown: { readonly steps: Steps; readonly key: number } | null = null;
  private computed: { readonly of: string; readonly steps: Steps } | null = null;

  constructor(private readonly page: Page) {
    const { say, store } = page;
    this.table = new NeuronTable(page, (key) => store.set({ key }));
    this.queries.setAttribute("aria-label", say("neuron.query"));
    this.queries.addEventListener("keydown", (event) => this.move(event));
    this.element = make(
      "div",
      { class: "neuron-view" },
      make("div", { class: "query-row" }, make("h2", {}, say("neuron.query")), this.queries),
      make("div", { class: "neuron-body" }, this.steps, this.table.element),
      this.note,
    );
  }

  show(scene: Scene): void {
    const { state, question, base } = scene;
    const site = siteOf(base.answer, state.site);
    const head = state.heads[0] ?? 0;
    const inquiry = stepInquiry(base.answer, question, state.layer, head);
    const { seen, error } = this.page.cache.of(inquiry);
    this.element.setAttribute("aria-busy", String(!seen && !error));
    if (error) this.note.textContent = error.message;
    const attention = seen && attentionOf(seen.answer, site, state.layer);
    if (!seen || !attention) return;
    const count = seen.answer.sequences[attention.queries]?.tokens.length ?? 0;
    const query = Math.min(state.query ?? Math.min(2, count - 1), count - 1);
    const of = JSON.stringify([inquiry, site, head, query]);
    if (this.computed?.of !== of)
      this.computed = { of, steps: stepsOf(seen, attention, head, query) };
    const { steps } = this.computed;
    const key = Math.min(state.key ?? strongest(steps), steps.keys.length - 1);
    this.shown = { steps, key };
    this.showQueries(steps);
    this.showSteps(steps, key, state.step);
    this.table.show(steps, key, state.step, state.hideSpecial);
    this.note.textContent = this.page.say("neuron.error", { error: distance(steps.error) });
  }

  private showQueries({ queries, query }: Steps): void {
    const shape = JSON.stringify([query, queries.map(({ token }) => token)]);
    if (shape === this.chips) return;
    this.chips = shape;
    const hadFocus = this.queries.contains(document.activeElement);
    const chips = queries.map((token, place) => {
      const isChosen = place === query;
      const chip = make(
        "button",
        {
          type: "button",
          role: "radio",
          class: "query-chip",
          "aria-checked": String(isChosen),
          tabindex: isChosen ? 0 : -1,
        },
        visible(token.token),
      );
      chip.addEventListener("click", () => this.page.store.set({ query: place, key: null }));
      return chip;
    });
    fill(this.queries, ...chips);
    if (hadFocus) chips[query]?.focus();
  }

  private showSteps(steps: Steps, key: number, upTo: number): void {
    const { say, store } = this.page;
    const hadFocus = this.steps.contains(document.activeElement);
    const items = STEPS.map((step, place) => {
      const number = place + 1;
      const numbers = inNumbers(step, steps, key);
      const button = make(
        "button",
        { type: "button", class: "step", "aria-current": number === upTo ? "step" : null },
        make("span", { class: "step-name" }, `${number}. ${say(`step.${step}`)}`),
        make("span", { class: "equation" }, equation(step, steps)),
      );
      button.addEventListener("click", () => store.set({ step: number }));
      const isNow = number === upTo;
      return make(
        "li",
        { class: number > upTo ? "to-come" : isNow ? "now" : "" },
        button,
        isNow && make("p", {}, sentence(step, steps, say)),
        numbers && number <= upTo && make("p", { class: "numbers" }, numbers),
      );
    });
    fill(this.steps, ...items);
    if (hadFocus) items[upTo - 1]?.querySelector("button")?.focus();
    const weight = steps.weights[key] ?? 0;
    const [from, to] = [steps.queries[steps.query], steps.keys[key]];
    this.steps.setAttribute(
      "aria-label",
      say("neuron.followed", {
        query: from?.token ?? "",
        key: to?.token ?? "",
        weight: share(weight),
      }),
    );
  }

  private move(event: KeyboardEvent): void {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step === undefined || !this.shown) return;
    event.preventDefault();
    const { query, queries } = this.shown.steps;
    const next = (query + step + queries.length) % queries.length;
    this.page.store.set({ query: next, key: null });
  }

  picture(): SVGSVGElement | null {
    return this.shown && neuronPicture(this.shown.steps, this.page);
  }

  numbers(): unknown {
    if (!this.shown) return null;
    const { attention, queries, keys, ...numbers } = this.shown.steps;
    return {
      attention: attention.name,
      scale: attention.scale,
      cap: attention.cap,
      token: queries[numbers.query]?.token,
      keys: keys.map(({ token }) => token),
      ...numbers,
    };
  }
}

/** The key that the query looks at most. */
function strongest({ weights }: Steps): number {
  return weights.reduce((best, weight, key) => (weight > (weights[best] ?? 0) ? key : best), 0);
}
