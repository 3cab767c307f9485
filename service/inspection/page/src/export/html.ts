// This page with its answers in one file, which opens without a service.

import { INLINED, type Inlined } from "../data/inlined";
import { firstInquiry, patternInquiry, sitesOf, sizeOf } from "../data/reading";
import type { Page } from "../page";
import { addressOf } from "../state";

/** The page as it is now. All that was asked goes with it, and the patterns of every layer. */
export async function pageOf(
  page: Page,
  progress: (done: number, all: number) => void,
): Promise<Blob> {
  const { cache, store, models } = page;
  const { state } = store;
  const question = {
    model: state.model || (models[0]?.name ?? ""),
    text: state.text,
    second: state.second === "" ? null : state.second,
  };
  const first = cache.of(firstInquiry(question)).seen;
  if (first && cache.source.live) {
    const layers = Math.max(
      ...sitesOf(first.answer).map((site) => sizeOf(first.answer, site).layers),
    );
    for (let layer = 0; layer < layers; layer++) {
      progress(layer, layers);
      await cache.whole(patternInquiry(first.answer, question, layer));
    }
  }
  const answers: Record<string, string> = {};
  for (const [body, seen] of cache.answers()) answers[body] = base64(new Uint8Array(seen.bytes));
  const inlined: Inlined = {
    address: addressOf(state),
    models: models.filter(({ name }) =>
      Object.keys(answers).some((body) => JSON.parse(body).model === name),
    ),
    answers,
  };
  return new Blob([await fileOf(inlined)], { type: "text/html" });
}

async function fileOf(inlined: Inlined): Promise<string> {
  const script = await textOf("script[type=module]", "inspect/page.js");
  const style = await textOf("style", "inspect/page.css");
  // "<" never stands in the JSON, so that nothing in it can end its element.
  const data = JSON.stringify(inlined).replace(/</g, "\\u003c");
  return [
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    '<meta name="color-scheme" content="light dark">\n<title>Anatomy</title>',
    `<style>${style}</style>\n</head>\n<body>`,
    `<script type="application/json" id="${INLINED}">${data}</script>`,
    `<script type="module">${script}</script>\n</body>\n</html>\n`,
  ].join("\n");
}

/** What stands in this file, or lies beside the page. */
async function textOf(inlined: string, address: string): Promise<string> {
  const here = document.querySelector(inlined)?.textContent;
  if (here) return here;
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
  return answer.text();
}

function base64(bytes: Uint8Array): string {
  let text = "";
  for (let start = 0; start < bytes.length; start += 0x8000)
    text += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
  return btoa(text);
}
