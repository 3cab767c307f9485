// The head view: what each token looks at, of one head or of several at once.

import type { Attention } from "../data/answers";
import {
  attentionOf,
  type Group,
  gathered,
  groupsOf,
  patternInquiry,
  patternOf,
  sidesOf,
  siteOf,
} from "../data/reading";
import type { Tensor } from "../data/seen";
import { draw, fill, make } from "../dom";
import { drawnLinkKey, drawnLinks, type Field, linksOf, paintLinks } from "../draw/links";
import { weight } from "../draw/numbers";
import type { Page, Scene, View } from "../page";
import { headPicture } from "./head-picture";
import { SumTable } from "./head-sums";
import { TokenColumn } from "./token-column";

/** With more tokens than that lines are painted on a canvas. */
const MOST_DRAWN = 60;
const ROW = 26;
const TIGHT_ROW = 16;

export interface HeadScene {
  readonly attention: Attention;
  readonly heads: readonly number[];
  readonly patterns: readonly Tensor[];
  readonly queries: readonly Group[];
  readonly keys: readonly Group[];
}

export function makeHeadView(page: Page): View {
  return new HeadView(page);
}

class HeadView implements View {
  readonly element: HTMLElement;
  private readonly left: TokenColumn;
  private readonly right: TokenColumn;
  private readonly field = make("div", { class: "links", "aria-hidden": true });
  private readonly canvas = make("canvas");
  private readonly least: HTMLInputElement;
  private readonly leastSaid = make("output", { for: "least" });
  private readonly sums: SumTable;
  private readonly about = make("p", { class: "about" });
  private readonly key = make("p", { class: "link-key" });
  private readonly observer = new ResizeObserver(([entry]) => this.resize(entry));
  private hovered: { side: "queries" | "keys"; place: number } | null = null;
  private scene: Scene | null = null;
  private shown: HeadScene | null = null;
  private width = 0;

  constructor(private readonly page: Page) {
    const { say, store } = page;
    this.left = new TokenColumn("queries", say, this);
    this.right = new TokenColumn("keys", say, this);
    this.sums = new SumTable(say);
    this.least = make("input", { type: "range", id: "least", min: 0, max: 0.5, step: 0.01 });
    this.least.addEventListener("input", () => store.set({ least: Number(this.least.value) }));
    const clear = make("button", { type: "button", class: "toggle" }, say("head.clear"));
    clear.addEventListener("click", () => store.set({ queries: [], keys: [] }));
    this.element = make(
      "div",
      { class: "head-view" },
      make(
        "div",
        { class: "bar" },
        this.key,
        this.about,
        make("label", { class: "slider" }, say("head.least"), this.least, this.leastSaid),
        clear,
      ),
      make(
        "div",
        { class: "head-body" },
        make("div", { class: "pairs" }, this.left.element, this.field, this.right.element),
        this.sums.element,
      ),
    );
    const { quiet } = page.palette();
    const key = draw(
      "svg",
      { width: 170, height: 20, "aria-hidden": true },
      drawnLinkKey(quiet, ROW),
    );
    fill(this.key, say("legend.weight"), key);
    this.observer.observe(this.field);
  }

  show(scene: Scene): void {
    this.scene = scene;
    const { state, question, base } = scene;
    const site = siteOf(base.answer, state.site);
    const { seen, error } = this.page.cache.of(patternInquiry(base.answer, question, state.layer));
    this.element.setAttribute("aria-busy", String(!seen && !error));
    if (error) this.about.textContent = error.message;
    const attention = seen && attentionOf(seen.answer, site, state.layer);
    if (!seen || !attention) return;
    const sides = sidesOf(seen.answer, attention);
    const [queries, keys] = [groupsOf(sides.queries, state), groupsOf(sides.keys, state)];
    const patterns = state.heads.map((head) =>
      gathered(patternOf(seen, attention, head), queries, keys),
    );
    this.shown = { attention, heads: state.heads, patterns, queries, keys };
    this.least.value = String(state.least);
    this.leastSaid.textContent = weight(state.least);
    const row = this.row;
    this.element.style.setProperty("--row", `${row}px`);
    this.left.show(queries, new Set(state.queries), state.heads.length);
    this.right.show(keys, new Set(state.keys), state.heads.length);
    fill(this.about, ...aboutOf(attention, state.heads, this.page));
    this.link();
  }

  /** A token is pointed at, or none any longer. */
  hover(side: "queries" | "keys", place: number | null): void {
    this.hovered = place === null ? null : { side, place };
    this.link();
  }

  /** A token is held, or let go. */
  pin(side: "queries" | "keys", group: Group): void {
    const held = this.scene?.state[side] ?? [];
    const rest = held.filter((place) => !group.places.includes(place));
    const next = rest.length < held.length ? rest : [...held, ...group.places];
    this.page.store.set({ [side]: next });
  }

  private get row(): number {
    const { queries, keys } = this.shown ?? { queries: [], keys: [] };
    return Math.max(queries.length, keys.length) > MOST_DRAWN ? TIGHT_ROW : ROW;
  }

  /** The groups that links are shown of: the one pointed at, else those that are held. */
  private focus(side: "queries" | "keys"): Set<number> {
    if (this.hovered) return new Set(this.hovered.side === side ? [this.hovered.place] : []);
    const held = new Set(this.scene?.state[side] ?? []);
    const groups = this.shown?.[side] ?? [];
    return new Set(
      groups.flatMap((group, at) => (group.places.some((one) => held.has(one)) ? [at] : [])),
    );
  }

  private resize(entry: ResizeObserverEntry | undefined): void {
    const width = Math.round(entry?.contentRect.width ?? 0);
    if (width === this.width) return;
    this.width = width;
    this.link();
  }

  private link(): void {
    const { shown, scene } = this;
    if (!shown || !scene) return;
    const wanted = {
      least: scene.state.least,
      queries: this.focus("queries"),
      keys: this.focus("keys"),
    };
    const links = linksOf(shown.patterns, wanted);
    // Asking lays out the whole page: once, and then the observer tells.
    if (this.width === 0) this.width = this.field.clientWidth;
    const rows = Math.max(shown.queries.length, shown.keys.length);
    const field: Field = { width: this.width, height: rows * this.row, row: this.row };
    if (rows > MOST_DRAWN) {
      if (this.field.firstChild !== this.canvas) fill(this.field, this.canvas);
      paintLinks(this.canvas, links, field, this.page.palette().series);
    } else {
      const colours = this.page.palette().series;
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      svg.setAttribute("width", String(field.width));
      svg.setAttribute("height", String(field.height));
      svg.append(drawnLinks(links, field, colours));
      fill(this.field, svg);
    }
    this.left.lean(shown.patterns, wanted.keys, wanted.queries);
    this.right.lean(shown.patterns, wanted.queries, wanted.keys);
    this.sums.show(shown, wanted);
  }

  picture(): SVGSVGElement | null {
    const { shown, scene } = this;
    if (!shown || !scene) return null;
    const wanted = {
      least: scene.state.least,
      queries: this.focus("queries"),
      keys: this.focus("keys"),
    };
    return headPicture(shown, linksOf(shown.patterns, wanted), this.page, scene.base.answer.model);
  }

  numbers(): unknown {
    const { shown } = this;
    if (!shown) return null;
    const { attention, heads, patterns, queries, keys } = shown;
    const labels = (groups: readonly Group[]) => groups.map(({ label }) => label);
    return {
      attention: attention.name,
      heads,
      queries: labels(queries),
      keys: labels(keys),
      patterns: patterns.map(({ shape, data }) => ({ shape, data })),
    };
  }

  close(): void {
    this.observer.disconnect();
  }
}

/** What is special about an attention. */
function aboutOf(attention: Attention, heads: readonly number[], { say }: Page): string[] {
  const said: string[] = [];
  if (attention.window !== null) said.push(say("about.window", { window: attention.window }));
  if (attention.causal) said.push(say("about.causal"));
  if (attention.kv_heads.length < attention.heads.length)
    said.push(
      say(heads.length === 1 ? "about.grouped.one" : "about.grouped", {
        heads: heads.join(", "),
        kv: [
          ...new Set(heads.map((head) => attention.kv_head_of[attention.heads.indexOf(head)])),
        ].join(", "),
      }),
    );
  return said.length > 0 ? [said.join(" · ")] : [];
}
