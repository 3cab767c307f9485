// The views there are, in the order of their tabs, and which model each is for.

import type { Answer } from "../data/answers";
import type { MakeView } from "../page";
import type { ViewName } from "../state";
import { makeCompareView } from "./compare";
import { makeHeadView } from "./head";
import { makeModelView } from "./model";
import { makeNeuronView } from "./neuron";
import { makeNextView } from "./next";
import { makeVectorsView } from "./vectors";

export interface Entry {
  readonly name: ViewName;
  readonly make: MakeView;
  /** Whether a model has what the view shows. */
  readonly fits: (answer: Answer) => boolean;
  /** Whether it shows one layer's heads, which are then chosen above it. */
  readonly ofHeads: boolean;
  /** Whether it shows one of several attentions, which is then chosen above it. */
  readonly ofSites: boolean;
  /** Whether it can put tokens together, or leave some out. */
  readonly ofGroups: (answer: Answer) => boolean;
}

const always = () => true;
const never = () => false;
const OF_ATTENTION = { ofHeads: true, ofSites: true, ofGroups: always };

export const ENTRIES: readonly Entry[] = [
  { name: "model", make: makeModelView, fits: always, ...OF_ATTENTION, ofHeads: false },
  { name: "head", make: makeHeadView, fits: always, ...OF_ATTENTION },
  { name: "neuron", make: makeNeuronView, fits: always, ...OF_ATTENTION },
  {
    name: "next",
    make: makeNextView,
    fits: ({ task }) => task === "generate",
    ofHeads: false,
    ofSites: false,
    ofGroups: never,
  },
  {
    name: "vectors",
    make: makeVectorsView,
    fits: ({ task }) => task === "embed" || task === "classify",
    ofHeads: false,
    ofSites: false,
    ofGroups: ({ task }) => task === "embed",
  },
  { name: "compare", make: makeCompareView, fits: always, ...OF_ATTENTION },
];
