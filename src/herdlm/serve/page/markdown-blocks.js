// Markdown's blocks: from lines to a tree of plain objects. Nothing here knows of the page.
//
// The rules are CommonMark's and, for tables, GitHub's. Left out are indented code, headings underlined with === or ---,
// reference definitions and HTML, which stays text. Every step is linear in the length of the text.

const MAX_DEPTH = 12; // of quotes and lists in each other; what lies deeper is text

const FENCE = /^ {0,3}(`{3,}|~{3,})(.*)$/;
const HEADING = /^ {0,3}(#{1,6})(?![^ \t])(.*)$/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?![^ \t])/;

/** Lines of a text, tabs at their beginnings as spaces. */
export function linesOf(text) {
  return text.split(/\r\n|\n|\r/).map(expandTabs);
}

/**
 * Blocks of `lines`, each `{type, first, last, ...}` where first and last number its lines.
 *
 * Types: heading (rank, text), rule, code (language, text, closed), quote (blocks), list (ordered, start, loose,
 * items: lists of blocks), table (align, head, rows: lists of texts), paragraph (text).
 */
export function blocksOf(lines, depth = 0) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (isBlank(lines[at])) {
      at += 1;
      continue;
    }
    const block = blockAt(lines, at, depth);
    block.first = at;
    at = block.last + 1;
    blocks.push(block);
  }
  return blocks;
}

function blockAt(lines, at, depth) {
  const line = lines[at];
  const fence = fenceOf(line);
  if (fence) return codeAt(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return { type: "heading", rank: heading[1].length, text: headingText(heading[2]), last: at };
  if (isRule(line)) return { type: "rule", last: at };
  if (depth < MAX_DEPTH) {
    if (isQuote(line)) return quoteAt(lines, at, depth);
    if (itemOf(line)) return listAt(lines, at, depth);
  }
  return tableAt(lines, at, depth) ?? paragraphAt(lines, at, depth);
}

function codeAt(lines, at, fence) {
  const content = [];
  for (let i = at + 1; i < lines.length; i += 1) {
    const end = FENCE.exec(lines[i]);
    if (end && end[1][0] === fence.mark[0] && end[1].length >= fence.mark.length && isBlank(end[2])) {
      return { type: "code", language: fence.language, text: content.join("\n"), closed: true, last: i };
    }
    content.push(stripIndent(lines[i], fence.indent));
  }
  // An unclosed fence reaches to the end of what holds it: of the text, the quote or the list item.
  return { type: "code", language: fence.language, text: content.join("\n"), closed: false, last: lines.length - 1 };
}

function quoteAt(lines, at, depth) {
  const inner = [];
  let last = at;
  const flow = new Flow(depth);
  for (let i = at; i < lines.length; i += 1) {
    const quoted = isQuote(lines[i]);
    if (!quoted && !flow.goesOnWith(lines[i])) break;
    inner.push(quoted ? lines[i].replace(/^ {0,3}> ?/, "") : lines[i]);
    flow.take(inner.at(-1));
    last = i;
  }
  return { type: "quote", blocks: blocksOf(inner.map(expandTabs), depth + 1), last };
}

function listAt(lines, at, depth) {
  const opening = itemOf(lines[at]);
  const items = [];
  let loose = false;
  let i = at;
  let last = at;
  while (i < lines.length) {
    const item = itemOf(lines[i]);
    if (!item || item.kind !== opening.kind || isRule(lines[i])) break;
    if (items.length && isBlank(lines[i - 1])) loose = true;
    const inner = [lines[i].slice(item.width)];
    const flow = new Flow(depth);
    flow.take(inner[0]);
    last = i;
    let blanks = 0;
    for (i += 1; i < lines.length; i += 1) {
      const line = lines[i];
      if (isBlank(line)) {
        // An item may begin with one blank line, not with two.
        if (inner.length === 1 && isBlank(inner[0])) break;
        blanks += 1;
        flow.take("");
        continue;
      }
      const inside = indentOf(line) >= item.width;
      if (!inside && (blanks || !flow.goesOnWith(line))) break;
      for (; blanks; blanks -= 1) inner.push("");
      inner.push(inside ? line.slice(item.width) : line.trimStart());
      flow.take(inner.at(-1));
      last = i;
    }
    while (i < lines.length && isBlank(lines[i])) i += 1;
    const blocks = blocksOf(inner, depth + 1);
    if (blocks.some((block, number) => number > 0 && isBlank(inner[block.first - 1]))) loose = true;
    items.push(blocks);
  }
  return { type: "list", ordered: opening.number !== null, start: opening.number, loose, items, last };
}

function tableAt(lines, at, depth) {
  if (at + 1 >= lines.length || !lines[at].includes("|")) return null;
  const align = alignments(lines[at + 1]);
  if (!align) return null;
  const head = cellsOf(lines[at]);
  if (head.length !== align.length) return null;
  const rows = [];
  let last = at + 1;
  for (let i = at + 2; i < lines.length && !isBlank(lines[i]) && !startsBlock(lines[i], depth); i += 1) {
    const cells = cellsOf(lines[i]).slice(0, head.length);
    rows.push([...cells, ...Array(head.length - cells.length).fill("")]);
    last = i;
  }
  return { type: "table", align, head, rows, last };
}

function paragraphAt(lines, at, depth) {
  let last = at;
  for (let i = at + 1; i < lines.length; i += 1) {
    if (isBlank(lines[i]) || interrupts(lines[i], depth) || tableAt(lines, i, depth)) break;
    last = i;
  }
  const content = lines.slice(at, last + 1).map((line) => line.trimStart());
  return { type: "paragraph", text: content.join("\n").trimEnd(), last };
}

/** Whether a paragraph is open at the end of the lines taken, so that a line without a mark may still belong to it. */
class Flow {
  constructor(depth) {
    this.depth = depth;
    this.fence = null;
    this.paragraph = false;
  }

  take(line) {
    // A line within quotes and lists within: what counts is what stands innermost.
    for (let depth = this.depth; !this.fence && depth < MAX_DEPTH; depth += 1) {
      const item = isRule(line) ? null : itemOf(line);
      if (isQuote(line)) line = line.replace(/^ {0,3}> ?/, "");
      else if (item) line = line.slice(item.width);
      else break;
    }
    const fence = FENCE.exec(line.trimStart());
    if (this.fence) {
      if (fence && fence[1][0] === this.fence[0] && fence[1].length >= this.fence.length && isBlank(fence[2])) {
        this.fence = null;
      }
      this.paragraph = false;
    } else if (fenceOf(line.trimStart())) {
      this.fence = fence[1];
      this.paragraph = false;
    } else {
      this.paragraph = !isBlank(line) && !HEADING.test(line) && !isRule(line);
    }
  }

  goesOnWith(line) {
    return this.paragraph && !isBlank(line) && !startsBlock(line, this.depth);
  }
}

function startsBlock(line, depth) {
  if (fenceOf(line) || HEADING.test(line) || isRule(line)) return true;
  return depth < MAX_DEPTH && (isQuote(line) || Boolean(itemOf(line)));
}

/** Whether a line ends a paragraph above it. An empty item does not, nor a numbered one unless its number is 1. */
function interrupts(line, depth) {
  if (fenceOf(line) || HEADING.test(line) || isRule(line)) return true;
  if (depth >= MAX_DEPTH) return false;
  if (isQuote(line)) return true;
  const item = itemOf(line);
  return Boolean(item) && !item.empty && (item.number === null || item.number === 1);
}

function fenceOf(line) {
  const match = FENCE.exec(line);
  if (!match || (match[1][0] === "`" && match[2].includes("`"))) return null;
  return { mark: match[1], language: match[2].trim().split(/\s/, 1)[0], indent: indentOf(line) };
}

function itemOf(line) {
  const match = ITEM.exec(line);
  if (!match) return null;
  const marked = match[0].length;
  const content = line.slice(marked);
  const empty = isBlank(content);
  const spaces = indentOf(content);
  const width = marked + (empty || spaces > 4 ? 1 : spaces);
  const number = match[2].length > 1 ? Number.parseInt(match[2], 10) : null;
  return { kind: match[2].at(-1), number, width, empty };
}

function headingText(rest) {
  const text = rest.trim();
  let end = text.length;
  while (end && text[end - 1] === "#") end -= 1;
  return end === 0 || " \t".includes(text[end - 1]) ? text.slice(0, end).trim() : text;
}

function isRule(line) {
  return indentOf(line) < 4 && /^(?:-{3,}|\*{3,}|_{3,})$/.test(line.replace(/[ \t]/g, ""));
}

function isQuote(line) {
  return /^ {0,3}>/.test(line);
}

function alignments(line) {
  if (!/^[ \t|:-]+$/.test(line) || !line.includes("-")) return null;
  const cells = cellsOf(line);
  if (!line.includes("|") || !cells.every((cell) => /^:?-+:?$/.test(cell))) return null;
  return cells.map((cell) => {
    if (cell.startsWith(":") && cell.endsWith(":")) return "center";
    if (cell.endsWith(":")) return "right";
    return cell.startsWith(":") ? "left" : "";
  });
}

/** The cells of a table's row. A bar behind a backslash belongs to its cell. */
function cellsOf(line) {
  const cells = [];
  let cell = "";
  const text = line.trim();
  for (let i = text.startsWith("|") ? 1 : 0; i < text.length; i += 1) {
    if (text[i] === "\\" && text[i + 1] === "|") {
      cell += "|";
      i += 1;
    } else if (text[i] === "|") {
      cells.push(cell.trim());
      cell = "";
      if (i === text.length - 1) return cells;
    } else {
      cell += text[i];
    }
  }
  cells.push(cell.trim());
  return cells;
}

function isBlank(line) {
  return line.trim() === "";
}

function indentOf(line) {
  return line.length - line.replace(/^ +/, "").length;
}

function stripIndent(line, most) {
  return line.slice(Math.min(most, indentOf(line)));
}

function expandTabs(line) {
  if (!/^ *\t/.test(line)) return line;
  let column = 0;
  let at = 0;
  for (; line[at] === " " || line[at] === "\t"; at += 1) column += line[at] === "\t" ? 4 - (column % 4) : 1;
  return " ".repeat(column) + line.slice(at);
}
