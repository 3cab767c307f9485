// All that is chosen on the page, in one place; it stands in the address, after the #, which a
// browser keeps for itself: texts are not in any server's log.

import { choice, type Field, flag, number, place, places, sequence, whole, words } from "./fields";

export const VIEWS = ["model", "head", "neuron", "next", "vectors", "compare"] as const;
export type ViewName = (typeof VIEWS)[number];

const FIELDS = {
  // What is read.
  model: words(""),
  text: words("time flies like an arrow"),
  second: words(""),
  // What is shown of it. The site "" is the first that the model has.
  view: choice(VIEWS, "head"),
  site: choice(["", "encoder", "decoder", "cross"], ""),
  layer: whole(0, 0, 999),
  heads: places([0]),
  hideSpecial: flag(false),
  mergePieces: flag(false),
  // Of the head view: tokens that are held, at either side, and the least weight that is drawn.
  queries: places([]),
  keys: places([]),
  least: number(0.02, 0, 1, false),
  // Of the neuron view: the query and key that are followed, and how far.
  query: place(null, false),
  key: place(null, false),
  step: whole(6, 1, 6, false),
  // Of what comes next: the ids of the tokens that were added, how one is drawn, the cell of the
  // lens that is told of.
  written: sequence([]),
  temperature: number(1, 0, 2, false),
  topK: whole(0, 0, 100, false),
  topP: number(1, 0.05, 1, false),
  lensState: place(null, false),
  lensPosition: place(null, false),
  // Of meaning: the least similarity that is linked, the class that is explained.
  near: number(0.4, 0, 1, false),
  label: words(""),
  // Of the comparison: the other side, where it isn't the same, and what is shown of both.
  otherModel: words(""),
  otherText: words(""),
  shows: choice(["head", "mean", "rollout"], "rollout"),
  // How the page looks. "" is what the browser asks for.
  language: choice(["", "en", "ja"], "", false),
  theme: choice(["", "light", "dark"], "", false),
};

type Values<F> = { readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };
export type State = Values<typeof FIELDS>;
export type Name = keyof State;

const NAMES = Object.keys(FIELDS) as Name[];

function fieldOf<K extends Name>(name: K): Field<State[K]> {
  return FIELDS[name] as unknown as Field<State[K]>;
}

/** The state that an address tells of; what it doesn't say, or says wrongly, is as at first. */
export function stateOf(address: string): State {
  const told = new URLSearchParams(address.replace(/^#/, ""));
  const entries = NAMES.map((name) => {
    const text = told.get(name);
    const field = fieldOf(name);
    return [name, (text === null ? undefined : field.read(text)) ?? field.initial];
  });
  return Object.fromEntries(entries) as State;
}

/** What stands after the # for a state: what is not as at first. */
export function addressOf(state: State): string {
  const told = new URLSearchParams();
  for (const name of NAMES) {
    const field = fieldOf(name);
    const text = field.write(state[name]);
    if (text !== field.write(field.initial)) told.set(name, text);
  }
  return told.toString();
}

/** Between two changes of the address that are no steps: some browsers take few of them a second. */
const PAUSE_MS = 150;

/** Holds the state, and keeps the address at it. */
export class Store {
  private now: State;
  private written = Number.NEGATIVE_INFINITY;
  private later: number | undefined;

  /** `changed` is called after every change, with what was before. */
  constructor(private readonly changed: (before: State) => void) {
    this.now = stateOf(location.hash);
    for (const event of ["popstate", "hashchange"])
      addEventListener(event, () => {
        clearTimeout(this.later);
        this.become(stateOf(location.hash));
      });
  }

  get state(): State {
    return this.now;
  }

  /** The address of this very state. */
  get link(): string {
    const [page] = location.href.split("#");
    return `${page}#${addressOf(this.now)}`;
  }

  /** Some of it changes. */
  set(change: Partial<State>): void {
    const names = NAMES.filter((name) => {
      const value = change[name];
      if (value === undefined) return false;
      const field = fieldOf(name);
      return field.write(value as never) !== field.write(this.now[name] as never);
    });
    if (names.length === 0) return;
    const isStep = names.some((name) => fieldOf(name).isStep);
    const next = { ...this.now, ...change };
    if (isStep) {
      this.write();
      history.pushState(null, "", `#${addressOf(next)}`);
    } else this.writeSoon();
    this.become(next);
  }

  /** The same for what could not be as it was asked for: no step of its own. */
  correct(change: Partial<State>): void {
    this.writeSoon();
    this.become({ ...this.now, ...change });
  }

  /** Brings the address to the state as it is by then. */
  private writeSoon(): void {
    clearTimeout(this.later);
    const wait = Math.max(0, this.written + PAUSE_MS - performance.now());
    this.later = setTimeout(() => this.write(), wait);
  }

  private write(): void {
    clearTimeout(this.later);
    this.written = performance.now();
    const address = `#${addressOf(this.now)}`;
    if (location.hash !== address) history.replaceState(null, "", address);
  }

  private become(next: State): void {
    const before = this.now;
    if (addressOf(before) === addressOf(next)) return;
    this.now = next;
    this.changed(before);
  }
}
