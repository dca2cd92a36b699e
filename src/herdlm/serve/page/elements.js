// Making elements. Text enters as text nodes; there is no way from a string to markup.

/**
 * An element with attributes and children (elements, texts, or lists of them). An attribute of null is left out.
 * Names of elements and attributes are the page's own, never a model's.
 */
export function make(name, attributes = {}, children = []) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(key, value);
  for (const child of [children].flat()) element.append(child);
  return element;
}

/** The page's element of that id. */
export function byId(id) {
  return document.getElementById(id);
}
