// One query's way through attention, number by number: q · k, scaled, softmax, the sum of values.

import type { Answer, Attention, Inquiry, Question, Token } from "./answers";
import { sidesOf } from "./reading";
import { at, type Seen, type Tensor } from "./seen";

/** Numbers in one answer, unless a single head has more: 1 MB. */
const MOST_NUMBERS = 2 ** 19;

/** What the steps of a head are computed from, and of its neighbours where that is little. */
export function stepInquiry(
  first: Answer,
  question: Question,
  layer: number,
  head: number,
): Inquiry {
  const parts = ["pattern", "scores", "q", "k", "v"] as const;
  const include = first.attentions.some(({ bias }) => bias) ? [...parts, "bias" as const] : parts;
  const inquiry = { ...question, include, layers: [layer] };
  return numbersOfLayer(first) > MOST_NUMBERS ? { ...inquiry, heads: [head] } : inquiry;
}

/** How many numbers a layer has in q, k, v and its weights, at most. */
function numbersOfLayer({ sequences, stacks }: Answer): number {
  const tokens = Math.max(...sequences.map((sequence) => sequence.tokens.length));
  const sizes = Object.values(stacks).map(
    (size) => size.heads * tokens * (3 * size.head_dim + 2 * tokens),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}

/** All keys that a query looks at, D numbers each in q, k and v. */
export interface Steps {
  readonly attention: Attention;
  readonly head: number;
  readonly query: number;
  readonly queries: readonly Token[];
  readonly keys: readonly Token[];
  readonly q: Tensor; // [1, D]
  readonly k: Tensor; // [K, D]
  readonly v: Tensor; // [K, D]
  readonly products: Tensor; // [K, D]: q × k
  readonly dots: Float32Array; // [K]: q · k
  readonly scaled: Float32Array; // [K], capped where the model caps
  readonly bias: Float32Array | null; // [K]
  readonly scores: Float32Array; // [K]: scaled + bias
  readonly hidden: readonly boolean[]; // [K]: the query may not look there
  readonly exponentials: Float32Array; // [K]: e to the scores, less the largest of them
  readonly weights: Float32Array; // [K]: their softmax
  readonly parts: Tensor; // [K, D]: weight × v
  readonly sum: Tensor; // [1, D]
  /** How far the weights are from those that the model itself had. */
  readonly error: number;
}

export function stepsOf(seen: Seen, attention: Attention, head: number, query: number): Steps {
  const place = attention.heads.indexOf(head);
  const kv = attention.kv_head_of[place] ?? 0;
  const tensor = (part: string, row: number) => at(seen.tensor(`${attention.name}.${part}`), row);
  const one = (part: string) => at(tensor(part, place), query);
  const q = one("q").data;
  const [k, v] = [tensor("k", kv), tensor("v", kv)];
  const { queries, keys } = sidesOf(seen.answer, attention);
  const width = q.length;

  const products = new Float32Array(k.data.length);
  for (let i = 0; i < products.length; i++) products[i] = (q[i % width] ?? 0) * (k.data[i] ?? 0);
  const dots = Float32Array.from(keys, (_, key) => sumOf(products, key * width, width));
  const scaled = dots.map((dot) => capped(dot * attention.scale, attention.cap));
  const bias = seen.has(`${attention.name}.bias`) ? one("bias").data : null;
  const scores = scaled.map((value, key) => value + (bias?.[key] ?? 0));
  const hidden = keys.map((_, key) => isHidden(attention, query, key));

  const open = scores.filter((_, key) => !hidden[key]);
  const largest = open.reduce((most, score) => Math.max(most, score), Number.NEGATIVE_INFINITY);
  const exponentials = scores.map((score, key) => (hidden[key] ? 0 : Math.exp(score - largest)));
  const total = sumOf(exponentials, 0, exponentials.length);
  const weights = exponentials.map((value) => value / total);
  const parts = v.data.map((value, i) => value * (weights[Math.floor(i / width)] ?? 0));
  const sum = new Float32Array(width);
  parts.forEach((value, i) => {
    sum[i % width] = (sum[i % width] ?? 0) + value;
  });
  const own = one("pattern").data;
  const error = weights.reduce(
    (most, value, key) => Math.max(most, Math.abs(value - (own[key] ?? 0))),
    0,
  );
  const shape = [keys.length, width];
  return {
    attention,
    head,
    query,
    queries,
    keys,
    k,
    v,
    dots,
    scaled,
    bias,
    scores,
    hidden,
    exponentials,
    weights,
    error,
    q: { shape: [1, width], data: q },
    products: { shape, data: products },
    parts: { shape, data: parts },
    sum: { shape: [1, width], data: sum },
  };
}

function sumOf(numbers: Float32Array, start: number, count: number): number {
  let sum = 0;
  for (let i = start; i < start + count; i++) sum += numbers[i] ?? 0;
  return sum;
}

/** What Gemma 2 does to its scores: none is more than the cap. */
function capped(score: number, cap: number | null): number {
  return cap === null ? score : cap * Math.tanh(score / cap);
}

/** Whether a key lies after the query, or outside its window. */
function isHidden({ kind, causal, window }: Attention, query: number, key: number): boolean {
  if (kind === "cross") return false;
  return (causal && key > query) || (window !== null && Math.abs(query - key) >= window);
}
