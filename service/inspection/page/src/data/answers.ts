// What `POST /v1/inspect` answers, as service/api/answers/inspection.py describes it.

export type Task = "embed" | "classify" | "token_classify" | "generate";
export type Stack = "encoder" | "decoder";

export type Part =
  | "pattern"
  | "scores"
  | "q"
  | "k"
  | "v"
  | "bias"
  | "value_norms"
  | "residual_norms"
  | "rollout"
  | "next_tokens"
  | "logit_lens"
  | "pooled"
  | "similarity"
  | "class_scores"
  | "attributions";

/** What is read: a text, and another beside it where there is one. */
export interface Question {
  readonly model: string;
  readonly text: string;
  readonly second: string | null;
}

/** What is asked of it. Without `layers` and `heads`: of all. */
export interface Inquiry extends Question {
  readonly include: readonly Part[];
  readonly layers?: readonly number[];
  readonly heads?: readonly number[];
  readonly positions?: readonly number[];
  readonly top?: number;
  /** Ids of tokens that follow all else. */
  readonly continuation?: readonly number[];
  readonly label?: string;
}

export interface Token {
  readonly id: number;
  /** The token's own text, and its part of the text `of` (0 or 1) at `start` to `stop`. */
  readonly token: string;
  readonly text: string;
  readonly special: boolean;
  readonly start: number | null;
  readonly stop: number | null;
  readonly of: number | null;
}

/** One attention: the sequence `queries` looks at the sequence `keys`, by their numbers. */
export interface Attention {
  readonly name: string;
  readonly stack: Stack;
  readonly kind: "self" | "cross";
  readonly layer: number;
  readonly queries: number;
  readonly keys: number;
  readonly heads: readonly number[];
  readonly kv_heads: readonly number[];
  readonly kv_head_of: readonly number[];
  readonly scale: number;
  readonly cap: number | null;
  readonly bias: boolean;
  readonly causal: boolean;
  readonly window: number | null;
}

export interface StackSize {
  readonly layers: number;
  readonly heads: number;
  readonly kv_heads: number;
  readonly head_dim: number;
}

export interface Distance {
  readonly largest_error: number;
  readonly smallest_cosine: number;
  readonly top1_agreement?: number;
}

export interface LikelyToken {
  readonly id: number;
  readonly text: string;
  readonly logit: number;
  readonly probability: number;
  readonly special: boolean;
  /** Whether a generation stops there. */
  readonly ends: boolean;
}

/** The tokens that aren't listed; at each of `temperatures` log Σ exp(logit / temperature). */
export interface OtherTokens {
  readonly tokens: number;
  readonly probability: number;
  readonly temperatures: readonly number[];
  readonly log_sums: readonly number[];
}

export interface NextTokens {
  readonly position: number;
  readonly tokens: readonly LikelyToken[];
  readonly rest: OtherTokens;
}

export interface Answer {
  readonly model: string;
  readonly task: Task;
  readonly graph: {
    readonly precision: string;
    readonly parity: Distance;
    readonly served: { readonly precision: string; readonly distance: Distance };
  };
  readonly stacks: Readonly<Partial<Record<Stack, StackSize>>>;
  readonly texts: readonly string[];
  readonly sequences: readonly { readonly tokens: readonly Token[] }[];
  readonly attentions: readonly Attention[];
  readonly next_tokens?: readonly NextTokens[];
  readonly logit_lens?: {
    readonly states: readonly number[];
    readonly positions: readonly number[];
    readonly texts: Readonly<Record<string, string>>;
  };
  readonly cosine?: number;
  readonly class_scores?: readonly {
    readonly label: string;
    readonly score: number;
    readonly probability: number;
  }[];
  readonly attributions?: {
    readonly method: string;
    readonly label: string;
    readonly probability: number;
    readonly drops: readonly (number | null)[];
    /** Which tokens the rows of the tensor `occluded` are without. */
    readonly positions: readonly number[];
  };
}

/** A served model, as `GET /info` tells of it. */
export interface ModelInfo {
  readonly name: string;
  readonly task: Task;
  readonly max_tokens: number;
  readonly labels?: readonly string[];
}
