// What the views are given, and what they give: the one contract between them and the page.

import type { ModelInfo, Question } from "./data/answers";
import type { Cache } from "./data/cache";
import type { Seen } from "./data/seen";
import type { Palette } from "./draw/palette";
import type { State, Store } from "./state";
import type { Say } from "./words";

/** What every view may use, as long as it lives. */
export interface Page {
  readonly store: Store;
  readonly cache: Cache;
  readonly models: readonly ModelInfo[];
  readonly say: Say;
  /** The colours of now: asked for anew at each drawing. */
  readonly palette: () => Palette;
  /** Tells what has changed to who can't see it. */
  announce(text: string): void;
}

/** What is looked at now: the state, what is read, and a first answer with its tokens and sizes. */
export interface Scene {
  readonly state: State;
  readonly question: Question;
  readonly base: Seen;
}

/** One view. `show` is called after each change of the state, and when an answer has come. */
export interface View {
  readonly element: HTMLElement;
  show(scene: Scene): void;
  /** What is shown as a drawing that stands by itself; null while there is nothing. */
  picture(): SVGSVGElement | null;
  /** What is shown as numbers, for JSON. */
  numbers(): unknown;
  /** The view is taken off the page: whatever it listens to elsewhere is let go. */
  close?(): void;
}

export type MakeView = (page: Page) => View;
