// The name of the page, how it looks, and what can be saved of it.

import { make } from "../dom";
import { pageOf } from "../export/html";
import { jsonOf } from "../export/json";
import { pngOf, save, svgOf } from "../export/picture";
import type { Page, View } from "../page";

const THEMES = ["", "light", "dark"] as const;
const LANGUAGES = { en: "English", ja: "日本語" } as const;

export class Header {
  readonly element: HTMLElement;
  private readonly menu: HTMLDetailsElement;
  private readonly leave = (event: Event) => {
    if (event.target instanceof Node && !this.menu.contains(event.target)) this.menu.open = false;
  };

  constructor(
    private readonly page: Page,
    private readonly view: () => View | null,
  ) {
    const { say } = page;
    this.menu = this.saving();
    document.addEventListener("pointerdown", this.leave);
    this.element = make(
      "header",
      {},
      make("h1", {}, make("span", { class: "mark" }, "Anatomy"), " ", say("title")),
      make("div", { class: "looks" }, this.language(), this.theme(), this.menu),
    );
  }

  close(): void {
    document.removeEventListener("pointerdown", this.leave);
  }

  private language(): HTMLElement {
    const { store, say } = this.page;
    const options = Object.entries(LANGUAGES).map(([value, name]) =>
      make(
        "option",
        { value, lang: value, selected: document.documentElement.lang === value },
        name,
      ),
    );
    const select = make("select", { id: "language", "aria-label": say("language") }, ...options);
    select.addEventListener("change", () =>
      store.set({ language: select.value === "ja" ? "ja" : "en" }),
    );
    return select;
  }

  private theme(): HTMLElement {
    const { store, say } = this.page;
    const options = THEMES.map((theme) =>
      make(
        "option",
        { value: theme, selected: store.state.theme === theme },
        say(`theme.${theme}`),
      ),
    );
    const select = make("select", { id: "theme", "aria-label": say("theme") }, ...options);
    select.addEventListener("change", () =>
      store.set({ theme: THEMES.find((one) => one === select.value) ?? "" }),
    );
    return select;
  }

  private saving(): HTMLDetailsElement {
    const { say, store } = this.page;
    const items: [id: string, act: (button: HTMLButtonElement) => Promise<void>][] = [
      [
        "link",
        async (button) => {
          await navigator.clipboard.writeText(store.link);
          button.textContent = say("export.copied");
          this.page.announce(say("export.copied"));
        },
      ],
      ["png", async () => this.drawn(async (svg) => save(await pngOf(svg), "png", store.state))],
      ["svg", async () => this.drawn(async (svg) => save(svgOf(svg), "svg", store.state))],
      ["json", async () => save(jsonOf(this.page, this.view()), "json", store.state)],
      [
        "html",
        async (button) => {
          const page = await pageOf(this.page, (done, all) => {
            button.textContent = say("export.gathering", { done, all });
          });
          save(page, "html", store.state);
          button.textContent = say("export.html");
        },
      ],
    ];
    const buttons = items.map(([id, act]) => {
      const word = `export.${id}` as Parameters<typeof say>[0];
      const button = make("button", { type: "button", id: `save-${id}` }, say(word));
      button.addEventListener("click", async () => {
        button.disabled = true;
        try {
          await act(button);
        } catch (error) {
          this.page.announce(String(error));
          button.textContent = String(error);
        }
        button.disabled = false;
      });
      return button;
    });
    const menu = make(
      "details",
      { class: "menu" },
      make("summary", {}, say("export")),
      make("div", { class: "items" }, ...buttons),
    );
    menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      menu.open = false;
      menu.querySelector("summary")?.focus();
    });
    return menu;
  }

  private async drawn(act: (svg: SVGSVGElement) => Promise<void>): Promise<void> {
    const svg = this.view()?.picture();
    if (svg) await act(svg);
  }
}
