// The model view: every head of every layer as a small map.

import type { Attention } from "../data/answers";
import {
  attentionOf,
  gathered,
  groupsOf,
  patternInquiry,
  patternOf,
  type Site,
  sidesOf,
  siteOf,
  sizeOf,
} from "../data/reading";
import { fill, make } from "../dom";
import { paint, rangeOf, shrunk } from "../draw/grid";
import type { Page, Scene, View } from "../page";
import type { Say } from "../words";
import { type HeadMap, MapPreview } from "./map-preview";
import { modelPicture } from "./model-picture";

/** Pixels of a small map at most: more could not be seen. */
const MOST_PIXELS = 96;

export function makeModelView(page: Page): View {
  return new ModelView(page);
}

interface Cell {
  readonly layer: number;
  readonly head: number;
  readonly button: HTMLButtonElement;
  readonly canvas: HTMLCanvasElement;
}

class ModelView implements View {
  readonly element: HTMLElement;
  private readonly grid = make("div", { class: "maps", role: "group" });
  private readonly preview: MapPreview;
  private cells: Cell[] = [];
  private rows: HTMLElement[] = [];
  private readonly seenRows = new Set<number>();
  private readonly painted = new Map<number, string>();
  private scene: Scene | null = null;
  private built = "";
  private pointed: { layer: number; head: number } | null = null;
  private readonly observer = new IntersectionObserver((entries) => this.appear(entries), {
    rootMargin: "300px",
  });

  constructor(private readonly page: Page) {
    this.preview = new MapPreview(page);
    this.grid.setAttribute("aria-label", page.say("view.model"));
    this.grid.addEventListener("pointerover", (event) => this.point(event.target));
    this.grid.addEventListener("focusin", (event) => this.point(event.target));
    this.grid.addEventListener("keydown", (event) => this.move(event));
    this.grid.addEventListener("click", (event) => {
      const cell = this.cellOf(event.target);
      if (cell) page.store.set({ view: "head", layer: cell.layer, heads: [cell.head] });
    });
    this.element = make(
      "div",
      { class: "model-view" },
      make("div", { class: "maps-box" }, this.grid),
      this.preview.element,
    );
  }

  show(scene: Scene): void {
    this.scene = scene;
    const { answer } = scene.base;
    const site = siteOf(answer, scene.state.site);
    const { layers, heads, kv_heads } = sizeOf(answer, site);
    const shape = `${answer.model} ${site} ${layers} ${heads}`;
    if (shape !== this.built) this.build(shape, layers, heads, kv_heads);
    const { question, state } = scene;
    const palette = this.page.palette();
    const reading = `${JSON.stringify(question)} ${state.hideSpecial} ${state.mergePieces}`;
    let waits = false;
    for (const layer of this.seenRows) {
      if (this.painted.get(layer) === reading) continue;
      const { seen, error } = this.page.cache.of(patternInquiry(answer, question, layer));
      const attention = seen && attentionOf(seen.answer, site, layer);
      waits ||= !seen && !error;
      const row = this.rows[layer];
      if (row) row.title = error?.message ?? "";
      if (!attention) continue;
      if (row) fill(row, ...labelOf(layer, attention, this.page));
      for (const cell of this.cells.slice(layer * heads, (layer + 1) * heads)) {
        const map = this.map(cell.layer, cell.head);
        if (map)
          paint(
            cell.canvas,
            shrunk(map.matrix, MOST_PIXELS),
            rangeOf(map.matrix.data, "weights"),
            palette,
          );
      }
      this.painted.set(layer, reading);
    }
    this.element.setAttribute("aria-busy", String(waits));
    this.showPreview();
  }

  private build(shape: string, layers: number, heads: number, kvHeads: number): void {
    this.built = shape;
    this.painted.clear();
    this.seenRows.clear();
    this.observer.disconnect();
    this.cells = [];
    this.rows = [];
    const { say } = this.page;
    this.grid.style.setProperty("--heads", String(heads));
    const parts: HTMLElement[] = [];
    if (kvHeads < heads) parts.push(make("span"), ...groupsOfHeads(heads, kvHeads, say));
    parts.push(make("span", { class: "corner" }, say("layer")));
    for (let head = 0; head < heads; head++)
      parts.push(
        make("span", { class: "head-name" }, `${head === 0 ? `${say("head")} ` : ""}${head}`),
      );
    for (let layer = 0; layer < layers; layer++) {
      const row = make("span", { class: "layer-name", "data-layer": layer }, String(layer));
      this.rows.push(row);
      this.observer.observe(row);
      parts.push(row);
      for (let head = 0; head < heads; head++) {
        const canvas = make("canvas", { width: 1, height: 1 });
        const button = make(
          "button",
          {
            type: "button",
            class: "map",
            "data-layer": layer,
            "data-head": head,
            tabindex: layer + head === 0 ? 0 : -1,
            "aria-label": say("model.cell", { layer, head }),
          },
          canvas,
        );
        this.cells.push({ layer, head, button, canvas });
        parts.push(button);
      }
    }
    fill(this.grid, ...parts);
  }

  /** A head's pattern as it is shown, if it has come. */
  private map(layer: number, head: number): HeadMap | null {
    if (!this.scene) return null;
    const { base, question, state } = this.scene;
    const site: Site = siteOf(base.answer, state.site);
    const { seen } = this.page.cache.of(patternInquiry(base.answer, question, layer));
    const attention = seen && attentionOf(seen.answer, site, layer);
    if (!seen || !attention?.heads.includes(head)) return null;
    const sides = sidesOf(seen.answer, attention);
    const [queries, keys] = [groupsOf(sides.queries, state), groupsOf(sides.keys, state)];
    const matrix = gathered(patternOf(seen, attention, head), queries, keys);
    return { attention, head, matrix, queries, keys };
  }

  private showPreview(): void {
    if (!this.scene) return;
    const { state } = this.scene;
    const { layer, head } = this.pointed ?? { layer: state.layer, head: state.heads[0] ?? 0 };
    for (const cell of this.cells)
      cell.button.classList.toggle("chosen", cell.layer === layer && cell.head === head);
    const map = this.map(layer, head);
    if (map) this.preview.show(map);
  }

  private appear(entries: readonly IntersectionObserverEntry[]): void {
    for (const { target, isIntersecting } of entries) {
      const layer = Number(target instanceof HTMLElement && target.dataset.layer);
      if (isIntersecting) this.seenRows.add(layer);
      else this.seenRows.delete(layer);
    }
    if (this.scene) this.show(this.scene);
  }

  private cellOf(target: EventTarget | null): Cell | undefined {
    const button = target instanceof Element ? target.closest("button") : null;
    return this.cells.find((cell) => cell.button === button);
  }

  private point(target: EventTarget | null): void {
    const cell = this.cellOf(target);
    if (!cell) return;
    this.pointed = { layer: cell.layer, head: cell.head };
    this.showPreview();
  }

  private move(event: KeyboardEvent): void {
    const now = this.cellOf(event.target);
    if (!now || !this.scene) return;
    const { heads } = sizeOf(
      this.scene.base.answer,
      siteOf(this.scene.base.answer, this.scene.state.site),
    );
    const steps: Record<string, number> = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -heads,
      ArrowDown: heads,
    };
    const step = steps[event.key];
    const next = this.cells[this.cells.indexOf(now) + (step ?? 0)];
    if (step === undefined || !next) return;
    event.preventDefault();
    now.button.tabIndex = -1;
    next.button.tabIndex = 0;
    next.button.focus();
  }

  picture(): SVGSVGElement | null {
    if (!this.scene) return null;
    const { answer } = this.scene.base;
    const { layers, heads } = sizeOf(answer, siteOf(answer, this.scene.state.site));
    const maps = Array.from({ length: layers }, (_, layer) =>
      Array.from({ length: heads }, (_, head) => this.map(layer, head)),
    );
    return modelPicture(maps, answer.model, this.page);
  }

  numbers(): unknown {
    return this.cells.flatMap(({ layer, head }) => {
      const map = this.map(layer, head);
      if (!map) return [];
      const { attention, matrix, queries, keys } = map;
      const labels = (groups: typeof keys) => groups.map(({ label }) => label);
      return [
        {
          attention: attention.name,
          head,
          queries: labels(queries),
          keys: labels(keys),
          ...matrix,
        },
      ];
    });
  }

  close(): void {
    this.observer.disconnect();
  }
}

/** Names above the query heads that read one key-value head together. */
function groupsOfHeads(heads: number, kvHeads: number, say: Say): HTMLElement[] {
  const together = heads / kvHeads;
  return Array.from({ length: kvHeads }, (_, kv) => {
    const range = { kv, first: kv * together, last: (kv + 1) * together - 1 };
    const mark = make("span", { class: "shared", title: say("model.grouped", range) }, `kv ${kv}`);
    mark.style.gridColumn = `span ${together}`;
    return mark;
  });
}

/** A layer's number, and what is special about it. */
function labelOf(layer: number, attention: Attention, { say }: Page): (string | HTMLElement)[] {
  const { window } = attention;
  if (window === null) return [String(layer)];
  return [
    String(layer),
    make("small", { title: say("about.window", { window }) }, say("model.local", { window })),
  ];
}
