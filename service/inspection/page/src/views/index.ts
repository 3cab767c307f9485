// The views there are, in the order of their tabs, and which model each is for.

import type { Answer } from "../data/answers";
import type { MakeView } from "../page";
import type { ViewName } from "../state";
import { makeHeadView } from "./head";
import { makeModelView } from "./model";
import { makeNeuronView } from "./neuron";

export interface Entry {
  readonly name: ViewName;
  readonly make: MakeView;
  /** Whether a model has what the view shows. */
  readonly fits: (answer: Answer) => boolean;
  /** Whether it shows one layer's heads, which are then chosen above it. */
  readonly ofHeads: boolean;
}

const always = () => true;

export const ENTRIES: readonly Entry[] = [
  { name: "model", make: makeModelView, fits: always, ofHeads: false },
  { name: "head", make: makeHeadView, fits: always, ofHeads: true },
  { name: "neuron", make: makeNeuronView, fits: always, ofHeads: true },
];
