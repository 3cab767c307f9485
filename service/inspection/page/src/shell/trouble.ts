// What can't be shown, why, and what to do about it.

import { Service, ServiceError } from "../data/source";
import { fill, make } from "../dom";
import type { Page } from "../page";

const UNAUTHORIZED = 401;
const OFF = 409;

export class Trouble {
  readonly element = make("section", { class: "trouble", role: "alert", hidden: true });
  private shown: Error | null = null;

  constructor(
    private readonly page: Page,
    private readonly again: () => void,
  ) {}

  show(error: Error | null): void {
    this.element.hidden = error === null;
    if (error === this.shown) return;
    this.shown = error;
    if (error) fill(this.element, ...this.parts(error));
    else fill(this.element);
  }

  private parts(error: Error): HTMLElement[] {
    const { say, cache } = this.page;
    const status = error instanceof ServiceError ? error.status : -1;
    const retry = make("button", { type: "button", class: "primary" }, say("again"));
    retry.addEventListener("click", () => this.again());
    if (!cache.source.live) return [make("p", {}, say("trouble.file"))];
    if (status === UNAUTHORIZED) return this.askForKey();
    if (status === OFF)
      return [
        make("h2", {}, say("trouble.off")),
        make("p", {}, say("trouble.off.how")),
        make("pre", {}, "anatomy serve --inspect\nANATOMY_INSPECT=true anatomy serve"),
        make("p", { class: "note" }, error.message),
        retry,
      ];
    if (status === 0)
      return [
        make("h2", {}, say("trouble.unreachable")),
        make("p", { class: "note" }, error.message),
        retry,
      ];
    return [make("h2", {}, say("trouble.refused")), make("p", {}, error.message), retry];
  }

  private askForKey(): HTMLElement[] {
    const { say, cache } = this.page;
    const key = make("input", {
      id: "key",
      type: "password",
      autocomplete: "off",
      spellcheck: false,
      required: true,
    });
    const form = make(
      "form",
      {},
      make("label", { for: "key" }, say("trouble.key.label")),
      key,
      make("button", { type: "submit", class: "primary" }, say("trouble.key.use")),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (cache.source instanceof Service) cache.source.key = key.value.trim();
      this.again();
    });
    return [make("h2", {}, say("trouble.key")), make("p", {}, say("trouble.key.kept")), form];
  }
}
