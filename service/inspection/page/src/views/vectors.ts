// Meaning: of an embedding model how near two texts are, of a classifier what a class hangs on.

import { fill, make } from "../dom";
import type { Page, Scene, View } from "../page";
import { Occlusion } from "./occlusion";
import { Similarity } from "./similarity";

export function makeVectorsView(page: Page): View {
  return new VectorsView(page);
}

/** Each kind of model has a part of its own. */
class VectorsView implements View {
  readonly element = make("div", { class: "vectors-view" });
  private part: View | null = null;
  private task = "";

  constructor(private readonly page: Page) {}

  show(scene: Scene): void {
    const { task } = scene.base.answer;
    if (!this.part || task !== this.task) {
      this.part?.close?.();
      this.part = task === "classify" ? new Occlusion(this.page) : new Similarity(this.page);
      this.task = task;
      fill(this.element, this.part.element);
    }
    this.part.show(scene);
  }

  picture(): SVGSVGElement | null {
    return this.part?.picture() ?? null;
  }

  numbers(): unknown {
    return this.part?.numbers() ?? null;
  }

  close(): void {
    this.part?.close?.();
  }
}
