// Renders an answer's Markdown. markdown-it parses it into tokens; this file turns the tokens into elements, one by one,
// and sets text as text nodes. No string ever becomes markup, so there is no HTML to sanitize and the page's policy needs
// no exception. Links lead to http and https only and show their host.

import { make } from "./elements.js";
import MarkdownIt from "./vendor/markdown-it.js";

const FIRST_LEVEL = 4; // of an answer's headings: the page's own are 1 to 3
const LINE_BREAK = /<br ?\/?>/iy; // the one HTML tag that models write where Markdown has no other way: in table cells
const USER_INFO = /[^\s/?#@]{0,100}@/y; // what follows the name of a user in an address
const MAX_DEPTH = 12; // of emphasis in emphasis, as browsers lay out deep trees by recursion

const parser = createParser();

/** Draws an answer that grows. Blocks that did not change keep their elements. */
export class MarkdownView {
  constructor(root) {
    this.root = root;
    this.blocks = []; // {key, element} of each top-level block on the page
    this.references = "";
  }

  /** Shows `text`. The whole text is parsed again, since a reference defined at its end changes links before it. */
  update(text) {
    const { blocks, references } = parse(text);
    let same = 0;
    if (references === this.references) {
      while (same < blocks.length && same < this.blocks.length && blocks[same].key === this.blocks[same].key) same += 1;
    }
    this.references = references;
    for (const { element } of this.blocks.splice(same)) element.remove();
    for (const { key, tokens, level } of blocks.slice(same)) {
      const [element] = renderBlocks(tokens, level);
      this.root.append(element);
      this.blocks.push({ key, element });
    }
  }
}

/** An absolute http or https URL without a user name or password, normalized; null for anything else. */
export function safeUrl(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    return null;
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") return null;
  return url.username || url.password ? null : url.href;
}

function createParser() {
  const markdown = new MarkdownIt({ html: false, linkify: true, breaks: true });
  markdown.validateLink = (url) => safeUrl(url) !== null; // what is refused stays text
  markdown.normalizeLink = (url) => safeUrl(url) ?? url;
  markdown.normalizeLinkText = (text) => text; // the text that the model wrote, which link() compares with the host
  markdown.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });
  for (const schema of ["ftp:", "mailto:", "//"]) markdown.linkify.add(schema, null);
  // An address with a user name leads to the host behind its @, whatever stands before: it stays text.
  const named = (text, match) => match && (USER_INFO.lastIndex = match.lastIndex, !USER_INFO.test(text));
  const { linkify } = markdown;
  const [match, matchAtStart] = [linkify.match.bind(linkify), linkify.matchAtStart.bind(linkify)];
  linkify.match = (text) => match(text)?.filter((found) => named(text, found)) ?? null;
  linkify.matchAtStart = (text) => [matchAtStart(text)].find((found) => named(text, found)) ?? null;
  markdown.inline.ruler.before("autolink", "line_break", (state, silent) => {
    LINE_BREAK.lastIndex = state.pos;
    const match = LINE_BREAK.exec(state.src);
    if (!match) return false;
    if (!silent) state.push("hardbreak", "br", 0);
    state.pos += match[0].length;
    return true;
  });
  return markdown;
}

/** A text's top-level blocks, each {tokens, level, key}, and its references. Blocks of equal keys look the same under equal references. */
function parse(text) {
  const environment = {};
  const tokens = parser.parse(text, environment);
  const lines = text.split(/\r\n|\n|\r/);
  const blocks = [];
  let ranks = []; // of the headings that the current one lies below
  let depth = 0;
  let first = 0;
  tokens.forEach((token, index) => {
    if (depth === 0) first = index;
    depth += token.nesting;
    if (depth > 0) return;
    let level = 0;
    const { type, tag, map } = tokens[first];
    if (type === "heading_open") {
      // Levels follow one another without a gap, whichever ones the model chose.
      const rank = Number(tag[1]);
      ranks = [...ranks.filter((above) => above < rank), rank];
      level = Math.min(6, FIRST_LEVEL + ranks.length - 1);
    }
    const source = lines.slice(...map).join("\n");
    blocks.push({ tokens: tokens.slice(first, index + 1), level, key: `${type} ${level} ${source}` });
  });
  return { blocks, references: JSON.stringify(environment.references ?? {}) };
}

/**
 * Nodes for a flat run of tokens. leaf(token, open) gives those of a token that stands alone within `open` ones,
 * wrap(token, nodes, depth) those of a pair of tokens around `nodes`.
 */
function nest(tokens, leaf, wrap) {
  const open = [{ token: null, nodes: [] }];
  for (const token of tokens) {
    if (token.nesting === 1) {
      open.push({ token, nodes: [] });
    } else {
      const done = token.nesting === 0 ? leaf(token, open) : wrap(open.at(-1).token, open.pop().nodes, open.length);
      for (const node of done) open.at(-1).nodes.push(node);
    }
  }
  return open[0].nodes;
}

/** Elements for a run of block tokens. `level` is that of a heading at its top; headings within quotes and lists have none. */
function renderBlocks(tokens, level) {
  const leaf = (token) => {
    if (token.type === "inline") return renderInline(token.children);
    return [token.type === "hr" ? make("hr") : codeBlock(token)]; // otherwise fence or code_block
  };
  const wrap = (token, nodes, depth) => {
    if (token.hidden) return nodes; // a paragraph of a tight list
    return [container(token, nodes, depth === 1 ? level : 0)];
  };
  return nest(tokens, leaf, wrap);
}

function container(token, children, level) {
  switch (token.type) {
    case "heading_open":
      // Within quotes and lists a heading is not part of the answer's outline.
      return make(level ? `h${level}` : "p", { dir: "auto", class: level ? null : "heading" }, children);
    case "paragraph_open":
    case "list_item_open":
      return make(token.tag, { dir: "auto" }, children);
    case "ordered_list_open":
      return make("ol", { start: token.attrGet("start")?.toString() ?? null }, children);
    case "table_open":
      return make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Table" }, make("table", {}, children));
    case "th_open":
    case "td_open": {
      const align = /^text-align:(left|right|center)$/.exec(token.attrGet("style") ?? "")?.[1] ?? null;
      return make(token.tag, { class: align, scope: token.tag === "th" ? "col" : null, dir: "auto" }, children);
    }
    default: // blockquote, bullet_list, thead, tbody, tr
      return make(token.tag, {}, children);
  }
}

function codeBlock({ info, content }) {
  const language = info.trim().split(/\s/, 1)[0].slice(0, 40);
  const copy = make("button", { type: "button", class: "small", "data-copy": "" }, "Copy");
  const label = `Code${language ? `, ${language}` : ""}`;
  return make("div", { class: "code" }, [
    make("div", { class: "code-bar" }, [make("span", {}, language || "code"), copy]),
    make("pre", { tabindex: "0", role: "group", "aria-label": label }, make("code", {}, content.replace(/\n$/, ""))),
  ]);
}

function renderInline(tokens, withinLink = false) {
  const leaf = (token, open) => {
    switch (token.type) {
      case "text":
        return [token.content];
      case "code_inline":
        return [make("code", {}, token.content)];
      case "image": {
        // A picture would be content from another host: it becomes a link to it.
        const words = renderInline(token.children, true);
        const linked = withinLink || open.some((outer) => outer.token?.type === "link_open");
        return linked ? words : [link(token.attrGet("src"), words, true)];
      }
      default: // softbreak and hardbreak
        return [make("br")];
    }
  };
  const wrap = (token, nodes, depth) => {
    if (token.type === "link_open") return withinLink ? nodes : [link(token.attrGet("href"), nodes)];
    if (depth > MAX_DEPTH) return nodes;
    return [make(token.tag === "s" ? "del" : token.tag, {}, nodes)];
  };
  return nest(tokens, leaf, wrap);
}

/** A link, followed by its host in parentheses unless its text is that host's address. */
function link(url, words, picture = false) {
  const { host } = new URL(url);
  const attributes = { href: url, target: "_blank", rel: "noopener noreferrer nofollow", title: url };
  const anchor = make("a", attributes, words.length ? words : host);
  const named = hostOf(anchor.textContent.trim());
  if (picture) anchor.prepend("picture: ");
  if (named === host) return anchor;
  return make("span", {}, [anchor, make("span", { class: "host" }, ` (${host})`)]);
}

/** The host of a link's text if the text is an address and nothing else, else null. */
function hostOf(text) {
  try {
    return new URL(/^https?:\/\//i.test(text) ? text : `https://${text}`).host;
  } catch {
    return null;
  }
}
