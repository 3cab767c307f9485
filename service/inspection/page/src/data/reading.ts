// Which attention is meant, and the tokens at its sides.

import type { Answer, Attention, Inquiry, Question, Token } from "./answers";
import { at, type Seen, type Tensor } from "./seen";

/** The attentions that a model may have: of each stack with itself, and of both. */
export type Site = "encoder" | "decoder" | "cross";

export function sitesOf(answer: Answer): readonly Site[] {
  const { encoder, decoder } = answer.stacks;
  if (encoder && decoder) return ["encoder", "decoder", "cross"];
  return encoder ? ["encoder"] : ["decoder"];
}

/** The site that is chosen, or the first where the model has no such one. */
export function siteOf(answer: Answer, chosen: Site | ""): Site {
  const sites = sitesOf(answer);
  return sites.find((site) => site === chosen) ?? sites[0] ?? "encoder";
}

/** How large the stack of a site is. */
export function sizeOf(answer: Answer, site: Site) {
  const size = answer.stacks[site === "encoder" ? "encoder" : "decoder"];
  if (!size) throw new Error(`the model has no ${site}`);
  return size;
}

/** The attention of a layer, if the answer has it; of the second text where `second` says so. */
export function attentionOf(
  answer: Answer,
  site: Site,
  layer: number,
  second = false,
): Attention | undefined {
  const stack = site === "encoder" ? "encoder" : "decoder";
  const kind = site === "cross" ? "cross" : "self";
  return answer.attentions.find(
    (one) =>
      one.stack === stack &&
      one.kind === kind &&
      one.layer === layer &&
      one.name.startsWith("second.") === second,
  );
}

/** Tokens and sizes, and next to no numbers. */
export function firstInquiry(question: Question): Inquiry {
  return { ...question, include: ["pattern"], layers: [0], heads: [0] };
}

/** Weights in one answer, unless a single layer has more: 4 MB. */
const MOST_WEIGHTS = 2 ** 21;

/** The patterns of all heads of a layer, and of its neighbours as far as they are small. */
export function patternInquiry(first: Answer, question: Question, layer: number): Inquiry {
  const together = layersTogether(first);
  const start = Math.floor(layer / together) * together;
  const layers = Array.from({ length: together }, (_, place) => start + place);
  const last = Math.max(...sitesOf(first).map((site) => sizeOf(first, site).layers)) - 1;
  return { ...question, include: ["pattern"], layers: layers.filter((one) => one <= last) };
}

function layersTogether({ attentions, sequences, stacks }: Answer): number {
  const count = (sequence: number) => sequences[sequence]?.tokens.length ?? 0;
  let weights = 0;
  for (const { layer, stack, queries, keys } of attentions)
    if (layer === 0) weights += (stacks[stack]?.heads ?? 0) * count(queries) * count(keys);
  return Math.max(1, Math.floor(MOST_WEIGHTS / weights));
}

/** The pattern [queries, keys] of one head. */
export function patternOf(seen: Seen, attention: Attention, head: number): Tensor {
  return at(seen.tensor(`${attention.name}.pattern`), attention.heads.indexOf(head));
}

/** The tokens at both sides of an attention. */
export function sidesOf(answer: Answer, attention: Attention) {
  const tokens = (sequence: number) => answer.sequences[sequence]?.tokens ?? [];
  return { queries: tokens(attention.queries), keys: tokens(attention.keys) };
}

/** One row or column that is shown: tokens that stand together, by their places. */
export interface Group {
  readonly label: string;
  readonly places: readonly number[];
  readonly special: boolean;
}

/** How tokens are put together before they are shown. */
export interface Grouping {
  readonly hideSpecial: boolean;
  readonly mergePieces: boolean;
}

/** What each token adds to the text: a character that several tokens write comes with the first. */
export function addedBy(tokens: readonly Token[]): readonly string[] {
  const stops = new Map<number | null, number>();
  return tokens.map(({ text, start, stop, of }) => {
    if (start === null || stop === null) return text;
    const known = Math.max(0, (stops.get(of) ?? 0) - start);
    stops.set(of, Math.max(stop, stops.get(of) ?? 0));
    // Places count code points.
    return known === 0 ? text : Array.from(text).slice(known).join("");
  });
}

export function groupsOf(tokens: readonly Token[], grouping: Grouping): readonly Group[] {
  const added = grouping.mergePieces ? addedBy(tokens) : [];
  const groups: { label: string; places: number[]; special: boolean }[] = [];
  let before: Token | undefined;
  tokens.forEach((token, place) => {
    const last = groups.at(-1);
    if (grouping.mergePieces && before && last && continues(before, token)) {
      last.places.push(place);
      if (added[place]) last.label += visible(added[place]);
    } else if (!(grouping.hideSpecial && token.special)) {
      const label = visible(grouping.mergePieces && !token.special ? token.text : token.token);
      groups.push({ label, places: [place], special: token.special });
    }
    before = token;
  });
  return groups;
}

/** Whether a token is a further piece of the word, or character, that the one before it is of. */
function continues(before: Token, token: Token): boolean {
  if (before.special || token.special || before.of !== token.of) return false;
  if (before.stop === null || token.start === null) return false;
  if (token.start < before.stop) return true;
  if (token.start > before.stop) return false;
  return /[\p{L}\p{M}\p{N}]$/u.test(before.text) && LETTERS.test(token.text);
}

// Scripts that write no spaces between words have pieces that are words.
const LETTERS =
  /^(?!\p{Script=Han}|\p{Script=Hiragana}|\p{Script=Katakana}|\p{Script=Thai})[\p{L}\p{M}\p{N}'’]/u;

/** A token with its spaces, line ends and other controls to be seen. */
export function visible(text: string): string {
  const shown = text
    .replace(/ /g, "␣")
    .replace(/\n/g, "⏎")
    .replace(/\t/g, "⇥")
    .replace(/\p{Cc}/gu, pictured);
  return shown === "" ? "∅" : shown;
}

/** A control character by its picture, as far as Unicode has one. */
function pictured(control: string): string {
  const code = control.charCodeAt(0);
  return code < 0x20 ? String.fromCharCode(0x2400 + code) : code === 0x7f ? "␡" : "\ufffd";
}

/** A pattern by groups: what a group's tokens look at on average, at all tokens of a group. */
export function gathered(
  pattern: Tensor,
  queries: readonly Group[],
  keys: readonly Group[],
): Tensor {
  const [height = 0, width = 0] = pattern.shape;
  if (queries.length === height && keys.length === width) return pattern;
  const data = new Float32Array(queries.length * keys.length);
  queries.forEach((query, row) => {
    keys.forEach((key, column) => {
      let sum = 0;
      for (const from of query.places)
        for (const to of key.places) sum += pattern.data[from * width + to] ?? 0;
      data[row * keys.length + column] = sum / query.places.length;
    });
  });
  return { shape: [queries.length, keys.length], data };
}
