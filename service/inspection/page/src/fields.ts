// How one thing of the state stands in the address.

export interface Field<T> {
  readonly initial: T;
  /** Undefined for a text that says no such thing: then it is `initial`. */
  read(text: string): T | undefined;
  write(value: T): string;
  /** Whether a change is a step that the back button undoes. */
  readonly isStep: boolean;
}

/** Some text. */
export function words(initial: string, isStep = true): Field<string> {
  return { initial, isStep, read: (text) => text, write: (value) => value };
}

/** One of a few names. */
export function choice<const T extends string>(
  choices: readonly T[],
  initial: T,
  isStep = true,
): Field<T> {
  const read = (text: string) => choices.find((one) => one === text);
  return { initial, isStep, read, write: (value) => value };
}

/** A number from `least` to `most`. */
export function number(initial: number, least: number, most: number, isStep = true): Field<number> {
  const read = (text: string) => {
    const value = Number(text);
    return text !== "" && value >= least && value <= most ? value : undefined;
  };
  return { initial, isStep, read, write: (value) => String(Number(value.toPrecision(6))) };
}

/** A whole number from `least` to `most`. */
export function whole(initial: number, least: number, most: number, isStep = true): Field<number> {
  const any = number(initial, least, most, isStep);
  const read = (text: string) => {
    const value = any.read(text);
    return Number.isInteger(value) ? value : undefined;
  };
  return { ...any, read };
}

/** A whole number from 0 on, or null. */
export function place(initial: number | null, isStep = true): Field<number | null> {
  const read = (text: string) =>
    text === "none" ? null : /^\d{1,6}$/.test(text) ? Number(text) : undefined;
  return { initial, isStep, read, write: (value) => (value === null ? "none" : String(value)) };
}

/** Whole numbers, each once, with dots between them. */
export function places(initial: readonly number[], isStep = true): Field<readonly number[]> {
  const read = (text: string) => {
    if (text === "") return [];
    return /^\d{1,6}(\.\d{1,6})*$/.test(text)
      ? [...new Set(text.split(".").map(Number))]
      : undefined;
  };
  return { initial, isStep, read, write: (value) => value.join(".") };
}

/** The same, in an order in which one may come again. */
export function sequence(initial: readonly number[], isStep = true): Field<readonly number[]> {
  const read = (text: string) => {
    if (text === "") return [];
    return /^\d{1,7}(\.\d{1,7})*$/.test(text) ? text.split(".").map(Number) : undefined;
  };
  return { initial, isStep, read, write: (value) => value.join(".") };
}

/** Yes or no. */
export function flag(initial: boolean, isStep = true): Field<boolean> {
  const read = (text: string) => (text === "yes" ? true : text === "no" ? false : undefined);
  return { initial, isStep, read, write: (value) => (value ? "yes" : "no") };
}
