// Which attention is looked at, and how its tokens are put together.

import type { Answer } from "../data/answers";
import { type Site, siteOf, sitesOf, sizeOf } from "../data/reading";
import { fill, make } from "../dom";
import { MOST_HEADS } from "../draw/series";
import type { Page, Scene } from "../page";
import type { State } from "../state";
import type { Entry } from "../views";

export class Controls {
  readonly element = make("div", { class: "controls" });

  constructor(private readonly page: Page) {}

  hide(): void {
    fill(this.element);
  }

  show({ state, base }: Scene, entry: Entry): void {
    const { answer } = base;
    const site = siteOf(answer, state.site);
    const focused = document.activeElement?.id;
    fill(
      this.element,
      entry.ofSites && sitesOf(answer).length > 1 && this.sites(answer, site),
      entry.ofHeads && this.layer(state, answer, site),
      entry.ofHeads && this.heads(state, answer, site, entry.name === "head"),
      entry.ofGroups(answer) && this.tokens(state),
    );
    if (focused && document.activeElement === document.body)
      document.getElementById(focused)?.focus();
  }

  private sites(answer: Answer, chosen: Site): HTMLElement {
    const { say, store } = this.page;
    const buttons = sitesOf(answer).map((site) => {
      const button = make(
        "button",
        { type: "button", id: `site-${site}`, "aria-pressed": String(site === chosen) },
        say(`site.${site}`),
      );
      button.addEventListener("click", () =>
        store.set({ site, queries: [], keys: [], query: null, key: null }),
      );
      return button;
    });
    return group(say("site"), "segments", ...buttons);
  }

  private layer(state: State, answer: Answer, site: Site): HTMLElement {
    const { say, store } = this.page;
    const { layers } = sizeOf(answer, site);
    const options = Array.from({ length: layers }, (_, layer) =>
      make("option", { value: layer, selected: layer === state.layer }, String(layer)),
    );
    const select = make("select", { id: "layer", "aria-label": say("layer") }, ...options);
    select.addEventListener("change", () => store.set({ layer: Number(select.value) }));
    const step = (by: number, sign: string, word: "previous" | "next") => {
      const layer = state.layer + by;
      const button = make(
        "button",
        {
          type: "button",
          id: `layer-${word}`,
          disabled: layer < 0 || layer >= layers,
          "aria-label": `${say("layer")}: ${say(word)}`,
        },
        sign,
      );
      button.addEventListener("click", () => store.set({ layer }));
      return button;
    };
    return group(say("layer"), "stepper", step(-1, "‹", "previous"), select, step(1, "›", "next"));
  }

  /** One head, or several where the view can tell them apart. */
  private heads(state: State, answer: Answer, site: Site, several: boolean): HTMLElement {
    const { say, store } = this.page;
    const size = sizeOf(answer, site);
    const chips = Array.from({ length: size.heads }, (_, head) => {
      const at = several ? state.heads.indexOf(head) : state.heads[0] === head ? 0 : -1;
      const chip = make(
        "button",
        {
          type: "button",
          id: `head-${head}`,
          class: "chip",
          "aria-pressed": String(at >= 0),
          "aria-label": `${say("head")} ${head}`,
        },
        String(head),
      );
      if (at >= 0 && several) chip.style.setProperty("--chip", `var(--series-${at % MOST_HEADS})`);
      chip.addEventListener("click", (event) => {
        if (!several || !(event.shiftKey || event.ctrlKey || event.metaKey || this.adds)) {
          store.set({ heads: [head] });
          return;
        }
        const others = state.heads.filter((one) => one !== head);
        const heads = at >= 0 ? others : [...others, head].slice(-MOST_HEADS);
        if (heads.length > 0) store.set({ heads });
      });
      return chip;
    });
    const row = group(say(several ? "heads" : "head"), "chips", ...chips);
    if (several) row.append(this.adding());
    return row;
  }

  /** Whether a chip is added to those that are chosen, as with the shift key. */
  private adds = false;

  private adding(): HTMLElement {
    const button = make(
      "button",
      { type: "button", id: "several", class: "toggle", "aria-pressed": String(this.adds) },
      this.page.say("several"),
    );
    button.addEventListener("click", () => {
      this.adds = !this.adds;
      button.setAttribute("aria-pressed", String(this.adds));
    });
    return button;
  }

  private tokens(state: State): HTMLElement {
    const { say, store } = this.page;
    const boxes = (["hideSpecial", "mergePieces"] as const).map((name) => {
      const box = make("input", { type: "checkbox", id: name, checked: state[name] });
      box.addEventListener("change", () => store.set({ [name]: box.checked }));
      return make("label", { class: "check" }, box, say(name));
    });
    return group(say("tokens"), "checks", ...boxes);
  }
}

/** Controls that belong together, under a name. */
function group(name: string, kind: string, ...children: HTMLElement[]): HTMLElement {
  return make(
    "div",
    { class: `control ${kind}`, role: "group", "aria-label": name },
    make("span", { class: "name", "aria-hidden": true }, name),
    ...children,
  );
}
