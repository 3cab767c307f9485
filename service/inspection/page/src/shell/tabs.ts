// Which view is shown.

import { fill, make } from "../dom";
import type { Page } from "../page";
import type { Entry } from "../views";

export class Tabs {
  readonly element: HTMLElement;
  private readonly list: HTMLElement;

  constructor(private readonly page: Page) {
    this.list = make("div", { role: "tablist", "aria-label": page.say("views") });
    this.list.addEventListener("keydown", (event) => this.move(event));
    this.element = make("nav", { class: "tabs" }, this.list);
  }

  /** The views there are tabs of, and the one that is shown. */
  private built: readonly unknown[] = [];

  hide(): void {
    this.built = [];
    fill(this.list);
  }

  show(entries: readonly Entry[], shown: Entry): void {
    const wanted = [shown, ...entries];
    if (wanted.length === this.built.length && wanted.every((one, at) => one === this.built[at]))
      return;
    this.built = wanted;
    const hadFocus = this.list.contains(document.activeElement);
    const tabs = entries.map((entry) => {
      const isShown = entry === shown;
      const tab = make(
        "button",
        {
          type: "button",
          role: "tab",
          id: `tab-${entry.name}`,
          "aria-selected": String(isShown),
          "aria-controls": "stage",
          tabindex: isShown ? 0 : -1,
        },
        this.page.say(`view.${entry.name}`),
      );
      tab.addEventListener("click", () => this.page.store.set({ view: entry.name }));
      return tab;
    });
    fill(this.list, ...tabs);
    const chosen = tabs[entries.indexOf(shown)];
    if (hadFocus) chosen?.focus();
    if (chosen) this.bringIntoView(chosen);
  }

  /** Small screens have no room for all tabs. The page itself stays where it is. */
  private bringIntoView(tab: HTMLElement): void {
    const [room, own] = [this.list.getBoundingClientRect(), tab.getBoundingClientRect()];
    this.list.scrollLeft += Math.min(0, own.left - room.left) + Math.max(0, own.right - room.right);
  }

  private move(event: KeyboardEvent): void {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const tabs = [...this.list.querySelectorAll("button")];
    const now = tabs.findIndex((tab) => tab.getAttribute("aria-selected") === "true");
    tabs[(now + step + tabs.length) % tabs.length]?.click();
  }
}
