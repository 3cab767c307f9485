// How a next token is drawn: temperature, then top-k, then top-p, as service/engines/sampling.py
// does it.

import type { NextTokens, OtherTokens } from "./answers";

export interface Sampling {
  /** 0 takes the likeliest. */
  readonly temperature: number;
  /** 0 keeps all. */
  readonly topK: number;
  readonly topP: number;
}

/** What is likely at a temperature, and what is left of it once the filters have kept some. */
export interface Chance {
  readonly tempered: number;
  readonly kept: number;
}

export interface Chances {
  readonly tokens: readonly Chance[];
  /** Of all tokens that aren't listed, together. */
  readonly rest: Chance;
  /** How many listed tokens may come. */
  readonly count: number;
}

export function chancesOf({ tokens, rest }: NextTokens, sampling: Sampling): Chances {
  const logits = tokens.map(({ logit }) => logit);
  const tempered = temperedOf(logits, rest, sampling.temperature);
  const others = rest.tokens > 0 ? Math.max(0, 1 - sum(tempered)) : 0;
  const hasTopK = sampling.topK > 0 && sampling.topK <= tokens.length;
  const among = hasTopK ? tempered.slice(0, sampling.topK) : tempered;
  const left = hasTopK ? sum(among) : 1;
  // The smallest set whose mass reaches top-p of what top-k left (Holtzman et al. 2020).
  const wanted = sampling.topP < 1 ? sampling.topP * left : left;
  let count = among.length;
  if (sampling.topP < 1) {
    let mass = 0;
    const enough = among.findIndex((chance) => {
      mass += chance;
      return mass >= wanted;
    });
    count = enough < 0 ? among.length : enough + 1;
  }
  const listed = sum(among.slice(0, count));
  // Where the listed ones don't reach it, the rest fills up what is missing.
  const filled =
    hasTopK || count < among.length ? 0 : Math.max(0, Math.min(others, wanted - listed));
  const total = listed + filled || 1;
  return {
    tokens: tempered.map((chance, place) => ({
      tempered: chance,
      kept: place < count ? chance / total : 0,
    })),
    rest: { tempered: others, kept: filled / total },
    count,
  };
}

/** Softmax at a temperature of logits in falling order, with what isn't listed in its sum. */
function temperedOf(
  logits: readonly number[],
  rest: OtherTokens,
  temperature: number,
): readonly number[] {
  if (temperature === 0) return logits.map((_, place) => (place === 0 ? 1 : 0));
  const most = (logits[0] ?? 0) / temperature;
  const weights = logits.map((logit) => Math.exp(logit / temperature - most));
  const others = rest.tokens > 0 ? Math.exp(logSumAt(rest, temperature) - most) : 0;
  const total = sum(weights) + others;
  return weights.map((weight) => weight / total);
}

/** Told at some temperatures; between two of them it is nearly linear in 1 / temperature. */
function logSumAt({ temperatures, log_sums }: OtherTokens, temperature: number): number {
  const after = temperatures.findIndex((one) => one >= temperature - 1e-9);
  const above = after < 0 ? temperatures.length - 1 : after;
  const [t1 = 1, s1 = 0] = [temperatures[above], log_sums[above]];
  // Below the least that is told: its own sum, scaled, which is too much rather than too little.
  if (above === 0) return (s1 * t1) / temperature;
  if (Math.abs(t1 - temperature) < 1e-9) return s1;
  const [t0 = 1, s0 = 0] = [temperatures[above - 1], log_sums[above - 1]];
  const part = (1 / temperature - 1 / t0) / (1 / t1 - 1 / t0);
  return s0 + part * (s1 - s0);
}

/** The place of the token that `u`, from 0 to 1, falls on; -1 for one that isn't listed. */
export function drawn({ tokens }: Chances, u: number): number {
  let mass = 0;
  return tokens.findIndex(({ kept }) => {
    mass += kept;
    return kept > 0 && u < mass;
  });
}

/** In bits, of the listed tokens, with the rest as one. */
export function entropyOf({ tokens, rest }: Chances): number {
  return [...tokens, rest].reduce(
    (bits, { kept }) => (kept > 0 ? bits - kept * Math.log2(kept) : bits),
    0,
  );
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, one) => total + one, 0);
}
