// The equations of attention, step by step, in MathML.

import type { Steps } from "../data/steps";
import { math } from "../dom";
import { score, weight } from "../draw/numbers";
import type { Say } from "../words";

export const STEPS = ["vectors", "products", "dot", "scale", "softmax", "sum"] as const;
export type Step = (typeof STEPS)[number];

const name = (text: string) => math("mi", {}, text);
const sign = (text: string) => math("mo", {}, text);
const digits = (number: number) => String(Number(number.toPrecision(3)));
const value = (text: string) => math("mn", {}, text.replace("-", "−"));
const row = (...parts: Element[]) => math("mrow", {}, ...parts);
const sub = (base: Element, below: Element) => math("msub", {}, base, below);
const sup = (base: Element, above: Element) => math("msup", {}, base, above);
const over = (above: Element, below: Element) => math("mfrac", {}, above, below);
const bold = (text: string) => math("mi", { mathvariant: "normal", class: "vector" }, text);
const at = (base: Element, ...places: string[]) => sub(base, row(...places.map(name)));
const under = (operator: string, place: string) => math("munder", {}, sign(operator), name(place));

/** A step in letters. */
export function equation(step: Step, steps: Steps): Element {
  const { bias, attention } = steps;
  const s = at(name("s"), "i", "j");
  switch (step) {
    case "vectors":
      return formula(
        at(bold("q"), "i"),
        sign("="),
        bold("W"),
        sub(bold("x"), name("i")),
        sign(","),
        at(bold("k"), "j"),
        sign("="),
        bold("U"),
        sub(bold("x"), name("j")),
      );
    case "products":
      return formula(at(name("q"), "i", "d"), sign("×"), at(name("k"), "j", "d"));
    case "dot":
      return formula(
        at(bold("q"), "i"),
        sign("·"),
        at(bold("k"), "j"),
        sign("="),
        under("∑", "d"),
        at(name("q"), "i", "d"),
        at(name("k"), "j", "d"),
      );
    case "scale": {
      const product = row(at(bold("q"), "i"), sign("·"), at(bold("k"), "j"));
      const isRoot = Math.abs(attention.scale - (steps.q.shape[1] ?? 1) ** -0.5) < 1e-6;
      const scaled = isRoot
        ? [over(product, math("msqrt", {}, name("D")))]
        : attention.scale === 1
          ? [product]
          : [value(weight(attention.scale)), sign("("), product, sign(")")];
      const held =
        attention.cap === null
          ? scaled
          : [
              name("c"),
              math("mi", {}, "tanh"),
              sign("("),
              ...scaled,
              sign("/"),
              name("c"),
              sign(")"),
            ];
      return formula(s, sign("="), ...held, ...(bias ? [sign("+"), at(name("b"), "i", "j")] : []));
    }
    case "softmax":
      return formula(
        at(name("α"), "i", "j"),
        sign("="),
        over(sup(name("e"), s), row(under("∑", "l"), sup(name("e"), at(name("s"), "i", "l")))),
      );
    case "sum":
      return formula(
        at(bold("z"), "i"),
        sign("="),
        under("∑", "j"),
        at(name("α"), "i", "j"),
        at(bold("v"), "j"),
      );
  }
}

/** The same in the numbers of one key; null for steps that are of vectors. */
export function inNumbers(step: Step, steps: Steps, key: number): Element | null {
  const { dots, scaled, bias, scores, exponentials, weights, hidden, attention } = steps;
  const number = (array: Float32Array | null) => value(score(array?.[key] ?? 0));
  switch (step) {
    case "dot":
      return formula(at(bold("q"), "i"), sign("·"), at(bold("k"), "j"), sign("="), number(dots));
    case "scale": {
      const { scale, cap } = attention;
      const parts = scale === 1 ? [number(dots)] : [number(dots), sign("×"), value(digits(scale))];
      const bound = value(digits(cap ?? 0));
      const held =
        cap === null
          ? parts
          : [
              bound,
              math("mi", {}, "tanh"),
              sign("("),
              ...parts,
              sign("/"),
              bound.cloneNode(true),
              sign(")"),
            ];
      // A bias is written with its sign.
      const added = bias ? [number(bias)] : [];
      return formula(...(held as Element[]), ...added, sign("="), number(bias ? scores : scaled));
    }
    case "softmax": {
      if (hidden[key]) return formula(at(name("α"), "i", "j"), sign("="), value("0"));
      const largest = (scores[key] ?? 0) - Math.log(exponentials[key] ?? 1);
      const total = exponentials.reduce((sum, one) => sum + one, 0) * Math.exp(largest);
      return formula(
        over(sup(name("e"), number(scores)), value(digits(total))),
        sign("="),
        value(weight(weights[key] ?? 0)),
      );
    }
    default:
      return null;
  }
}

function formula(...parts: Element[]): Element {
  return math("math", { display: "inline" }, row(...parts));
}

/** What a step does, in a sentence. */
export function sentence(step: Step, { attention, bias }: Steps, say: Say): string {
  if (step === "scale") {
    const more = attention.cap !== null ? ` ${say("step.scale.cap", { cap: attention.cap })}` : "";
    return `${say(bias ? "step.scale.bias" : "step.scale.why")}${more}`;
  }
  return say(`step.${step}.why`);
}
