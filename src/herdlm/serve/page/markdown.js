// Markdown onto the page. The elements are made one by one and text only ever enters as text, so whatever a model writes,
// none of it becomes markup. Links lead to http and https alone and name the host they lead to.

import { make } from "./elements.js";
import { blocksOf, linesOf } from "./markdown-blocks.js";
import { inlineOf } from "./markdown-inline.js";

const FIRST_LEVEL = 4; // of an answer's headings: the page's own are 1 to 3

/** An answer that grows: blocks that are finished stay the elements they are. */
export class MarkdownView {
  constructor(root) {
    this.root = root;
    this.text = "";
    this.done = 0; // characters of the text before the blocks that may still change
    this.shown = []; // the blocks' {key, element, begin, ranks}
  }

  /** Show `text`. When it continues what was shown before, only the last two blocks are looked at again. */
  update(text) {
    if (!text.startsWith(this.text)) this.done = 0;
    this.text = text;
    // The last line may grow into something else and then belong to the block before: two blocks are open.
    const kept = this.shown.filter((block) => block.begin < this.done);
    const ranks = kept.at(-1)?.ranks ?? [];
    const tail = text.slice(this.done);
    const fresh = describe(tail, this.done, ranks);
    const old = this.shown.slice(kept.length);
    let same = 0;
    while (same < fresh.length && same < old.length && fresh[same].key === old[same].key) same += 1;
    for (const block of old.slice(same)) block.element.remove();
    fresh.forEach((block, number) => {
      block.element = number < same ? old[number].element : render(block.block, block.level);
      if (number >= same) this.root.append(block.element);
    });
    this.shown = [...kept, ...fresh];
    const open = this.shown.slice(-2);
    if (open.length === 2) this.done = Math.max(this.done, open[0].begin);
  }
}

/** Top-level blocks of a text that begins at character `offset`, behind headings of `ranks`. */
function describe(text, offset, ranks) {
  const begins = lineBegins(text);
  const lines = linesOf(text);
  return blocksOf(lines).map((block) => {
    let level = 0;
    if (block.type === "heading") {
      // Levels follow one another without a gap, whichever the model chose.
      ranks = [...ranks.filter((rank) => rank < block.rank), block.rank];
      level = Math.min(6, FIRST_LEVEL + ranks.length - 1);
    }
    const source = lines.slice(block.first, block.last + 1).join("\n");
    return { block, level, ranks, begin: offset + begins[block.first], key: `${block.type} ${level} ${source}` };
  });
}

function lineBegins(text) {
  const begins = [0];
  for (const match of text.matchAll(/\r\n|\n|\r/g)) begins.push(match.index + match[0].length);
  return begins;
}

function render(block, level) {
  switch (block.type) {
    case "heading":
      // Within quotes and lists a heading is no part of the answer's outline.
      return make(level ? `h${level}` : "p", { dir: "auto", class: level ? null : "heading" }, inline(block.text));
    case "rule":
      return make("hr");
    case "code":
      return code(block);
    case "quote":
      return make("blockquote", {}, block.blocks.map((inner) => render(inner)));
    case "list":
      return list(block);
    case "table":
      return table(block);
    default:
      return make("p", { dir: "auto" }, inline(block.text));
  }
}

function code({ language, text }) {
  const name = language.slice(0, 40);
  const copy = make("button", { type: "button", class: "small", "data-copy": "" }, "Copy");
  return make("div", { class: "code" }, [
    make("div", { class: "code-bar" }, [make("span", {}, name || "code"), copy]),
    make("pre", { tabindex: "0", role: "group", "aria-label": `Code${name ? `, ${name}` : ""}` }, make("code", {}, text)),
  ]);
}

function list({ ordered, start, loose, items }) {
  const children = items.map((blocks) =>
    make("li", { dir: "auto" }, blocks.flatMap((block) =>
      block.type === "paragraph" && !loose ? [...inline(block.text)] : [render(block)])));
  return make(ordered ? "ol" : "ul", ordered && start !== 1 ? { start: String(start) } : {}, children);
}

function table({ align, head, rows }) {
  const cell = (kind, text, column) =>
    make(kind, { class: align[column] || null, scope: kind === "th" ? "col" : null, dir: "auto" }, inline(text));
  const row = (kind, cells) => make("tr", {}, cells.map((text, column) => cell(kind, text, column)));
  return make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table" }, make("table", {}, [
    make("thead", {}, row("th", head)),
    ...(rows.length ? [make("tbody", {}, rows.map((cells) => row("td", cells)))] : []),
  ]));
}

function inline(text) {
  return inlineOf(text).map(element);
}

function element(node) {
  switch (node.type) {
    case "text":
      return node.text;
    case "code":
      return make("code", {}, node.text);
    case "break":
      return make("br");
    case "link":
      return link(node);
    default:
      return make({ strong: "strong", emphasis: "em", deleted: "del" }[node.type], {}, node.children.map(element));
  }
}

/** A link, followed by its host in parentheses where its text does not say it. */
function link({ url, picture, children }) {
  const words = children.map(element);
  const { host } = new URL(url);
  const anchor = make(
    "a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow", title: url },
    words.length ? words : host,
  );
  const told = anchor.textContent.trim();
  if (picture) anchor.prepend("picture: ");
  if (hostOf(told) === host) return anchor;
  return make("span", {}, [anchor, make("span", { class: "host" }, ` (${host})`)]);
}

/** The host that a link's text names, if it is an address and nothing else. */
function hostOf(text) {
  try {
    return new URL(/^https?:\/\//i.test(text) ? text : `https://${text}`).host;
  } catch {
    return null;
  }
}
