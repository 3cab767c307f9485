// Numbers as they are written.

import { format } from "d3-format";

const small = format(".3f");
const signed = format("+.2f");
const percent = format(".1%");
const general = format(".2~g");

/** A weight or probability, 0 to 1. */
export const weight = (value: number): string => small(value);
/** A score: its sign matters. */
export const score = (value: number): string => signed(value);
export const share = (value: number): string => percent(value);
/** Two digits: for scales, and for distances. */
export const plain = (value: number): string => general(value);
/** How far numbers are apart, which is little. */
export const distance = (value: number): string => value.toExponential(1);
