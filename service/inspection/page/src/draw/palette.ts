// Colours of numbers. They are the style sheet's, so that light and dark are told there alone.

import { scaleLinear } from "d3-scale";

export interface Palette {
  /** 256 colours from nothing to the largest, as a canvas has its pixels. */
  readonly ramp: Uint32Array;
  /** 256 colours from the most negative over 0 to the most positive. */
  readonly diverging: Uint32Array;
  /** A colour for each of several things, told apart also by who sees few colours. */
  readonly series: readonly string[];
  readonly ink: string;
  readonly quiet: string;
  readonly line: string;
  readonly paper: string;
  readonly accent: string;
  readonly font: string;
}

const SERIES = 8;
const STOPS = 5;

export function paletteOf(element: Element): Palette {
  const style = getComputedStyle(element);
  const value = (name: string) => style.getPropertyValue(name).trim();
  const stops = (name: string) => Array.from({ length: STOPS }, (_, i) => value(`${name}-${i}`));
  return {
    ramp: ramp(stops("--ramp")),
    diverging: ramp(stops("--diverging")),
    series: Array.from({ length: SERIES }, (_, i) => value(`--series-${i}`)),
    ink: value("--ink"),
    quiet: value("--quiet"),
    line: value("--line"),
    paper: value("--paper"),
    accent: value("--accent"),
    font: value("--sans"),
  };
}

/** Colours between a few that are at equal distances, as little-endian RGBA. */
function ramp(stops: readonly string[]): Uint32Array {
  const domain = stops.map((_, place) => (255 * place) / (stops.length - 1));
  const scale = scaleLinear<string>().domain(domain).range(stops);
  return Uint32Array.from({ length: 256 }, (_, place) => {
    const [red = 0, green = 0, blue = 0] = (scale(place).match(/[\d.]+/g) ?? []).map(Number);
    return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  });
}

/** A colour of a palette as the style sheet writes it. */
export function css(colour: number): string {
  return `rgb(${colour & 255} ${(colour >> 8) & 255} ${(colour >> 16) & 255})`;
}
