// The one table of what is said: each entry has English first, then Japanese.

import { VIEWS_OF_ATTENTION } from "./attention";
import { VIEW_OF_COMPARISON } from "./compare";
import { VIEW_OF_NEXT } from "./next";
import { SHELL } from "./shell";
import { VIEW_OF_VECTORS } from "./vectors";

const TABLE = {
  ...SHELL,
  ...VIEWS_OF_ATTENTION,
  ...VIEW_OF_NEXT,
  ...VIEW_OF_VECTORS,
  ...VIEW_OF_COMPARISON,
} satisfies Record<string, readonly [english: string, japanese: string]>;

export type Word = keyof typeof TABLE;
export type Language = "en" | "ja";
/** Says a word of the table; `{name}` in it is replaced by `values.name`. */
export type Say = (word: Word, values?: Readonly<Record<string, string | number>>) => string;

export function speaker(language: Language): Say {
  return (word, values = {}) =>
    TABLE[word][language === "en" ? 0 : 1].replace(/\{(\w+)\}/g, (whole, name: string) =>
      String(values[name] ?? whole),
    );
}

/** What is chosen, or what the browser prefers. */
export function languageOf(chosen: "" | Language): Language {
  if (chosen !== "") return chosen;
  return navigator.language.startsWith("ja") ? "ja" : "en";
}
