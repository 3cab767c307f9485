// The likeliest next tokens as bars, each a button that goes on with it.

import { visible } from "../data/reading";
import { fill, make } from "../dom";
import { share } from "../draw/numbers";
import type { Page } from "../page";
import type { NextScene } from "./next";

export const MOST_BARS = 16;

export class Bars {
  readonly element: HTMLElement;
  private readonly list = make("ol", { class: "chances" });
  private readonly ended = make("p", { class: "note" });

  /** `take` is called with the place of the token that is chosen. */
  constructor(
    private readonly page: Page,
    private readonly take: (place: number) => void,
  ) {
    const { say } = page;
    this.list.addEventListener("click", (event) => {
      const button = event.target instanceof Element ? event.target.closest("button") : null;
      if (button) this.take(Number(button.dataset.place));
    });
    this.element = make(
      "section",
      { class: "next-bars" },
      make("h2", {}, say("next.title")),
      this.list,
      this.ended,
      make("p", { class: "note" }, say("next.explain")),
    );
  }

  show({ next, chances }: NextScene): void {
    const { say } = this.page;
    const focused = document.activeElement?.id;
    const rows = next.tokens.slice(0, MOST_BARS).map((token, place) => {
      const chance = chances.tokens[place] ?? { tempered: 0, kept: 0 };
      const name = visible(token.text);
      const told = { token: name, share: share(chance.kept) };
      const button = make(
        "button",
        {
          type: "button",
          id: `chance-${place}`,
          "data-place": place,
          title: say("next.add", told),
          class: chance.kept > 0 ? "chance" : "chance out",
        },
        make("span", { class: token.special ? "label special" : "label" }, name),
        bar(chance.kept, chance.tempered),
        make(
          "span",
          { class: "value" },
          chance.kept > 0 ? share(chance.kept) : say("next.excluded"),
        ),
      );
      return make("li", {}, button);
    });
    const unlisted = chances.tokens.slice(MOST_BARS);
    const total = (of: "kept" | "tempered") =>
      unlisted.reduce((sum, chance) => sum + chance[of], chances.rest[of]);
    const count = next.rest.tokens + Math.max(0, next.tokens.length - MOST_BARS);
    const rest = make(
      "li",
      { class: total("kept") > 0 ? "chance rest" : "chance rest out" },
      make("span", { class: "label" }, say("next.rest", { count: count.toLocaleString() })),
      bar(total("kept"), total("tempered")),
      make(
        "span",
        { class: "value" },
        total("kept") > 0 ? share(total("kept")) : say("next.excluded"),
      ),
    );
    fill(this.list, ...rows, count > 0 ? rest : null);
    this.ended.textContent = next.tokens[0]?.ends ? say("next.ended") : "";
    if (focused?.startsWith("chance-")) document.getElementById(focused)?.focus();
  }
}

function bar(kept: number, tempered: number): HTMLElement {
  const element = make("span", { class: "bar-of", "aria-hidden": true });
  element.style.setProperty("--kept", String(kept));
  element.style.setProperty("--tempered", String(tempered));
  return element;
}
