// What comes of either side: next tokens, classes, or how near both texts are.

import type { Answer, Inquiry, Question } from "../data/answers";
import { visible } from "../data/reading";
import { fill, make } from "../dom";
import { share, weight } from "../draw/numbers";
import type { Page, Scene } from "../page";
import { similarityInquiry } from "./similarity";

const TOP = 5;

type Told = readonly { readonly name: string; readonly value: string }[];

export class Outcome {
  readonly sides = [make("div", { class: "outcome" }), make("div", { class: "outcome" })] as const;
  /** What was said of each side. */
  told: readonly (Told | null)[] = [];

  constructor(private readonly page: Page) {}

  show({ base }: Scene, questions: readonly [Question, Question]): void {
    const { task } = base.answer;
    const { say } = this.page;
    if (task === "embed") {
      const [first, second] = questions;
      const value = first.model === second.model ? this.cosine(first, second.text) : null;
      this.told = [null, value === null ? null : [{ name: say("compare.cosine"), value }]];
    } else this.told = questions.map((question) => this.of(question));
    this.sides.forEach((side, at) => {
      const lines = this.told[at];
      const name = say(task === "generate" ? "compare.next" : "compare.classes");
      fill(
        side,
        lines && task !== "embed" ? make("h3", {}, name) : null,
        lines
          ? make(
              "dl",
              {},
              ...lines.flatMap((line) => [make("dt", {}, line.name), make("dd", {}, line.value)]),
            )
          : null,
      );
    });
  }

  private cosine(first: Question, second: string): string | null {
    const { seen } = this.page.cache.of(similarityInquiry({ ...first, second }));
    const cosine = seen?.answer.cosine;
    return cosine === undefined ? null : weight(cosine);
  }

  /** By the task of the side's own model, which may be another's. */
  private of(question: Question): Told | null {
    const task = this.page.models.find(({ name }) => name === question.model)?.task;
    const inquiry: Inquiry | null =
      task === "generate"
        ? { ...question, include: ["next_tokens"] }
        : task === "classify"
          ? { ...question, include: ["class_scores"] }
          : null;
    const answer = inquiry && this.page.cache.of(inquiry).seen?.answer;
    return answer ? linesOf(answer) : null;
  }
}

function linesOf({ next_tokens, class_scores }: Answer): Told {
  const likely = next_tokens?.[0]?.tokens.map(({ text, probability }) => ({
    name: visible(text),
    probability,
  }));
  const classes = class_scores?.map(({ label, probability }) => ({ name: label, probability }));
  return [...(likely ?? classes ?? [])]
    .sort((a, b) => b.probability - a.probability)
    .slice(0, TOP)
    .map(({ name, probability }) => ({ name, value: share(probability) }));
}
