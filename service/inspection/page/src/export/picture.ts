// A view's drawing as a file: as it is, or as pixels.

import type { State } from "../state";

/** Pixels of a PNG for one of the drawing. */
const SHARPNESS = 2;

/** Characters that XML 1.0 has no way to write: texts and tokens may have them all the same. */
const NO_XML = /[^\t\n\r\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/gu;

export function svgOf(drawing: SVGSVGElement): Blob {
  const text = new XMLSerializer().serializeToString(drawing).replace(NO_XML, "\ufffd");
  return new Blob([`<?xml version="1.0" encoding="UTF-8"?>\n${text}\n`], { type: "image/svg+xml" });
}

export async function pngOf(drawing: SVGSVGElement): Promise<Blob> {
  const address = URL.createObjectURL(svgOf(drawing));
  try {
    const image = new Image();
    image.src = address;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = image.width * SHARPNESS;
    canvas.height = image.height * SHARPNESS;
    canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
    return await new Promise((resolve, reject) =>
      canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no picture was made")))),
    );
  } finally {
    URL.revokeObjectURL(address);
  }
}

/** Gives a file to the reader under a name that says what it shows. */
export function save(content: Blob, kind: string, state: State): void {
  const address = URL.createObjectURL(content);
  const link = document.createElement("a");
  link.href = address;
  link.download = `anatomy-${state.model || "model"}-${state.view}.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
