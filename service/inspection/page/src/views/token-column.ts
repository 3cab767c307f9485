// One side of the head view: its tokens, which can be pointed at and held.

import type { Group } from "../data/reading";
import type { Tensor } from "../data/seen";
import { fill, make } from "../dom";
import { share } from "../draw/numbers";
import { seriesOf } from "../draw/series";
import type { Say } from "../words";

type Side = "queries" | "keys";

interface Listener {
  hover(side: Side, place: number | null): void;
  pin(side: Side, group: Group): void;
}

export class TokenColumn {
  readonly element: HTMLElement;
  private readonly list: HTMLElement;
  private groups: readonly Group[] = [];
  private buttons: HTMLButtonElement[] = [];
  private meters: HTMLElement[] = [];
  private series = 1;

  constructor(
    private readonly side: Side,
    private readonly say: Say,
    private readonly listener: Listener,
  ) {
    this.list = make("ol", { class: "tokens" });
    this.element = make(
      "div",
      { class: `column ${side}` },
      make("h2", { id: `title-${side}` }, say(`head.${side}`)),
      this.list,
    );
    this.list.setAttribute("aria-labelledby", `title-${side}`);
    this.list.addEventListener("pointerover", (event) => this.point(event.target));
    this.list.addEventListener("pointerleave", () => listener.hover(side, null));
    this.list.addEventListener("focusin", (event) => this.point(event.target));
    this.list.addEventListener("focusout", () => listener.hover(side, null));
    this.list.addEventListener("click", (event) => {
      const group = this.groups[this.placeOf(event.target) ?? -1];
      if (group) listener.pin(side, group);
    });
    this.list.addEventListener("keydown", (event) => this.move(event));
  }

  show(groups: readonly Group[], held: ReadonlySet<number>, series: number): void {
    const same =
      this.series === series &&
      groups.length === this.groups.length &&
      groups.every(({ label }, place) => label === this.groups[place]?.label);
    this.groups = groups;
    if (!same) this.build(series);
    groups.forEach(({ places }, place) => {
      const isHeld = places.some((one) => held.has(one));
      this.buttons[place]?.setAttribute("aria-pressed", String(isHeld));
    });
  }

  private build(series: number): void {
    this.series = series;
    this.meters = [];
    this.buttons = this.groups.map(({ label, special, places }, place) => {
      const bars = Array.from({ length: series }, (_, head) => {
        const bar = make("i");
        bar.style.setProperty("--bar", seriesOf(head));
        return bar;
      });
      const meter = make("span", { class: "meter" }, ...bars);
      this.meters.push(meter);
      return make(
        "button",
        {
          type: "button",
          class: special ? "token special" : "token",
          "data-place": place,
          tabindex: place === 0 ? 0 : -1,
          title: `${this.say("head.token", { place: places[0] ?? 0 })}`,
        },
        meter,
        make("span", { class: "label" }, label),
        make("span", { class: "value" }),
      );
    });
    fill(this.list, ...this.buttons.map((button) => make("li", {}, button)));
  }

  /** Shows how much each token gets from the `others` that are in focus, or gives to them. */
  lean(patterns: readonly Tensor[], others: ReadonlySet<number>, own: ReadonlySet<number>): void {
    this.list.classList.toggle("leaning", others.size > 0);
    this.list.classList.toggle("dimmed", own.size > 0);
    this.buttons.forEach((button, place) => {
      button.classList.toggle("focused", own.has(place));
      const value = button.lastElementChild;
      const meter = this.meters[place];
      if (!meter || !value) return;
      if (others.size === 0) {
        if (value.textContent !== "") value.textContent = "";
        return;
      }
      let total = 0;
      patterns.forEach((pattern, head) => {
        const sum = sumOf(pattern, this.side, place, others);
        const part = this.side === "keys" ? sum / others.size : sum;
        total += part;
        const bar = meter.children[head];
        if (bar instanceof HTMLElement) bar.style.setProperty("--part", part.toFixed(4));
      });
      value.textContent = share(total / patterns.length);
    });
  }

  private point(target: EventTarget | null): void {
    this.listener.hover(this.side, this.placeOf(target));
  }

  private placeOf(target: EventTarget | null): number | null {
    const button = target instanceof Element ? target.closest("button") : null;
    const place = button?.dataset.place;
    return place === undefined ? null : Number(place);
  }

  private move(event: KeyboardEvent): void {
    const now = this.placeOf(event.target);
    const steps: Record<string, number> = {
      ArrowDown: 1,
      ArrowUp: -1,
      Home: -this.groups.length,
      End: this.groups.length,
    };
    const step = steps[event.key];
    if (now === null || step === undefined) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(this.buttons.length - 1, now + step));
    this.buttons.forEach((button, place) => {
      button.tabIndex = place === next ? 0 : -1;
    });
    this.buttons[next]?.focus();
  }
}

/** The weights between a token at one side and `others` at the other side, together. */
export function sumOf(
  { shape, data }: Tensor,
  side: Side,
  place: number,
  others: ReadonlySet<number>,
): number {
  const [, columns = 0] = shape;
  let sum = 0;
  for (const other of others)
    sum += (side === "keys" ? data[other * columns + place] : data[place * columns + other]) ?? 0;
  return sum;
}
