// Heads that are shown at once each have a colour, which the style sheet names --series-0 and so on.

/** How many can be told apart. */
export const MOST_HEADS = 8;

/** The colour of the `place`-th of them. */
export const seriesOf = (place: number): string => `var(--series-${place % MOST_HEADS})`;
