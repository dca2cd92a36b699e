// The page's controller: handles buttons and keys, and keeps track of running requests.

import { newAnswer, streamAnswer } from "./answer.js";
import { emptyConversation, exportConversation, loadConversation, messagesFor, newTurn, saveConversation } from "./conversation.js";
import { byId, make } from "./elements.js";
import { listModels } from "./server.js";
import { Settings } from "./settings.js";
import { showTokenDetails } from "./tokens.js";
import { Transcript, copyText } from "./transcript.js";

const MODELS = "herdlm.models";
const THEMES = ["system", "light", "dark"];
const NARROW = matchMedia("(max-width: 60rem)");
const MAX_ANNOUNCED = 2000; // characters of an answer that are announced to screen readers
const RUNNING = new Map(); // AbortController of each streaming answer

const settings = new Settings(byId("settings-form"));
const question = byId("question");
const pickers = [byId("model"), byId("compare")];
let conversation = loadConversation();
let modelsFailed = false; // whether the last request for the list of models failed
let dropped = null; // the conversation before "New chat", for Undo

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
    RUNNING.get(answers[shown])?.abort();
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
  notify("");
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
  RUNNING.set(answer, stop);
  refresh();
  await streamAnswer(answer, request, {
    key: settings.key, probabilities: settings.probabilities, signal: stop.signal,
    changed: () => transcript.scheduleUpdate(number, lane),
  });
  RUNNING.delete(answer);
  if (conversation.turns[number] !== turn) return; // edited or cleared in the meantime
  refresh();
  announce(answer, transcript.answer(number, lane).body);
  if (answer.state === "failed" || modelsFailed) loadModels();
}

function announce(answer, body) {
  if (answer.state === "failed") return; // the problem has its own alert
  const words = body.textContent.length > MAX_ANNOUNCED ? `${body.textContent.slice(0, MAX_ANNOUNCED)}, and more` : body.textContent;
  const ended = answer.state === "stopped" ? "Stopped answer" : "Answer";
  const region = byId("announcer");
  region.append(make("p", {}, `${ended} of ${answer.model}: ${words || "empty"}`));
  while (region.children.length > 4) region.firstChild.remove();
}

function stopAll() {
  for (const stop of RUNNING.values()) stop.abort();
}

function refresh() {
  transcript.show(conversation);
  const empty = conversation.turns.length === 0;
  byId("welcome").hidden = !empty;
  byId("new").disabled = empty;
  byId("export").disabled = empty;
  byId("send").textContent = RUNNING.size ? "Stop" : "Send";
  byId("send").classList.toggle("main", !RUNNING.size);
  if (!saveConversation(conversation)) notify("The conversation is too long for this browser's storage and is lost when you close the page. Export it to keep it.");
}

/** Shows a notice above the question, with an optional button. */
function notify(text, label = null, pressed = null) {
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
    if (error.asksForKey) notify(error.message, "Enter the key", enterKey);
    else notify(error.message, "Retry", loadModels);
    return;
  }
  if (byId("notice").textContent) notify("");
  if (!models.length) notify("The server has no model.", "Retry", loadModels);
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
  if (RUNNING.size) {
    stopAll();
  } else if (!settings.check()) {
    openSettings(true);
    settings.wrong.focus();
  } else if (!pickers[0].value) {
    notify("There is no model to chat with.", "Retry", loadModels);
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
  if (!RUNNING.size) byId("composer").requestSubmit();
});

const hideTokenDetails = showTokenDetails(byId("conversation"));

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || hideTokenDetails()) return;
  if (RUNNING.size) {
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
  notify("The conversation is cleared.", "Undo", () => {
    if (dropped) conversation = dropped;
    dropped = null;
    notify("");
    refresh();
    question.focus();
  });
  question.focus();
});

byId("export").addEventListener("click", () => {
  const content = JSON.stringify(exportConversation(conversation, settings.values()), null, 2);
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
    // Without storage it lasts until the page is closed.
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
      // Without storage it lasts until the page is closed.
    }
  });
}
addEventListener("pagehide", () => saveConversation(conversation));

openSettings(!NARROW.matches);
showTheme();
refresh();
transcript.toEnd();
await loadModels();
question.focus();
