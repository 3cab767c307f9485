// Where answers come from: the service that this page came from, or the page's own file.

import type { Inquiry, ModelInfo } from "./answers";
import { Seen } from "./seen";

export interface Source {
  /** Whether anything can be asked, or only what lies here. */
  readonly live: boolean;
  models(): Promise<readonly ModelInfo[]>;
  /** Rejects with `ServiceError`, or `AbortError` once `signal` says so. */
  look(inquiry: Inquiry, signal: AbortSignal): Promise<Seen>;
}

/** What the service said in the place of an answer. `status` 0: it could not be reached. */
export class ServiceError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly field: string | null = null,
  ) {
    super(message);
  }
}

const KEY = "anatomy-api-key";
const TRIES = 20;

/** The service at the address of this page; its routes are this page's neighbours. */
export class Service implements Source {
  readonly live = true;
  /** One after another: the service has few places, and this page should leave some. */
  private last: Promise<unknown> = Promise.resolve();

  async models(): Promise<readonly ModelInfo[]> {
    const info = await (await this.ask("info")).json();
    return info.models;
  }

  look(inquiry: Inquiry, signal: AbortSignal): Promise<Seen> {
    const seen = this.last.then(() => this.lookNow(inquiry, signal));
    this.last = seen.catch(() => undefined);
    return seen;
  }

  /** The API key of this tab: kept as long as it is open, and never part of an address. */
  set key(key: string) {
    sessionStorage.setItem(KEY, key);
  }

  private async lookNow(inquiry: Inquiry, signal: AbortSignal): Promise<Seen> {
    signal.throwIfAborted();
    for (let tries = 1; ; tries++) {
      try {
        const answer = await this.ask("v1/inspect", {
          method: "POST",
          signal,
          headers: { "content-type": "application/json", accept: "application/octet-stream" },
          body: bodyOf(inquiry),
        });
        return new Seen(await answer.arrayBuffer());
      } catch (error) {
        const full = error instanceof ServiceError && error.status === 429;
        if (!full || tries === TRIES) throw error;
        await new Promise((resolve) => setTimeout(resolve, 250 * Math.min(tries, 8)));
        signal.throwIfAborted();
      }
    }
  }

  private async ask(route: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    const key = sessionStorage.getItem(KEY);
    if (key) headers.set("authorization", `Bearer ${key}`);
    let answer: Response;
    try {
      answer = await fetch(route, { ...init, headers });
    } catch (error) {
      if (init.signal?.aborted) throw error;
      throw new ServiceError(0, String(error));
    }
    if (answer.ok) return answer;
    const told = await answer.json().catch(() => null);
    const error = told?.error;
    const message = typeof error === "string" ? error : error?.message;
    throw new ServiceError(answer.status, message ?? answer.statusText, error?.param ?? null);
  }
}

/** An inquiry as the service reads it, each always in the same words. */
export function bodyOf(inquiry: Inquiry): string {
  const { model, text, second, include, layers, heads, positions, top, label, continuation } =
    inquiry;
  const body = {
    model,
    text,
    second,
    include,
    layers,
    heads,
    positions,
    top,
    label,
    continuation,
  };
  return JSON.stringify(body, (_, value) => value ?? undefined);
}
