// A page in one file: its answers lie in it, as bytes in base64.

import type { Inquiry, ModelInfo } from "./answers";
import { Seen } from "./seen";
import { bodyOf, ServiceError, type Source } from "./source";

/** The element that holds what is inlined, as JSON. */
export const INLINED = "inlined";

/** `address` is the state that is shown first; `answers` are by the body that asked for them. */
export interface Inlined {
  readonly address: string;
  readonly models: readonly ModelInfo[];
  readonly answers: Readonly<Record<string, string>>;
}

/** What lies in this file, or null where it came from a service. */
export function readInlined(): Inlined | null {
  const text = document.getElementById(INLINED)?.textContent;
  return text ? JSON.parse(text) : null;
}

export class File implements Source {
  readonly live = false;

  constructor(private readonly inlined: Inlined) {}

  async models(): Promise<readonly ModelInfo[]> {
    return this.inlined.models;
  }

  async look(inquiry: Inquiry): Promise<Seen> {
    const bytes = this.inlined.answers[bodyOf(inquiry)];
    if (bytes === undefined) throw new ServiceError(0, "");
    return new Seen(Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0)).buffer);
  }
}
