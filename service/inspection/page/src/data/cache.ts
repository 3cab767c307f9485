// What was asked already: a view says what it needs each time it is drawn, and is drawn again when
// that has come.

import type { Inquiry } from "./answers";
import type { Seen } from "./seen";
import { bodyOf, type Source } from "./source";

const MOST_BYTES = 128 * 2 ** 20;

export type Found =
  | { readonly seen: Seen; readonly error?: never }
  | { readonly seen?: never; readonly error: Error }
  | { readonly seen?: never; readonly error?: never };

interface Entry {
  found: Found;
  readonly abort: AbortController;
  readonly come: Promise<Seen>;
}

export class Cache {
  /** Oldest use first. */
  private readonly entries = new Map<string, Entry>();

  /** `arrived` is called whenever something has come, or failed to. */
  constructor(
    readonly source: Source,
    private readonly arrived: () => void,
  ) {}

  /** What is known of an inquiry; what isn't there is asked for. */
  of(inquiry: Inquiry): Found {
    const body = bodyOf(inquiry);
    const known = this.entries.get(body);
    if (known) {
      this.entries.delete(body);
      this.entries.set(body, known);
      return known.found;
    }
    const abort = new AbortController();
    const entry: Entry = { found: {}, abort, come: this.source.look(inquiry, abort.signal) };
    this.entries.set(body, entry);
    entry.come.then(
      (seen) => this.settle(body, entry, { seen }),
      (error) => this.settle(body, entry, { error }),
    );
    return entry.found;
  }

  /** The same for who waits for it. */
  async whole(inquiry: Inquiry): Promise<Seen> {
    const { seen } = this.of(inquiry);
    const come = this.entries.get(bodyOf(inquiry))?.come;
    if (seen) return seen;
    if (!come) throw new Error("it was given up");
    return come;
  }

  /** The answers that are here, by the bodies that asked for them. */
  answers(): Map<string, Seen> {
    const found = new Map<string, Seen>();
    for (const [
      body,
      {
        found: { seen },
      },
    ] of this.entries)
      if (seen) found.set(body, seen);
    return found;
  }

  /** Nothing that hasn't come yet is wanted any longer. */
  giveUp(): void {
    for (const [body, { found, abort }] of this.entries) {
      if (found.seen || found.error) continue;
      abort.abort();
      this.entries.delete(body);
    }
  }

  /** What failed is asked for again when it is needed. */
  forgetErrors(): void {
    for (const [body, { found }] of this.entries) if (found.error) this.entries.delete(body);
  }

  private settle(body: string, entry: Entry, found: Found): void {
    if (entry.abort.signal.aborted) return;
    entry.found = found;
    let bytes = 0;
    for (const [other, { found }] of [...this.entries].reverse()) {
      bytes += found.seen?.bytes.byteLength ?? 0;
      if (bytes > MOST_BYTES && other !== body) this.entries.delete(other);
    }
    this.arrived();
  }
}
