// Elements in one line each. Text is only ever set as text: whatever it says, it is no markup.

type Attributes = Readonly<Record<string, string | number | boolean | EventListener | null>>;
export type Child = Node | string | null | false;

/** An HTML element. Attributes that are functions are listeners, false and null are left out. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  return dressed(document.createElement(tag), attributes, children);
}

/** The same of SVG. */
export function draw<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  return dressed(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

/** The same of MathML. */
export function math(
  tag: string,
  attributes: Attributes = {},
  ...children: Child[]
): MathMLElement {
  const element = document.createElementNS("http://www.w3.org/1998/Math/MathML", tag);
  return dressed(element as MathMLElement, attributes, children);
}

/** Replaces what is in an element. */
export function fill(element: Element, ...children: Child[]): void {
  element.replaceChildren(...children.filter((child) => child !== null && child !== false));
}

function dressed<E extends Element>(element: E, attributes: Attributes, children: Child[]): E {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== false)
      element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child !== null && child !== false) element.append(child);
  return element;
}
