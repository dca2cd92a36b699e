// The list of items: filters, pages of rows, and what every model said. The address holds the filters.
// All text of data and models goes in as text, never as markup.
"use strict";
(() => {
const ROWS = 50; // items on a page of the list
const FEW = 3; // models; more are marks without names in a row
const SEARCH_DELAY = 200; // milliseconds without a key until the search starts
const byId = (id) => document.getElementById(id);
const { models: MODELS, tasks: TASKS } = JSON.parse(byId("evaluation").textContent);

const loaded = new Map(); // from a task to a promise of its items
const arrived = new Map(); // from a task to its items
let state = read();
let newest = 0; // number of the latest drawing, as a slow task may arrive after another one was chosen

window.herdlmItems = (task, text) => arrived.set(task, unpacked(JSON.parse(text)));

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(key, value);
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

/** Control characters as symbols, as on all report pages. */
function visible(text) {
  return text
    .replace(/[\x00-\x08\x0b-\x1f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/\x7f/g, "\u2421")
    .replace(/[\x80-\x9f]/g, "\ufffd");
}

const foreign = (text, style = "") => make("bdi", { class: `foreign ${style}`, dir: "auto" }, visible(text));
const counted = (number) => number.toLocaleString("en-US");
const number = (value, digits = 3) => (value === null ? "not finite" : value.toFixed(digits).replace("-", "\u2212"));

/** Items with whole prompts, and each model's part in the order of MODELS. */
function unpacked({ models, items }) {
  const places = MODELS.map((model) => models.indexOf(model));
  let before = [];
  for (const item of items) {
    item.prompts = item.prompts.map(([shared, rest, start], slot) => ({
      text: (before[slot]?.text ?? "").slice(0, shared) + rest, start,
    }));
    before = item.prompts;
    item.models = places.map((place) => (place < 0 ? null : item.models[place]));
  }
  return items;
}

function load(task) {
  if (!loaded.has(task.name)) {
    loaded.set(task.name, new Promise((resolve, reject) => {
      const script = make("script", { src: task.file.split("/").map(encodeURIComponent).join("/"), charset: "utf-8" });
      script.onload = () => (arrived.has(task.name) ? resolve(arrived.get(task.name)) : reject(new Error(task.file)));
      script.onerror = () => reject(new Error(task.file));
      document.head.append(script);
    }));
  }
  return loaded.get(task.name);
}

// The state of the filters, in the address.

function read() {
  const given = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  const verdicts = MODELS.map((model) => ["right", "wrong"].find((verdict) => given.getAll(verdict).includes(model)) ?? "");
  return {
    task: TASKS.find((task) => task.name === given.get("task")) ?? TASKS[0],
    verdicts,
    agree: given.get("agree") ?? "",
    group: given.get("group") ?? "",
    text: given.get("text") ?? "",
    item: given.get("item") ?? "",
    page: Math.max(Number.parseInt(given.get("page") ?? "1", 10) || 1, 1),
  };
}

function address(of) {
  const told = new URLSearchParams({ task: of.task.name });
  of.verdicts.forEach((verdict, at) => verdict && told.append(verdict, MODELS[at]));
  for (const key of ["agree", "group", "text", "item"]) if (of[key]) told.set(key, of[key]);
  if (of.page > 1) told.set("page", of.page);
  return `#${told}`;
}

function change(part) {
  state = { ...state, page: 1, ...part };
  history.replaceState(null, "", address(state));
  return draw();
}

// Filters. Each is a test of an item; the count beside a choice is of the items that pass all other filters.

const AGREEMENT = {
  differ: ["models differ", (of) => of.includes(true) && of.includes(false)],
  right: ["all right", (of) => of.length > 0 && !of.includes(false)],
  wrong: ["all wrong", (of) => of.length > 0 && !of.includes(true)],
};
const verdict = (item, at) => item.models[at]?.passed ?? null;
const verdicts = (item) => MODELS.map((_, at) => verdict(item, at)).filter((passed) => passed !== null);

function text(item) {
  item.searched ??= [
    ...item.prompts.map((prompt) => prompt.text), ...(item.choices ?? []), item.expected ?? "",
    ...item.models.flatMap((said) => [...(said?.answers ?? []), said?.reason ?? ""]),
  ].join("\n").toLowerCase();
  return item.searched;
}

function tests(of) {
  const sought = of.text.toLowerCase(), right = AGREEMENT[of.agree];
  return {
    ...Object.fromEntries(MODELS.map((_, at) => [
      `model${at}`, of.verdicts[at] && ((item) => verdict(item, at) === (of.verdicts[at] === "right")),
    ])),
    agree: right && ((item) => right[1](verdicts(item))),
    group: of.group && ((item) => item.group === of.group),
    text: sought && ((item) => text(item).includes(sought)),
    item: of.item && ((item) => String(item.id) === of.item),
  };
}

function passing(items, all, but = null) {
  const used = Object.entries(all).filter(([name, test]) => test && name !== but).map(([, test]) => test);
  return used.length ? items.filter((item) => used.every((test) => test(item))) : items;
}

function count(items, test) {
  let found = 0;
  for (const item of items) found += test(item) ? 1 : 0;
  return found;
}

function field(name, label, control) {
  control.id = name;
  return make("div", { class: "field" }, make("label", { for: name, title: label }, visible(label)), control);
}

function choice(name, label, options, value, changed) {
  const control = make("select", {}, options.map(([key, says]) => make("option", { value: key }, visible(says))));
  control.value = value;
  control.addEventListener("change", () => changed(control.value));
  return field(name, label, control);
}

function drawFilters(items) {
  const active = document.activeElement?.id; // keeps its place, as the controls are made anew
  const all = tests(state);
  const within = (name) => passing(items, all, name);
  const parts = [choice("task", "Task", TASKS.map(({ name }) => [name, name]), state.task.name, (name) =>
    change({ task: TASKS.find((task) => task.name === name), group: "", item: "" }))];
  const judged = MODELS.map((_, at) => items.some((item) => verdict(item, at) !== null));
  MODELS.forEach((model, at) => {
    if (!judged[at]) return;
    const those = within(`model${at}`);
    const options = [["", "right or wrong"], ...["right", "wrong"].map((key) => [
      key, `${key} (${counted(count(those, (item) => verdict(item, at) === (key === "right")))})`,
    ])];
    parts.push(choice(`model${at}`, model, options, state.verdicts[at], (key) =>
      change({ verdicts: state.verdicts.map((old, other) => (other === at ? key : old)) })));
  });
  if (judged.filter(Boolean).length > 1) {
    const those = within("agree");
    const options = Object.entries(AGREEMENT).map(([key, [says, test]]) => [
      key, `${says} (${counted(count(those, (item) => test(verdicts(item))))})`,
    ]);
    parts.push(choice("agree", "Agreement", [["", "any"], ...options], state.agree, (agree) => change({ agree })));
  }
  const groups = new Map();
  for (const item of items) if (item.group !== undefined) groups.set(item.group, 0);
  if (groups.size) {
    for (const item of within("group")) groups.set(item.group, groups.get(item.group) + 1);
    const options = [...groups].sort().map(([name, found]) => [name, `${name} (${counted(found)})`]);
    parts.push(choice("group", "Group", [["", "all groups"], ...options], state.group, (group) => change({ group })));
  }
  const search = byId("text")?.parentElement ?? field("text", "Text in prompts and answers", searchField());
  if (byId("text") !== document.activeElement) search.lastChild.value = state.text;
  const clear = make("button", { type: "button", id: "clear" }, "Show all items");
  clear.disabled = !Object.values(all).some(Boolean);
  clear.addEventListener("click", () =>
    change({ verdicts: MODELS.map(() => ""), agree: "", group: "", text: "", item: "" }));
  const box = byId("filters");
  if (search.parentElement === box) { // the search field stays where it is, so that typing is not disturbed
    for (const element of [...box.children]) if (element !== search) element.remove();
    search.before(...parts);
    search.after(clear);
  } else {
    box.replaceChildren(...parts, search, clear);
  }
  if (active && document.activeElement?.id !== active) byId(active)?.focus({ preventScroll: true });
}

function searchField() {
  const control = make("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  let timer = 0;
  control.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => control.value !== state.text && change({ text: control.value }), SEARCH_DELAY);
  });
  return control;
}

// The list.

async function draw() {
  const task = state.task, mine = (newest += 1);
  if (!task) {
    byId("count").textContent = "There are no items.";
    return;
  }
  if (!arrived.has(task.name)) {
    byId("count").textContent = `Loading ${task.file}`;
    byId("list").replaceChildren();
    byId("pages").replaceChildren();
  }
  let items;
  try {
    items = await load(task);
  } catch {
    if (mine !== newest) return;
    loaded.delete(task.name);
    drawFilters([]);
    byId("count").textContent =
      `${task.file} could not be loaded. It belongs beside this page: move or send the whole folder.`;
    return;
  }
  if (mine !== newest) return;
  drawFilters(items);
  const found = passing(items, tests(state));
  const pages = Math.max(Math.ceil(found.length / ROWS), 1);
  const page = Math.min(state.page, pages), first = (page - 1) * ROWS;
  const rows = found.slice(first, first + ROWS);
  const of = found.length < items.length ? `${counted(found.length)} of ${counted(items.length)}` : counted(items.length);
  const range = pages > 1 ? `, ${counted(first + 1)} to ${counted(first + rows.length)} shown` : "";
  byId("count").textContent = `${of} items${range}`;
  byId("list").replaceChildren(...rows.map(row));
  drawPages(page, pages);
  if (state.item && rows.length === 1) byId("list").firstChild.open = true;
}

function drawPages(page, pages) {
  const go = (to, says) => {
    const button = make("button", { type: "button" }, says);
    button.disabled = to < 1 || to > pages;
    button.addEventListener("click", async () => {
      await change({ page: to });
      byId("count").scrollIntoView({ block: "start" });
      const left = [...byId("pages").querySelectorAll("button:enabled")]; // the one that was pressed is gone
      (left.find((each) => each.textContent === says) ?? left[0])?.focus({ preventScroll: true });
    });
    return button;
  };
  byId("pages").replaceChildren(
    ...(pages > 1 ? [go(page - 1, "Previous"), make("span", {}, `Page ${counted(page)} of ${counted(pages)}`), go(page + 1, "Next")] : []));
}

function row(item) {
  const { text, start } = item.prompts[0];
  const what = text.slice(start, start + 400).replace(/\s+/g, " ").slice(0, 200);
  const marks = MODELS.map((model, at) => {
    const said = item.models[at];
    if (!said || said.passed === null) return null;
    const style = said.passed ? "right" : "wrong";
    return make("span", { class: `chip ${style}`, title: `${model}: ${style}` }, said.passed ? "✓" : "✗",
      make("span", { class: MODELS.length > FEW ? "unseen" : "" }, " ", bare(model)));
  });
  const summary = make("summary", {},
    make("span", { class: "id" }, String(item.id)),
    make("bdi", { class: "what", dir: "auto" }, visible(what) || "no text"),
    make("span", { class: "marks" }, marks));
  const details = make("details", { class: "item" }, summary);
  details.addEventListener("toggle", () => details.open && details.children.length === 1 && details.append(body(item)));
  return details;
}

const bare = (name) => make("bdi", {}, visible(name));
const folded = (says, ...content) => make("details", {}, make("summary", {}, says), ...content);

function body(item) {
  const parts = item.prompts.map((prompt, slot) => {
    const those = MODELS.filter((_, at) => item.models[at] && (item.models[at].prompt ?? 0) === slot);
    const title = item.prompts.length > 1 ? `Prompt of ${those.join(", ")}` : "Prompt";
    const before = prompt.text.slice(0, prompt.start);
    return [
      make("h3", {}, visible(title)),
      before ? folded(`${counted(before.length)} characters before the question`, foreign(before)) : null,
      question(prompt.text.slice(prompt.start)),
    ];
  });
  if (item.choices) parts.push(choices(item));
  if (item.expected !== undefined) parts.push(make("h3", {}, "Expected"), question(item.expected));
  parts.push(make("dl", { class: "answers models" }, item.models.map((said, at) => said && answer(said, MODELS[at], item))));
  const link = make("a", { href: address({ ...EVERYTHING, task: state.task, item: String(item.id) }) }, "Link to this item");
  return make("div", { class: "body" }, parts.flat(), make("p", {}, link));
}

const EVERYTHING = { verdicts: [], agree: "", group: "", text: "", item: "", page: 1 };
const LONG = 1500; // characters of a text that is folded

function question(text) {
  if (text.length <= LONG) return foreign(text || "(empty)");
  return make("div", {}, foreign(`${text.slice(0, LONG / 2)}…`), folded(`All ${counted(text.length)} characters`, foreign(text)));
}

/** The choices with each model's log-probabilities, the right one and the chosen ones marked. */
function choices(item) {
  const cell = (said, at) => {
    if (!said?.logprobs) return make("td", { class: "number" });
    const chosen = said.picked === at;
    return make("td", { class: `number${chosen ? " chosen" : ""}` }, chosen ? "chosen " : null, number(said.logprobs[at] ?? null));
  };
  const head = make("tr", {}, make("th", { scope: "col" }, "Choice"),
    MODELS.map((model) => make("th", { scope: "col", class: "number" }, bare(model))));
  const rows = item.choices.map((text, at) => make("tr", {},
    make("th", { scope: "row" }, foreign(text.trim() || text), item.right.includes(at) ? make("span", { class: "mark" }, " ✓ right") : null),
    item.models.map((said) => cell(said, at))));
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Log-probabilities of the choices" },
    make("table", {}, make("caption", {}, make("span", {}, "Log-probability of each choice")),
      make("thead", {}, head), make("tbody", {}, rows)));
}

/** What a model said. */
function answer(said, model, item) {
  const style = said.passed === null ? "" : said.passed ? "right" : "wrong";
  const texts = (said.answers ?? []).map((text, at) => make("dd", {}, text.trim() ? question(text) : make("em", {}, "no text"), figures(said, at)));
  const total = item.choices || !said.logprobs || texts.length ? null : make("dd", { class: "quiet" }, figures(said, 0));
  const values = Object.entries(said.metrics ?? {}).map(([name, value]) =>
    `${name} ${Array.isArray(value) ? value.map(plain).join(", ") : plain(value)}`);
  return make("div", { class: style },
    make("dt", {}, bare(model)),
    texts, total,
    style ? make("dd", {}, make("span", { class: "mark" }, said.passed ? "✓ right" : "✗ wrong"), said.reason ? ": " : null,
      said.reason ? make("bdi", {}, visible(said.reason)) : null) : null,
    values.length ? make("dd", { class: "quiet" }, values.join("; ")) : null,
    item.choices && said.tokens ? make("dd", { class: "quiet" }, `tokens of the choices: ${said.tokens.join(", ")}`) : null,
    said.cut ? make("dd", {}, `${counted(said.cut)} tokens of the prompt did not fit`) : null,
    said.details ? make("dd", {}, folded("Details of the verdict", foreign(said.details))) : null);
}

const plain = (value) => (value === null ? "not finite" : String(+value.toFixed(4)).replace("-", "\u2212"));

/** Length, log-probability and end of one answer. */
function figures(said, at) {
  const told = [];
  if (said.tokens?.[at] !== undefined) told.push(`${counted(said.tokens[at])} tokens`);
  if (typeof said.logprobs?.[at] === "number") told.push(`log-probability ${number(said.logprobs[at])}`);
  if (said.finish?.[at]) told.push(said.finish[at] === "stop" ? "ended by itself" : `ended by ${said.finish[at]}`);
  return told.length ? make("small", { class: "quiet" }, told.join(", ")) : null;
}

function follow() {
  state = read();
  draw();
  byId("items").scrollIntoView({ block: "start" });
}

addEventListener("hashchange", () => location.hash.includes("=") && follow());
addEventListener("click", (event) => { // a link to what the address says already changes nothing by itself
  const href = event.target.closest?.("a")?.getAttribute("href");
  if (href?.includes("=") && href === location.hash) follow();
});
if (location.hash.includes("=")) follow();
else draw();
})();
