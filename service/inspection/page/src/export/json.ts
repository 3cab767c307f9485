// What is shown as numbers.

import type { Page, View } from "../page";

export function jsonOf({ store }: Page, view: View | null): Blob {
  const { language, theme, ...shown } = store.state;
  const told = {
    format: "anatomy-inspect",
    version: 1,
    state: shown,
    shown: view?.numbers() ?? null,
  };
  return new Blob([`${JSON.stringify(told, rounded)}\n`], { type: "application/json" });
}

/** Numbers came in half precision: five digits hold all of it. */
function rounded(_: string, value: unknown): unknown {
  if (value instanceof Float32Array) return Array.from(value, (one) => Number(one.toPrecision(5)));
  return value;
}
