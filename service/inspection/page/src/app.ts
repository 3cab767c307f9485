// The page around the views: what is read is chosen at its top, a view shows it below.

import type { Answer, ModelInfo, Question } from "./data/answers";
import { Cache } from "./data/cache";
import { firstInquiry, siteOf, sizeOf } from "./data/reading";
import { ServiceError, type Source } from "./data/source";
import { fill, make } from "./dom";
import { type Palette, paletteOf } from "./draw/palette";
import { MOST_HEADS } from "./draw/series";
import type { Page, Scene, View } from "./page";
import { Composer } from "./shell/composer";
import { Controls } from "./shell/controls";
import { Footer } from "./shell/footer";
import { Header } from "./shell/header";
import { Tabs } from "./shell/tabs";
import { Trouble } from "./shell/trouble";
import { type State, Store } from "./state";
import { ENTRIES, type Entry } from "./views";
import { languageOf, type Say, speaker } from "./words";

export class App {
  readonly element = make("div", { class: "app" });
  private readonly store = new Store((before) => this.changed(before));
  private readonly cache: Cache;
  private models: readonly ModelInfo[] | null = null;
  private failure: Error | null = null;
  private shell: Shell | null = null;
  private isDue = false;
  private readonly dark = matchMedia("(prefers-color-scheme: dark)");

  constructor(private readonly source: Source) {
    this.cache = new Cache(source, () => this.drawSoon());
    this.dark.addEventListener("change", () => this.rebuild());
    this.rebuild();
    void this.findModels();
  }

  private async findModels(): Promise<void> {
    this.failure = null;
    try {
      this.models = await this.source.models();
    } catch (error) {
      this.failure = error instanceof Error ? error : new Error(String(error));
    }
    this.rebuild();
  }

  private changed(before: State): void {
    const { state } = this.store;
    const another = state.language !== before.language || state.theme !== before.theme;
    if (
      state.model !== before.model ||
      state.text !== before.text ||
      state.second !== before.second ||
      String(state.written) !== String(before.written)
    )
      this.cache.giveUp();
    if (another) this.rebuild();
    else this.drawSoon();
  }

  /** The whole page anew: in another language, in other colours, with other models. */
  private rebuild(): void {
    this.shell?.close();
    const { language, theme } = this.store.state;
    const chosen = languageOf(language);
    document.documentElement.lang = chosen;
    document.documentElement.dataset.theme = theme || (this.dark.matches ? "dark" : "light");
    this.shell = new Shell(this.store, this.cache, this.models ?? [], speaker(chosen), () => {
      this.cache.forgetErrors();
      if (this.models) this.drawSoon();
      else void this.findModels();
    });
    fill(this.element, ...this.shell.parts);
    this.drawSoon();
  }

  /** Draws once before the next picture of the screen, however often it is asked for. */
  private drawSoon(): void {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.shell?.show(this.failure, this.models !== null);
    });
  }
}

/** The page in one language and one set of colours. */
class Shell implements Page {
  readonly parts: HTMLElement[];
  private readonly live = make("p", { class: "unseen", "aria-live": "polite" });
  private readonly stage = make("div", { class: "stage", id: "stage", role: "tabpanel" });
  private readonly header: Header;
  private readonly composer: Composer;
  private readonly tabs: Tabs;
  private readonly controls: Controls;
  private readonly trouble: Trouble;
  private readonly footer: Footer;
  private colours: Palette | null = null;
  private mounted: { entry: Entry; view: View } | null = null;

  constructor(
    readonly store: Store,
    readonly cache: Cache,
    readonly models: readonly ModelInfo[],
    readonly say: Say,
    again: () => void,
  ) {
    this.header = new Header(this, () => this.mounted?.view ?? null);
    this.composer = new Composer(this);
    this.tabs = new Tabs(this);
    this.controls = new Controls(this);
    this.trouble = new Trouble(this, again);
    this.footer = new Footer(this);
    const main = make("main", { id: "view", tabindex: "-1" }, this.trouble.element, this.stage);
    const skip = make("a", { href: "#view", class: "skip" }, say("skip"));
    skip.addEventListener("click", (event) => {
      event.preventDefault();
      main.focus();
    });
    this.parts = [
      skip,
      this.header.element,
      this.composer.element,
      this.tabs.element,
      this.controls.element,
      main,
      this.footer.element,
      this.live,
    ];
  }

  /** Read once: other colours are another shell. */
  palette = (): Palette => {
    this.colours ??= paletteOf(document.documentElement);
    return this.colours;
  };

  announce(text: string): void {
    this.live.textContent = text;
  }

  close(): void {
    this.mounted?.view.close?.();
    this.header.close();
  }

  show(failure: Error | null, modelsAreKnown: boolean): void {
    const { state } = this.store;
    const question = this.question(state);
    const known = question && this.cache.of(firstInquiry(question)).seen;
    this.composer.show(state, known ? known.answer : null);
    if (!question) {
      this.showNothing(
        failure ?? (modelsAreKnown ? new ServiceError(0, this.say("trouble.none")) : null),
      );
      return;
    }
    const { seen, error } = this.cache.of(firstInquiry(question));
    if (!seen) {
      this.showNothing(error ?? null);
      return;
    }
    if (this.clamp(state, seen.answer)) return;
    const scene = { state, question, base: seen };
    this.trouble.show(null);
    this.stage.setAttribute("aria-busy", "false");
    this.showView(scene);
  }

  private showNothing(error: Error | null): void {
    this.trouble.show(error);
    this.stage.setAttribute("aria-busy", String(!error));
    if (error) this.unmount();
    else if (!this.mounted) fill(this.stage, make("p", { class: "waiting" }, this.say("waiting")));
    // What was shown stays, dimmed, until the next has come.
    if (this.mounted) return;
    this.tabs.hide();
    this.controls.hide();
  }

  private showView(scene: Scene): void {
    const { answer } = scene.base;
    const fitting = ENTRIES.filter((entry) => entry.fits(answer));
    const entry = fitting.find((one) => one.name === scene.state.view) ?? fitting[0];
    if (!entry) return;
    this.tabs.show(fitting, entry);
    this.controls.show(scene, entry);
    this.footer.show(answer);
    document.title = `${this.say(`view.${entry.name}`)} · ${answer.model} · Anatomy`;
    if (this.mounted?.entry !== entry) {
      const hadFocus = this.stage.contains(document.activeElement);
      this.unmount();
      this.mounted = { entry, view: entry.make(this) };
      fill(this.stage, this.mounted.view.element);
      this.stage.setAttribute("aria-labelledby", `tab-${entry.name}`);
      // What had it is gone: a keyboard goes on from the view, not from the top of the page.
      if (hadFocus) this.stage.parentElement?.focus({ preventScroll: true });
    }
    this.mounted.view.show(scene);
  }

  private unmount(): void {
    this.mounted?.view.close?.();
    this.mounted = null;
    fill(this.stage);
  }

  /** What is read: the model that is named, or the first. */
  private question(state: State): Question | null {
    const named = this.models.find((model) => model.name === state.model);
    const model = state.model === "" ? this.models[0]?.name : (named?.name ?? state.model);
    if (model === undefined || this.models.length === 0) return null;
    return { model, text: state.text, second: state.second === "" ? null : state.second };
  }

  /** Brings layer and heads to what the model has and a view can show; whether that changed
   * anything. */
  private clamp(state: State, answer: Answer): boolean {
    const size = sizeOf(answer, siteOf(answer, state.site));
    const heads = state.heads.filter((head) => head < size.heads).slice(0, MOST_HEADS);
    const layer = Math.min(state.layer, size.layers - 1);
    if (layer === state.layer && heads.length === state.heads.length && heads.length > 0)
      return false;
    this.store.correct({ layer, heads: heads.length > 0 ? heads : [0] });
    return true;
  }
}
