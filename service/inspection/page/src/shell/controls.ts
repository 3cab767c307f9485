// Which attention is looked at, and how its tokens are put together.

import type { Answer } from "../data/answers";
import { type Site, siteOf, sitesOf, sizeOf } from "../data/reading";
import { fill, make } from "../dom";
import { MOST_HEADS, seriesOf } from "../draw/series";
import type { Page, Scene } from "../page";
import type { State } from "../state";
import type { Entry } from "../views";

/** Brings what was built to a state. */
type Mark = (state: State) => void;

export class Controls {
  readonly element = make("div", { class: "controls" });
  /** What the controls were built for: they are kept as long as that is the same. */
  private built = "";
  private marks: Mark[] = [];
  /** Whether a chip is added to those that are chosen, as with the shift key. */
  private adds = false;

  constructor(private readonly page: Page) {}

  hide(): void {
    this.built = "";
    fill(this.element);
  }

  show({ state, base }: Scene, entry: Entry): void {
    const { answer } = base;
    const site = siteOf(answer, state.site);
    const shape = JSON.stringify([
      answer.model,
      answer.stacks,
      site,
      entry.name,
      entry.ofGroups(answer),
    ]);
    if (shape !== this.built) this.build(answer, site, entry);
    this.built = shape;
    for (const mark of this.marks) mark(state);
  }

  private build(answer: Answer, site: Site, entry: Entry): void {
    this.marks = [];
    const focused = document.activeElement?.id;
    fill(
      this.element,
      entry.ofSites && sitesOf(answer).length > 1 && this.sites(answer, site),
      entry.ofHeads && this.layer(answer, site),
      entry.ofHeads && this.heads(answer, site, entry.name === "head"),
      entry.ofGroups(answer) && this.tokens(),
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

  private layer(answer: Answer, site: Site): HTMLElement {
    const { say, store } = this.page;
    const { layers } = sizeOf(answer, site);
    const options = Array.from({ length: layers }, (_, layer) =>
      make("option", { value: layer }, String(layer)),
    );
    const select = make("select", { id: "layer", "aria-label": say("layer") }, ...options);
    select.addEventListener("change", () => store.set({ layer: Number(select.value) }));
    this.marks.push(({ layer }) => {
      select.value = String(layer);
    });
    const step = (by: number, sign: string, word: "previous" | "next") => {
      const button = make(
        "button",
        { type: "button", id: `layer-${word}`, "aria-label": `${say("layer")}: ${say(word)}` },
        sign,
      );
      button.addEventListener("click", () => store.set({ layer: store.state.layer + by }));
      this.marks.push(({ layer }) => {
        button.disabled = layer + by < 0 || layer + by >= layers;
      });
      return button;
    };
    return group(say("layer"), "stepper", step(-1, "‹", "previous"), select, step(1, "›", "next"));
  }

  /** One head, or several where the view can tell them apart. */
  private heads(answer: Answer, site: Site, several: boolean): HTMLElement {
    const { say, store } = this.page;
    const size = sizeOf(answer, site);
    const chips = Array.from({ length: size.heads }, (_, head) => {
      const chip = make(
        "button",
        {
          type: "button",
          id: `head-${head}`,
          class: "chip",
          "aria-label": `${say("head")} ${head}`,
        },
        String(head),
      );
      chip.addEventListener("click", ({ shiftKey, ctrlKey, metaKey }) => {
        const adds = several && (this.adds || shiftKey || ctrlKey || metaKey);
        store.set({ heads: adds ? toggled(store.state.heads, head) : [head] });
      });
      this.marks.push(({ heads }) => {
        const at = several ? heads.indexOf(head) : heads[0] === head ? 0 : -1;
        chip.setAttribute("aria-pressed", String(at >= 0));
        if (several) chip.style.setProperty("--chip", seriesOf(Math.max(0, at)));
      });
      return chip;
    });
    const row = group(say(several ? "heads" : "head"), "chips", ...chips);
    if (several) row.append(this.adding());
    return row;
  }

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

  private tokens(): HTMLElement {
    const { say, store } = this.page;
    const boxes = (["hideSpecial", "mergePieces"] as const).map((name) => {
      const box = make("input", { type: "checkbox", id: name });
      box.addEventListener("change", () => store.set({ [name]: box.checked }));
      this.marks.push((state) => {
        box.checked = state[name];
      });
      return make("label", { class: "check" }, box, say(name));
    });
    return group(say("tokens"), "checks", ...boxes);
  }
}

/** Some heads with another one, or without it; there is always one. */
function toggled(heads: readonly number[], head: number): readonly number[] {
  const others = heads.filter((one) => one !== head);
  if (others.length === heads.length) return [...heads, head].slice(-MOST_HEADS);
  return others.length > 0 ? others : heads;
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
