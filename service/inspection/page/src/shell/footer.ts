// What holds for all that is shown: how near it is to what is served, and what it doesn't say.

import type { Answer } from "../data/answers";
import { fill, make } from "../dom";
import { distance } from "../draw/numbers";
import type { Page } from "../page";

export class Footer {
  readonly element = make("footer");
  private readonly distance = make("p");

  constructor(private readonly page: Page) {
    fill(this.element, make("p", { class: "caution" }, page.say("caution")), this.distance);
  }

  show({ graph }: Answer): void {
    const { served } = graph;
    const error = distance(served.distance.largest_error);
    const said = this.page.say("distance", {
      shown: graph.precision,
      served: served.precision,
      error,
    });
    this.distance.textContent = said;
  }
}
