// This page with its answers in one file, which opens without a service.

import type { Answer, Question } from "../data/answers";
import type { Cache } from "../data/cache";
import { INLINED, type Inlined } from "../data/inlined";
import { firstInquiry, patternInquiry, sitesOf, sizeOf } from "../data/reading";
import type { Seen } from "../data/seen";
import { stepInquiry } from "../data/steps";
import type { Page } from "../page";
import { addressOf, type State } from "../state";

/** Bytes of answers: no file has many more. What is shown goes in first. */
const MOST_BYTES = 24 * 2 ** 20;

/** The page as it is now. All that was asked goes with it, and as much of every layer as has room. */
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
  if (first && cache.source.live) await gather(cache, first.answer, question, state, progress);
  const answers: Record<string, string> = {};
  // What was read before and isn't any longer is nobody's business.
  const said = new Set<unknown>(Object.values(state));
  for (const [body, seen] of cache.answers()) {
    const { text, second } = JSON.parse(body);
    if (!said.has(text) || !(second === undefined || said.has(second))) continue;
    answers[body] = base64(new Uint8Array(seen.bytes));
  }
  const inlined: Inlined = {
    address: addressOf(state),
    models: models.filter(({ name }) =>
      Object.keys(answers).some((body) => JSON.parse(body).model === name),
    ),
    answers,
  };
  return new Blob([await fileOf(inlined)], { type: "text/html" });
}

/** Asks for every layer, the one that is shown first, until there is no room for more. */
async function gather(
  cache: Cache,
  first: Answer,
  question: Question,
  { layer, heads }: State,
  progress: (done: number, all: number) => void,
): Promise<void> {
  const count = Math.max(...sitesOf(first).map((site) => sizeOf(first, site).layers));
  const others = Array.from({ length: count }, (_, one) => one).filter((one) => one !== layer);
  const gathered = new Set<Seen>();
  for (const [done, one] of [layer, ...others].entries()) {
    progress(done, count);
    const inquiries = [
      patternInquiry(first, question, one),
      stepInquiry(first, question, one, heads[0] ?? 0),
    ];
    for (const inquiry of inquiries) gathered.add(await cache.whole(inquiry));
    const bytes = [...gathered].reduce((sum, seen) => sum + seen.bytes.byteLength, 0);
    if (bytes > MOST_BYTES) return;
  }
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
