// Numbers as a table of coloured cells, to point at or to walk through with the arrow keys. With
// very many cells it is one picture, which tells of the cell that is pointed at.

import type { Tensor } from "../data/seen";
import { fill, make } from "../dom";
import { paint, type Range, shadeOf } from "./grid";
import { css, type Palette } from "./palette";

export interface Heat {
  readonly name: string;
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  readonly matrix: Tensor;
  readonly range: Range;
  /** What is said of a cell. */
  tell(row: number, column: number): string;
  /** What is written in it. */
  readonly write?: (row: number, column: number) => string;
  /** Whether it has a frame. */
  readonly marked?: (row: number, column: number) => boolean;
}

/** Cells that are elements of their own. */
const MOST_CELLS = 4000;
/** Columns beyond which nothing is written in cells, so that they can be narrow. */
const MOST_WRITTEN = 24;
/** Pixels of a cell, and those that all of them may take where that leaves them large enough. */
const [LEAST_CELL, MOST_CELL, ROOM] = [14, 32, 420];

export interface Listener {
  /** A cell is pointed at or focused; null when none is any longer. */
  point?(cell: Place | null): void;
  /** A cell is chosen, with the pointer or Enter. */
  pick?(cell: Place): void;
}

export interface Place {
  readonly row: number;
  readonly column: number;
}

export class HeatTable {
  readonly element = make("div", { class: "heat-box" });
  private readonly table = make("table", { class: "heat", role: "grid" });
  private readonly canvas = make("canvas", { class: "heat-canvas", role: "img" });
  private cells: HTMLTableCellElement[] = [];
  private heat: Heat | null = null;
  private shape = "";
  private active: Place = { row: 0, column: 0 };

  constructor(private readonly listener: Listener = {}) {
    const { table, canvas } = this;
    table.addEventListener("pointerover", (event) => listener.point?.(this.placeOf(event.target)));
    table.addEventListener("focusin", (event) => listener.point?.(this.placeOf(event.target)));
    table.addEventListener("click", (event) => this.pick(event.target));
    table.addEventListener("keydown", (event) => this.walk(event));
    for (const element of [table, canvas])
      element.addEventListener("pointerleave", () => listener.point?.(null));
    canvas.addEventListener("pointermove", (event) => listener.point?.(this.pointedOf(event)));
    canvas.addEventListener("click", (event) => listener.pick?.(this.pointedOf(event)));
  }

  show(heat: Heat, palette: Palette): void {
    this.heat = heat;
    if (heat.rows.length * heat.columns.length > MOST_CELLS) {
      paint(this.canvas, heat.matrix, heat.range, palette);
      this.canvas.setAttribute("aria-label", heat.name);
      this.canvas.title = heat.name;
      if (this.element.firstChild !== this.canvas) fill(this.element, this.canvas);
      this.shape = "";
      return;
    }
    const shape = JSON.stringify([heat.rows, heat.columns]);
    if (shape !== this.shape || this.element.firstChild !== this.table) this.build(heat);
    this.shape = shape;
    this.table.setAttribute("aria-label", heat.name);
    const isWritten = heat.write && heat.columns.length <= MOST_WRITTEN;
    this.table.classList.toggle("written", Boolean(isWritten));
    const most = Math.max(heat.rows.length, heat.columns.length);
    const cell = Math.max(LEAST_CELL, Math.min(MOST_CELL, ROOM / most));
    this.table.style.setProperty("--cell", `${cell.toFixed(1)}px`);
    const colours = heat.range.kind === "weights" ? palette.ramp : palette.diverging;
    heat.rows.forEach((_, row) => {
      heat.columns.forEach((_, column) => {
        const cell = this.cells[row * heat.columns.length + column];
        if (!cell) return;
        const value = heat.matrix.data[row * heat.columns.length + column] ?? 0;
        const colour = colours[shadeOf(value, heat.range)] ?? 0;
        cell.style.setProperty("background-color", css(colour));
        cell.style.setProperty("color", readable(colour));
        cell.textContent = isWritten && heat.write ? heat.write(row, column) : "";
        const told = heat.tell(row, column);
        cell.title = told;
        if (isWritten) cell.removeAttribute("aria-label");
        else cell.setAttribute("aria-label", told);
        cell.classList.toggle("marked", heat.marked?.(row, column) ?? false);
      });
    });
  }

  private build({ rows, columns }: Heat): void {
    this.cells = [];
    this.active = { row: 0, column: 0 };
    const names = columns.map((name) =>
      make("th", { scope: "col" }, make("span", { class: "column-name" }, name)),
    );
    const body = rows.map((name, row) => {
      const cells = columns.map((_, column) =>
        make("td", {
          tabindex: row + column === 0 ? 0 : -1,
          "data-row": row,
          "data-column": column,
        }),
      );
      this.cells.push(...cells);
      return make("tr", {}, make("th", { scope: "row" }, name), ...cells);
    });
    const head = make("thead", {}, make("tr", {}, make("td"), ...names));
    fill(this.table, head, make("tbody", {}, ...body));
    fill(this.element, this.table);
  }

  private placeOf(target: EventTarget | null): Place | null {
    const cell = target instanceof Element ? target.closest("td") : null;
    if (!cell?.dataset.row) return null;
    return { row: Number(cell.dataset.row), column: Number(cell.dataset.column) };
  }

  private pick(target: EventTarget | null): void {
    const place = this.placeOf(target);
    if (!place) return;
    this.activate(place);
    this.listener.pick?.(place);
  }

  private pointedOf(event: MouseEvent): Place {
    const { rows, columns } = this.heat ?? { rows: [], columns: [] };
    const box = this.canvas.getBoundingClientRect();
    const at = (part: number, count: number) =>
      Math.max(0, Math.min(count - 1, Math.floor(part * count)));
    const place = {
      row: at((event.clientY - box.top) / box.height, rows.length),
      column: at((event.clientX - box.left) / box.width, columns.length),
    };
    this.canvas.title = this.heat?.tell(place.row, place.column) ?? "";
    return place;
  }

  private walk(event: KeyboardEvent): void {
    const now = this.placeOf(event.target);
    if (!now || !this.heat) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.listener.pick?.(now);
      return;
    }
    const steps: Record<string, readonly [number, number]> = {
      ArrowUp: [-1, 0],
      ArrowDown: [1, 0],
      ArrowLeft: [0, -1],
      ArrowRight: [0, 1],
      Home: [0, -now.column],
      End: [0, this.heat.columns.length - 1 - now.column],
    };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    this.activate({ row: now.row + step[0], column: now.column + step[1] })?.focus();
  }

  /** Makes a cell the one that Tab leads to. */
  private activate({ row, column }: Place): HTMLElement | undefined {
    const width = this.heat?.columns.length ?? 0;
    const next = column >= 0 && column < width ? this.cells[row * width + column] : undefined;
    if (!next) return undefined;
    const before = this.cells[this.active.row * width + this.active.column];
    if (before) before.tabIndex = -1;
    next.tabIndex = 0;
    this.active = { row, column };
    return next;
  }
}

/** Black or white: one of them always reaches the contrast of 4.5 that small letters need. */
function readable(ground: number): string {
  const light = lightness(ground & 255, (ground >> 8) & 255, (ground >> 16) & 255);
  return (light + 0.05) / 0.05 > 1.05 / (light + 0.05) ? "black" : "white";
}

/** Relative luminance, as WCAG 2 defines it. */
function lightness(...parts: readonly [number, number, number]): number {
  const [red, green, blue] = parts.map((part) => {
    const value = part / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * (red ?? 0) + 0.7152 * (green ?? 0) + 0.0722 * (blue ?? 0);
}
