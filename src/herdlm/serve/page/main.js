// The page's own doings: what happens on each press, and which requests are under way.

import { fill, newAnswer } from "./answer.js";
import { emptyConversation, exported, keep, kept, messagesFor, newTurn } from "./conversation.js";
import { byId, make } from "./elements.js";
import { listModels } from "./server.js";
import { Settings } from "./settings.js";
import { tellTokens } from "./tokens.js";
import { Transcript, copyText } from "./transcript.js";

const MODELS = "herdlm.models";
const THEMES = ["system", "light", "dark"];
const NARROW = matchMedia("(max-width: 60rem)");
const ANNOUNCED = 2000; // characters of an answer that a screen reader is given at once
const UNDER_WAY = new Map(); // from an answer to what stops it

const settings = new Settings(byId("settings-form"));
const question = byId("question");
const pickers = [byId("model"), byId("beside")];
let conversation = kept();
let modelsFailed = false; // when they were last asked for
let dropped = null; // the conversation before "New chat"

const transcript = new Transcript(byId("conversation"), {
  edit(number, text) {
    stopAll();
    conversation.turns.length = number;
    question.focus();
    send(text);
  },
  regenerate: ask,
  stop(number, lane) {
    const { answers, shown } = conversation.turns[number].lanes[lane];
    UNDER_WAY.get(answers[shown])?.abort();
  },
  choose(number, lane, shown) {
    conversation.turns[number].lanes[lane].shown = shown;
    refresh();
  },
  enterKey,
});

function send(text) {
  const turn = newTurn(text.trim(), pickers[1].value ? 2 : 1);
  conversation.turns.push(turn);
  dropped = null;
  tell("");
  refresh();
  transcript.toEnd();
  const number = conversation.turns.length - 1;
  turn.lanes.forEach((_, lane) => ask(number, lane));
}

async function ask(number, lane) {
  const turn = conversation.turns[number];
  const place = turn.lanes[lane];
  if (!settings.check()) {
    openSettings(true);
    settings.wrong.focus();
    return;
  }
  const request = { ...settings.parameters(), messages: messagesFor(conversation, number, lane, settings.system) };
  place.answers = place.answers.filter((answer) => answer.state !== "failed" || answer.text);
  const answer = newAnswer(pickers[lane].value || pickers[0].value);
  place.answers.push(answer);
  place.shown = place.answers.length - 1;
  const stop = new AbortController();
  UNDER_WAY.set(answer, stop);
  refresh();
  await fill(answer, request, {
    key: settings.key, probabilities: settings.probabilities, signal: stop.signal,
    changed: () => transcript.grow(number, lane),
  });
  UNDER_WAY.delete(answer);
  if (conversation.turns[number] !== turn) return; // edited or cleared meanwhile
  refresh();
  announce(answer, transcript.answer(number, lane).body);
  if (answer.state === "failed" || modelsFailed) loadModels();
}

function announce(answer, body) {
  if (answer.state === "failed") return; // the problem is an alert of its own
  const words = body.textContent.length > ANNOUNCED ? `${body.textContent.slice(0, ANNOUNCED)} and so on` : body.textContent;
  const ended = answer.state === "stopped" ? "Stopped answer" : "Answer";
  const region = byId("announcer");
  region.append(make("p", {}, `${ended} of ${answer.model}: ${words || "empty"}`));
  while (region.children.length > 4) region.firstChild.remove();
}

function stopAll() {
  for (const stop of UNDER_WAY.values()) stop.abort();
}

function refresh() {
  transcript.show(conversation);
  const empty = conversation.turns.length === 0;
  byId("welcome").hidden = !empty;
  byId("new").disabled = empty;
  byId("export").disabled = empty;
  byId("send").textContent = UNDER_WAY.size ? "Stop" : "Send";
  byId("send").classList.toggle("main", !UNDER_WAY.size);
  if (!keep(conversation)) tell("The conversation is too long for this browser's store: it is lost with the page. Export keeps it.");
}

/** A line above the question, with a button for what may be done about it. */
function tell(text, label = null, pressed = null) {
  const notice = byId("notice");
  if (!text && !notice.firstChild) return;
  notice.replaceChildren(text);
  if (!label) return;
  const act = make("button", { type: "button", class: "small" }, label);
  act.addEventListener("click", pressed);
  notice.append(" ", act);
}

async function loadModels() {
  let models;
  try {
    models = await listModels(settings.key);
    modelsFailed = false;
  } catch (error) {
    modelsFailed = true;
    if (error.asksForKey) tell(error.message, "Enter the key", enterKey);
    else tell(error.message, "Retry", loadModels);
    return;
  }
  if (byId("notice").textContent) tell("");
  if (!models.length) tell("The server has no model.", "Retry", loadModels);
  const before = [...pickers.map((picker) => picker.value)];
  const wanted = before[0] ? before : storedModels();
  pickers[0].replaceChildren(...models.map(option));
  pickers[1].replaceChildren(make("option", { value: "" }, "none"), ...models.map(option));
  pickers.forEach((picker, lane) => {
    if (models.some(({ id }) => id === wanted[lane])) picker.value = wanted[lane];
  });
}

function option({ id, max_model_len: context }) {
  return make("option", { value: id, title: context ? `context of ${context} tokens` : null }, id);
}

function storedModels() {
  try {
    const stored = JSON.parse(localStorage.getItem(MODELS));
    return Array.isArray(stored) ? stored : [];
  } catch {
    return [];
  }
}

function openSettings(open) {
  document.body.classList.toggle("with-settings", open);
  byId("settings-toggle").setAttribute("aria-expanded", String(open));
}

function enterKey() {
  openSettings(true);
  settings.field("key").focus();
}

function showTheme() {
  const { theme } = document.documentElement.dataset;
  byId("theme").setAttribute("aria-label", `Theme: ${theme}`);
  byId("theme").title = `Theme: ${theme}`;
  byId("theme").firstElementChild.textContent = { system: "\u25d0", light: "\u2600", dark: "\u263e" }[theme];
}

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (UNDER_WAY.size) {
    stopAll();
  } else if (!settings.check()) {
    openSettings(true);
    settings.wrong.focus();
  } else if (!pickers[0].value) {
    tell("There is no model to ask.", "Retry", loadModels);
  } else if (question.value.trim()) {
    const text = question.value;
    question.value = "";
    question.focus();
    send(text);
  }
});

question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!UNDER_WAY.size) byId("composer").requestSubmit();
});

const hideTokenFacts = tellTokens(byId("conversation"));

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || hideTokenFacts()) return;
  if (UNDER_WAY.size) {
    stopAll();
  } else if (NARROW.matches && document.body.classList.contains("with-settings")) {
    openSettings(false);
    byId("settings-toggle").focus();
  }
});

byId("conversation").addEventListener("click", (event) => {
  const pressed = event.target.closest("[data-copy]");
  if (pressed) copyText(pressed, pressed.closest(".code").querySelector("pre").textContent);
});

byId("new").addEventListener("click", () => {
  stopAll();
  dropped = conversation;
  conversation = emptyConversation();
  refresh();
  tell("The conversation is cleared.", "Undo", () => {
    if (dropped) conversation = dropped;
    dropped = null;
    tell("");
    refresh();
    question.focus();
  });
  question.focus();
});

byId("export").addEventListener("click", () => {
  const content = JSON.stringify(exported(conversation, settings.values()), null, 2);
  const url = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  const day = new Date().toISOString().slice(0, 19).replaceAll(":", "");
  make("a", { href: url, download: `herdlm-chat-${day}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
});

byId("theme").addEventListener("click", () => {
  const { dataset } = document.documentElement;
  dataset.theme = THEMES[(THEMES.indexOf(dataset.theme) + 1) % THEMES.length];
  try {
    localStorage.setItem("herdlm.theme", dataset.theme);
  } catch {
    // It holds for this visit.
  }
  showTheme();
});

byId("settings-toggle").addEventListener("click", () => {
  const open = !document.body.classList.contains("with-settings");
  openSettings(open);
  if (open && NARROW.matches) settings.field("system").focus();
});
byId("reset").addEventListener("click", () => settings.reset());
byId("close-settings").addEventListener("click", () => {
  openSettings(false);
  byId("settings-toggle").focus();
});
settings.field("key").addEventListener("change", loadModels);
for (const picker of pickers) {
  picker.addEventListener("change", () => {
    try {
      localStorage.setItem(MODELS, JSON.stringify(pickers.map(({ value }) => value)));
    } catch {
      // It holds for this visit.
    }
  });
}
addEventListener("pagehide", () => keep(conversation));

openSettings(!NARROW.matches);
showTheme();
refresh();
transcript.toEnd();
await loadModels();
question.focus();
