// An answer as it came: safetensors' bytes, of which a tensor is decoded when somebody reads it.

import type { Answer } from "./answers";

/** Numbers in row-major order. */
export interface Tensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

interface Place {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

export class Seen {
  readonly answer: Answer;
  private readonly places = new Map<string, Place>();
  private readonly decoded = new Map<string, Tensor>();
  private readonly from: number;

  /** Throws `Error` for bytes that are no such answer. */
  constructor(readonly bytes: ArrayBuffer) {
    if (bytes.byteLength < 8) throw new Error("the answer is cut off");
    const length = Number(new DataView(bytes).getBigUint64(0, true));
    this.from = 8 + length;
    if (this.from > bytes.byteLength) throw new Error("the answer is cut off");
    const text = new TextDecoder().decode(new Uint8Array(bytes, 8, length));
    const { __metadata__: metadata, ...places } = JSON.parse(text);
    this.answer = JSON.parse(metadata.answer);
    for (const [name, place] of Object.entries(places)) this.places.set(name, place as Place);
  }

  has(name: string): boolean {
    return this.places.has(name);
  }

  /** Throws `Error` for a name that the answer doesn't have. */
  tensor(name: string): Tensor {
    const known = this.decoded.get(name);
    if (known) return known;
    const place = this.places.get(name);
    if (!place) throw new Error(`the answer has no ${name}`);
    const [start, stop] = place.data_offsets;
    const bytes = this.bytes.slice(this.from + start, this.from + stop);
    const found = { shape: place.shape, data: numbers(bytes, place.dtype) };
    this.decoded.set(name, found);
    return found;
  }
}

/** What stands at `place` of the first axis, without a copy. */
export function at(tensor: Tensor, place: number): Tensor {
  const shape = tensor.shape.slice(1);
  const size = shape.reduce((product, length) => product * length, 1);
  if (place < 0 || place >= (tensor.shape[0] ?? 0)) throw new Error(`no place ${place}`);
  return { shape, data: tensor.data.subarray(place * size, (place + 1) * size) };
}

function numbers(bytes: ArrayBuffer, dtype: string): Float32Array {
  switch (dtype) {
    case "F32":
      return new Float32Array(bytes);
    case "F16":
      return Float32Array.from(new Uint16Array(bytes), (bits) => halves()[bits] ?? Number.NaN);
    case "U8":
      return Float32Array.from(new Uint8Array(bytes), (byte) => byte / 255);
    case "I32":
      return Float32Array.from(new Int32Array(bytes));
    default:
      throw new Error(`numbers of type ${dtype} are not known`);
  }
}

let table: Float32Array | undefined;

/** The value of each of the 65,536 half-precision numbers (IEEE 754 binary16). */
function halves(): Float32Array {
  if (table) return table;
  table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31) table[bits] = fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    else if (exponent === 0) table[bits] = sign * fraction * 2 ** -24;
    else table[bits] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return table;
}
