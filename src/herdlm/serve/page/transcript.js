// Displays the conversation: a section per turn, with the question and one answer or two side by side.

import { factsOf } from "./answer.js";
import { make } from "./elements.js";
import { MarkdownView } from "./markdown.js";
import { TokensView } from "./tokens.js";

const NEAR_END = 80; // pixels from the bottom within which the page follows a streaming answer
const UPDATE_INTERVAL = 60; // minimum milliseconds between updates; longer if rendering is slow

/**
 * Shows a conversation. `actions` handles the reader's requests: edit(number, text), regenerate(number, lane),
 * stop(number, lane), choose(number, lane, shown), enterKey().
 */
export class Transcript {
  constructor(root, actions) {
    this.root = root;
    this.actions = actions;
    this.turns = [];
  }

  /** Updates the page to the conversation's current state. */
  show(conversation) {
    const follow = this.root.scrollHeight - this.root.scrollTop - this.root.clientHeight < NEAR_END;
    conversation.turns.forEach((turn, number) => {
      if (this.turns[number]?.turn === turn) return;
      const view = new TurnView(turn, number, this.actions);
      if (this.turns[number]) this.turns[number].element.replaceWith(view.element);
      else this.root.append(view.element);
      this.turns[number] = view;
    });
    for (const surplus of this.turns.splice(conversation.turns.length)) surplus.element.remove();
    this.turns.forEach((view, number) => view.refresh(number === conversation.turns.length - 1));
    if (follow) this.toEnd();
  }

  /** The view of an answer. */
  answer(number, lane) {
    return this.turns[number]?.lanes[lane];
  }

  /** Schedules an update of a streaming answer, at a rate that leaves the page responsive. */
  scheduleUpdate(number, lane) {
    const view = this.answer(number, lane);
    if (!view || view.timer) return;
    view.timer = setTimeout(() => {
      view.timer = 0;
      const follow = this.root.scrollHeight - this.root.scrollTop - this.root.clientHeight < NEAR_END;
      const started = performance.now();
      view.refresh();
      view.cost = performance.now() - started;
      if (follow) this.toEnd();
    }, Math.max(UPDATE_INTERVAL, 4 * view.cost));
  }

  toEnd() {
    this.root.scrollTop = this.root.scrollHeight;
  }
}

class TurnView {
  constructor(turn, number, actions) {
    this.turn = turn;
    this.lanes = turn.lanes.map((lane, index) => new AnswerView(lane, number, index, actions));
    this.edit = make("button", { type: "button", class: "small" }, "Edit");
    this.edit.addEventListener("click", () => this.openEditor(number, actions));
    this.text = make("div", { class: "said", dir: "auto" }, turn.question);
    this.asked = make("div", { class: "question" }, [
      make("h3", {}, "You"), this.text, make("div", { class: "actions" }, this.edit),
    ]);
    const answers = make("div", { class: `answers${turn.lanes.length > 1 ? " two" : ""}` }, this.lanes.map((lane) => lane.element));
    this.element = make("section", { class: "turn" }, [this.asked, answers]);
  }

  refresh(last) {
    for (const lane of this.lanes) {
      lane.last = last;
      lane.refresh();
    }
  }

  openEditor(number, actions) {
    const field = make("textarea", { "aria-label": "Edit your message", rows: "3" });
    field.value = this.turn.question;
    const send = make("button", { type: "submit", class: "main" }, "Send");
    const cancel = make("button", { type: "button" }, "Cancel");
    const note = make("span", { class: "quiet" }, "Everything after it is deleted.");
    const editor = make("form", { class: "editor" }, [field, make("div", { class: "actions" }, [send, cancel, note])]);
    const close = () => {
      editor.replaceWith(this.text);
      this.edit.hidden = false;
      this.edit.focus();
    };
    const done = (event) => {
      event.preventDefault();
      if (field.value.trim()) actions.edit(number, field.value);
    };
    editor.addEventListener("submit", done);
    cancel.addEventListener("click", close);
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        close();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) done(event);
    });
    this.text.replaceWith(editor);
    this.edit.hidden = true;
    field.focus();
  }
}

class AnswerView {
  constructor(lane, number, index, actions) {
    this.lane = lane;
    this.timer = 0;
    this.cost = 0; // milliseconds that the last rendering took
    this.last = false;
    this.asTokens = true; // if the answer has token probabilities
    this.answer = null;
    this.name = make("h3");
    this.body = make("div", { class: "body" });
    this.problem = make("div", { class: "problem", role: "alert" });
    this.facts = make("span", { class: "facts quiet" });
    this.action = button("", () => {
      if (this.answer.state === "streaming") actions.stop(number, index);
      else actions.regenerate(number, index);
    });
    this.copy = button("Copy", () => copyText(this.copy, this.answer.text));
    this.tokensToggle = button("Probabilities", () => {
      this.asTokens = !this.asTokens;
      this.refresh();
    });
    this.key = button("Enter the key", () => actions.enterKey());
    this.previous = button("\u2039", () => actions.choose(number, index, this.lane.shown - 1), "Previous answer");
    this.next = button("\u203a", () => actions.choose(number, index, this.lane.shown + 1), "Next answer");
    this.position = make("span", { class: "quiet" });
    this.versions = make("span", { class: "versions" }, [this.previous, this.position, this.next]);
    this.element = make("article", { class: "answer" }, [
      this.name, this.body, this.problem,
      make("div", { class: "actions" }, [this.action, this.key, this.copy, this.tokensToggle, this.versions, this.facts]),
    ]);
  }

  refresh() {
    const answer = this.lane.answers[this.lane.shown];
    if (!answer) {
      this.element.hidden = true;
      return;
    }
    this.element.hidden = false;
    const streaming = answer.state === "streaming";
    this.drawBody(answer);
    setText(this.name, answer.model);
    this.element.setAttribute("aria-label", `Answer of ${answer.model}`);
    this.element.classList.toggle("streaming", streaming);
    this.body.setAttribute("aria-busy", String(streaming));
    setText(this.problem, answer.problem ?? "");
    setText(this.action, streaming ? "Stop" : answer.state === "failed" ? "Retry" : "Regenerate");
    this.action.hidden = !streaming && !this.last;
    this.key.hidden = !answer.asksForKey;
    this.copy.hidden = streaming || !answer.text;
    this.tokensToggle.hidden = !answer.tokens.length;
    this.tokensToggle.setAttribute("aria-pressed", String(this.asTokens));
    const { length } = this.lane.answers;
    this.versions.hidden = length < 2 || streaming;
    setText(this.position, `${this.lane.shown + 1} of ${length}`);
    this.previous.disabled = this.lane.shown === 0;
    this.next.disabled = this.lane.shown === length - 1;
    setText(this.facts, streaming ? "" : factsOf(answer).join(" \u00b7 "));
  }

  drawBody(answer) {
    const tokens = this.asTokens && answer.tokens.length > 0;
    if (answer !== this.answer || tokens !== this.tokens || !this.view) {
      const root = tokens
        ? make("div", { class: "tokens", role: "group", "aria-label": "Tokens with their probabilities" })
        : make("div", { class: "markdown" });
      this.body.replaceChildren(root);
      this.view = tokens ? new TokensView(root) : new MarkdownView(root);
      this.answer = answer;
      this.tokens = tokens;
    }
    this.view.update(tokens ? answer.tokens : answer.text);
    this.body.classList.toggle("empty", !answer.text && !answer.tokens.length);
  }
}

function button(label, pressed, name = null) {
  const element = make("button", { type: "button", class: "small", "aria-label": name }, label);
  element.addEventListener("click", pressed);
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Copies a text and confirms it on the button. */
export async function copyText(pressed, text) {
  const label = "Copy";
  try {
    await navigator.clipboard.writeText(text);
    pressed.textContent = "Copied";
  } catch {
    pressed.textContent = "Copying is not allowed";
  }
  setTimeout(() => {
    pressed.textContent = label;
  }, 1500);
}
