/** The view layer: make elements, and change them only where something differs. */

type Child = Node | string | null;

/** A new element with attributes (null = left out) and children. */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string | null> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}

export function svg(tag: string, attributes: Record<string, string>, ...children: Node[]): SVGElement {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export function setText(node: Element, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets an attribute; null or false takes it away. */
export function setAttribute(node: Element, name: string, value: string | boolean | null): void {
  if (value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

/** A panel with a heading, and an optional aside at the heading's right. */
export function panel(name: string, title: string, aside: Node | null, ...children: Node[]): HTMLElement {
  const heading = el("h2", { id: `panel-${name}` }, title);
  const head = el("header", { class: "panel-head" }, heading, aside);
  return el("section", { class: `panel panel-${name}`, "aria-labelledby": heading.id }, head, ...children);
}

/** One plain sentence where content would be; `kind` error or empty. */
export function notice(kind: "error" | "empty", text: string, ...more: Node[]): HTMLElement {
  return el("p", { class: `notice ${kind}`, role: kind === "error" ? "alert" : "status" }, text, ...more);
}
