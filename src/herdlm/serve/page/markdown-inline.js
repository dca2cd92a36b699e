// Markdown within a block: from a text to a list of nodes, plain objects again.
//
// Nodes: {type: "text" | "code", text}, {type: "break"}, {type: "strong" | "emphasis" | "deleted", children},
// {type: "link", url, children}. A link's url is http or https, checked by the browser's own parser; everything else
// that looks like a link stays the text it is. Delimiters are matched by CommonMark's algorithm; the work is linear.

import { Items } from "./markdown-items.js";

const MAX_DEPTH = 12; // of emphasis in emphasis
const MAX_URL = 2000;
const PUNCTUATION = /[\p{P}\p{S}]/u;
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const ENTITY = /&(?:#x([0-9a-f]{1,6})|#([0-9]{1,7})|(amp|lt|gt|quot|apos|nbsp));/iy;
const NAMED = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };
const BARE_URL = /https?:\/\/[^\s<>"`\\^{|}[\]]+/iy;
const ANGLE_URL = /<(https?:\/\/[^\s<>]*)>/iy;
const LINE_BREAK = /<br ?\/?>/iy;
const PLAIN = /[^\\`*_~[\]!<&h\n]+/y;

/** The URL if it is an absolute http(s) one without a name or password in front of its host, else null. */
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

/** The nodes of a block's text. */
export function inlineOf(text) {
  return new Inline(text).parse();
}

class Inline {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.items = new Items();
    this.delimiters = null; // the newest run of *, _ or ~ that may open or close; each knows the one before
    this.serial = 0;
    this.brackets = []; // opened by [ and not closed yet
    this.ticks = runsOfTicks(text);
  }

  parse() {
    while (this.at < this.text.length) this.step();
    this.emphasise(0);
    return this.items.nodes();
  }

  step() {
    const plain = this.match(PLAIN);
    if (plain) {
      this.add(plain[0]);
      return;
    }
    const mark = this.text[this.at];
    if (mark === "\\") this.escape();
    else if (mark === "`") this.code();
    else if (mark === "*" || mark === "_" || mark === "~") this.delimiter(mark);
    else if (mark === "[") this.open(1, false);
    else if (mark === "!" && this.text[this.at + 1] === "[") this.open(2, true);
    else if (mark === "]") this.close();
    else if (mark === "\n") this.newline();
    else if (mark === "&") this.entity();
    else if (mark === "<") this.angle();
    else if (mark === "h" && this.bareUrl()) return;
    else this.add(mark, 1);
  }

  match(pattern) {
    pattern.lastIndex = this.at;
    return pattern.exec(this.text);
  }

  add(text, length = text.length) {
    this.at += length;
    return this.items.push({ type: "text", text });
  }

  escape() {
    const next = this.text[this.at + 1];
    if (next === "\n") {
      this.at += 1;
      this.newline();
    } else if (next !== undefined && ESCAPABLE.test(next)) {
      this.add(next, 2);
    } else {
      this.add("\\");
    }
  }

  newline() {
    const last = this.items.last;
    if (last?.node.type === "text") last.node.text = last.node.text.replace(/ {1,64}$/, "");
    this.items.push({ type: "break" });
    this.at += 1;
    while (this.text[this.at] === " ") this.at += 1;
  }

  code() {
    const run = this.ticks.at(this.at);
    const end = this.ticks.next(run, this.at + run);
    if (end < 0) {
      this.add("`".repeat(run));
      return;
    }
    let content = this.text.slice(this.at + run, end).replaceAll("\n", " ");
    if (content.startsWith(" ") && content.endsWith(" ") && content.trim()) content = content.slice(1, -1);
    this.items.push({ type: "code", text: content });
    this.at = end + run;
  }

  entity() {
    const match = this.match(ENTITY);
    if (!match) {
      this.add("&");
      return;
    }
    const code = match[1] ? Number.parseInt(match[1], 16) : Number(match[2]);
    const valid = code > 0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
    this.add(match[3] ? NAMED[match[3].toLowerCase()] : valid ? String.fromCodePoint(code) : "\ufffd", match[0].length);
  }

  angle() {
    const link = this.match(ANGLE_URL);
    const url = link && safeUrl(link[1]);
    if (url) {
      this.items.push({ type: "link", url, children: [{ type: "text", text: link[1] }] });
      this.at += link[0].length;
      return;
    }
    const line = this.match(LINE_BREAK);
    if (line) {
      this.items.push({ type: "break" });
      this.at += line[0].length;
    } else {
      this.add("<");
    }
  }

  bareUrl() {
    if (isWord(this.before())) return false;
    const match = this.match(BARE_URL);
    if (!match) return false;
    const found = withoutTail(match[0]);
    const url = safeUrl(found);
    if (!url) return false;
    this.items.push({ type: "link", url, children: [{ type: "text", text: found }] });
    this.at += found.length;
    return true;
  }

  before() {
    return this.at ? codePointBefore(this.text, this.at) : "";
  }

  delimiter(mark) {
    let end = this.at;
    while (this.text[end] === mark) end += 1;
    const length = end - this.at;
    const before = this.before() || " ";
    const after = end < this.text.length ? String.fromCodePoint(this.text.codePointAt(end)) : " ";
    const opens = !isSpace(after) && (!PUNCTUATION.test(after) || isSpace(before) || PUNCTUATION.test(before));
    const closes = !isSpace(before) && (!PUNCTUATION.test(before) || isSpace(after) || PUNCTUATION.test(after));
    const item = this.add(mark.repeat(length));
    if (mark === "~" && length !== 2) return;
    const run = {
      mark, item, length, original: length, serial: this.serial, before: this.delimiters, behind: null,
      opens: opens && (mark !== "_" || !closes || PUNCTUATION.test(before)),
      closes: closes && (mark !== "_" || !opens || PUNCTUATION.test(after)),
    };
    this.serial += 1;
    if (this.delimiters) this.delimiters.behind = run;
    this.delimiters = run;
  }

  open(length, picture) {
    const item = this.add(this.text.slice(this.at, this.at + length));
    this.brackets.push({ item, picture, serial: this.serial });
  }

  close() {
    const bracket = this.brackets.pop();
    const target = bracket ? this.target(this.at + 1) : null;
    if (!target) {
      this.add("]");
      return;
    }
    this.emphasise(bracket.serial);
    const children = withoutLinks(this.items.cutBehind(bracket.item));
    this.items.drop(bracket.item);
    // A picture would be content from another host: it becomes a link to it.
    this.items.push({ type: "link", url: target.url, picture: bracket.picture, children });
    this.at = target.end;
    if (!bracket.picture) this.brackets = []; // no link within a link
  }

  /** The destination in parentheses at `at`, with an optional title, and where it ends; null if there is none safe. */
  target(at) {
    const { text } = this;
    if (text[at] !== "(") return null;
    let i = skipSpaces(text, at + 1);
    let destination;
    if (text[i] === "<") {
      const end = text.indexOf(">", i);
      destination = text.slice(i + 1, end);
      if (end < 0 || destination.includes("\n")) return null;
      i = end + 1;
    } else {
      const begin = i;
      let depth = 0;
      for (; i < text.length && text[i] > " "; i += 1) {
        if (i - begin > MAX_URL) return null;
        if (text[i] === "\\" && ESCAPABLE.test(text[i + 1] ?? "")) i += 1;
        else if (text[i] === "(") depth += 1;
        else if (text[i] === ")") {
          if (depth === 0) break;
          depth -= 1;
        }
      }
      if (depth) return null;
      destination = text.slice(begin, i);
    }
    i = skipSpaces(text, i);
    if (text[i] === '"' || text[i] === "'") {
      const end = text.indexOf(text[i], i + 1);
      if (end < 0) return null;
      i = skipSpaces(text, end + 1);
    }
    if (text[i] !== ")") return null;
    const url = safeUrl(destination.replace(/\\([!-/:-@[-`{-~])/g, "$1"));
    return url && { url, end: i + 1 };
  }

  /** Turn pairs of delimiters of serial number `bottom` and above into emphasis (CommonMark, "process emphasis"). */
  emphasise(bottom) {
    const floors = new Map(); // for a kind of closer: the serial number below which nothing opens it
    let below = this.delimiters;
    let closer = null;
    for (; below && below.serial >= bottom; below = below.before) closer = below;
    while (closer) {
      if (!closer.closes || !closer.length) {
        closer = closer.behind;
        continue;
      }
      const kind = `${closer.mark}${closer.opens}${closer.original % 3}`;
      const floor = Math.max(bottom, floors.get(kind) ?? 0);
      let opener = closer.before;
      while (opener && opener.serial >= floor && !pairs(opener, closer)) opener = opener.before;
      if (!opener || opener.serial < floor) {
        floors.set(kind, closer.serial);
        const next = closer.behind;
        if (!closer.opens) unlink(closer);
        closer = next;
        continue;
      }
      this.wrap(opener, closer);
      opener.behind = closer; // what stands between pairs with nothing any more
      closer.before = opener;
      if (!opener.length) unlink(opener);
      if (!closer.length) {
        const next = closer.behind;
        unlink(closer);
        closer = next;
      }
    }
    this.delimiters = below;
    if (below) below.behind = null;
  }

  wrap(opener, closer) {
    const used = opener.length >= 2 && closer.length >= 2 ? 2 : 1;
    const type = closer.mark === "~" ? "deleted" : used === 2 ? "strong" : "emphasis";
    for (const delimiter of [opener, closer]) {
      delimiter.length -= used;
      delimiter.item.node.text = delimiter.item.node.text.slice(used);
    }
    const children = this.items.cutBetween(opener.item, closer.item);
    const depth = 1 + children.reduce((most, child) => Math.max(most, child.depth ?? 0), 0);
    if (depth > MAX_DEPTH) this.items.insertBehind(opener.item, children);
    else this.items.insertBehind(opener.item, [{ type, children, depth }]);
  }
}

function pairs(opener, closer) {
  if (opener.mark !== closer.mark || !opener.opens || !opener.length) return false;
  const either = opener.closes || closer.opens;
  return !either || (opener.original + closer.original) % 3 !== 0 ||
    (opener.original % 3 === 0 && closer.original % 3 === 0);
}

function unlink(run) {
  if (run.before) run.before.behind = run.behind;
  if (run.behind) run.behind.before = run.before;
}

/** What becomes a link's text: links within are their text alone. */
function withoutLinks(nodes) {
  return nodes.flatMap((node) => {
    if (node.type === "link") return node.children;
    return node.children ? [{ ...node, children: withoutLinks(node.children) }] : [node];
  });
}

/** Where runs of backticks begin, by their length, so that an unclosed one is looked for once. */
function runsOfTicks(text) {
  const lengths = new Map();
  const begins = new Map();
  for (const match of text.matchAll(/`+/g)) {
    lengths.set(match.index, match[0].length);
    if (!begins.has(match[0].length)) begins.set(match[0].length, { positions: [], next: 0 });
    begins.get(match[0].length).positions.push(match.index);
  }
  return {
    // Behind an escaped backtick a run is shorter than it was counted.
    at: (position) => lengths.get(position) ?? /^`+/.exec(text.slice(position, position + 1000))[0].length,
    next(length, from) {
      const runs = begins.get(length);
      if (!runs) return -1;
      while (runs.next < runs.positions.length && runs.positions[runs.next] < from) runs.next += 1;
      return runs.positions[runs.next] ?? -1;
    },
  };
}

/** A bare URL without what more likely belongs to the sentence around it. */
function withoutTail(url) {
  let end = url.length;
  let open = 0;
  for (const letter of url) open += letter === "(" ? 1 : letter === ")" ? -1 : 0;
  for (; end; end -= 1) {
    const last = url[end - 1];
    const entity = last === ";" ? /&[a-z0-9]{1,32};$/i.exec(url.slice(Math.max(0, end - 34), end)) : null;
    if (last === ")" && open < 0) open += 1;
    else if (entity) end -= entity[0].length - 1;
    else if (!"?!.,:;*_~'\"]".includes(last)) break;
  }
  return url.slice(0, end);
}

function skipSpaces(text, at) {
  while (text[at] === " " || text[at] === "\n") at += 1;
  return at;
}

function isSpace(letter) {
  return /\s/.test(letter);
}

function isWord(letter) {
  return /[\p{L}\p{N}_]/u.test(letter);
}

function codePointBefore(text, at) {
  const low = text.charCodeAt(at - 1);
  return low >= 0xdc00 && low <= 0xdfff && at > 1 ? text.slice(at - 2, at) : text[at - 1];
}
