// The nodes of a text while its delimiters are matched: a doubly linked list, so that each match is little work.

/** A doubly linked list of nodes; items are {node, before, behind}. */
export class Items {
  constructor() {
    this.head = { node: null, before: null, behind: null };
    this.end = this.head;
  }

  get last() {
    return this.end === this.head ? null : this.end;
  }

  push(node) {
    const item = { node, before: this.end, behind: null };
    this.end.behind = item;
    this.end = item;
    return item;
  }

  drop(item) {
    item.before.behind = item.behind;
    if (item.behind) item.behind.before = item.before;
    else this.end = item.before;
  }

  insertBehind(item, nodes) {
    for (const node of nodes) {
      const fresh = { node, before: item, behind: item.behind };
      if (item.behind) item.behind.before = fresh;
      else this.end = fresh;
      item.behind = fresh;
      item = fresh;
    }
  }

  cutBetween(from, to) {
    const nodes = nodesFrom(from.behind, to);
    from.behind = to;
    to.before = from;
    return nodes;
  }

  cutBehind(from) {
    const nodes = nodesFrom(from.behind, null);
    from.behind = null;
    this.end = from;
    return nodes;
  }

  nodes() {
    return nodesFrom(this.head.behind, null);
  }
}

/** Nodes from an item up to another, neighbouring texts as one. */
function nodesFrom(item, end) {
  const nodes = [];
  let words = [];
  const flush = () => {
    if (words.length) nodes.push({ type: "text", text: words.join("") });
    words = [];
  };
  for (; item !== end; item = item.behind) {
    if (item.node.type !== "text") {
      flush();
      nodes.push(item.node);
    } else if (item.node.text) {
      words.push(item.node.text);
    }
  }
  flush();
  return nodes;
}
