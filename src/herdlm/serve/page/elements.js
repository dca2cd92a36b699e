// Creates elements. Text becomes text nodes; no function turns a string into markup.

/**
 * Creates an element with attributes and children (elements, strings, or lists of them). Null attributes are left out.
 * Names of elements and attributes come from the page, never from a model.
 */
export function make(name, attributes = {}, children = []) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(key, value);
  for (const child of [children].flat()) element.append(child);
  return element;
}

/** The element with that id. */
export function byId(id) {
  return document.getElementById(id);
}
