// The conversation: questions and, per lane (one, or two side by side), all answers so far. Stored in the browser.

const STORED = "herdlm.conversation";
const STATES = ["finished", "stopped", "failed"];

/** A conversation without questions. */
export function emptyConversation() {
  return { turns: [] };
}

/** A turn: a question and each lane's answers, of which number `shown` is part of the dialog. */
export function newTurn(question, lanes) {
  return { question, lanes: Array.from({ length: lanes }, () => ({ answers: [], shown: 0 })) };
}

/** The answer of a lane that is part of the dialog, or null. */
export function shownAnswer(turn, lane) {
  const found = turn.lanes[lane] ?? turn.lanes[0];
  return found?.answers[found.shown] ?? null;
}

/**
 * The messages that request the answer to turn `number` in `lane`. A lane that was opened later uses the first lane's
 * earlier answers. Unanswered turns are left out.
 */
export function messagesFor(conversation, number, lane, system) {
  const messages = system ? [{ role: "system", content: system }] : [];
  for (const turn of conversation.turns.slice(0, number)) {
    const answer = shownAnswer(turn, lane);
    if (!answer || (answer.state === "failed" && !answer.text)) continue;
    messages.push({ role: "user", content: turn.question }, { role: "assistant", content: answer.text });
  }
  messages.push({ role: "user", content: conversation.turns[number].question });
  return messages;
}

/** Stores the conversation without probabilities, which would soon fill the storage. Returns whether that worked. */
export function saveConversation(conversation) {
  const lean = conversation.turns.map((turn) => ({
    question: turn.question,
    lanes: turn.lanes.map(({ answers, shown }) => ({
      shown,
      answers: answers.map(({ tokens, ...answer }) => (answer.state === "streaming" ? { ...answer, state: "stopped" } : answer)),
    })),
  }));
  try {
    localStorage.setItem(STORED, JSON.stringify({ version: 1, turns: lean }));
    return true;
  } catch {
    return false;
  }
}

/** The stored conversation, without turns that cannot be read. */
export function loadConversation() {
  let stored;
  try {
    stored = JSON.parse(localStorage.getItem(STORED));
  } catch {
    return emptyConversation();
  }
  if (stored?.version !== 1 || !Array.isArray(stored.turns)) return emptyConversation();
  return { turns: stored.turns.map(turnOf).filter(Boolean) };
}

function turnOf(turn) {
  if (typeof turn?.question !== "string" || !Array.isArray(turn.lanes) || !turn.lanes.length) return null;
  return {
    question: turn.question,
    lanes: turn.lanes.slice(0, 2).map((lane) => {
      const answers = (Array.isArray(lane?.answers) ? lane.answers : []).filter(readable).map((a) => ({ ...a, tokens: [] }));
      const shown = Number.isInteger(lane?.shown) ? Math.min(Math.max(lane.shown, 0), Math.max(answers.length - 1, 0)) : 0;
      return { answers, shown };
    }),
  };
}

function readable(answer) {
  return typeof answer?.text === "string" && typeof answer.model === "string" && STATES.includes(answer.state);
}

/** The content of an export: everything, and each lane's dialog as messages of the OpenAI API. */
export function exportConversation(conversation, settings) {
  const lanes = Math.max(0, ...conversation.turns.map((turn) => turn.lanes.length));
  const dialogs = Array.from({ length: lanes }, (_, lane) => ({
    model: conversation.turns.map((turn) => turn.lanes[lane] && shownAnswer(turn, lane)?.model).filter(Boolean).at(-1) ?? null,
    messages: dialogOf(conversation, lane, settings.system),
  }));
  return { format: "herdlm-chat", version: 1, exported: new Date().toISOString(), settings, dialogs, turns: conversation.turns };
}

function dialogOf(conversation, lane, system) {
  const number = conversation.turns.length - 1;
  const messages = messagesFor(conversation, number, lane, system);
  const last = shownAnswer(conversation.turns[number], lane);
  return last ? [...messages, { role: "assistant", content: last.text }] : messages;
}
