// One answer: its request, and its state while it streams.

import { ServerError, streamChat } from "./server.js";

const ALTERNATIVES = 5; // alternatives requested for each sampled token

/** A new answer. Its `state` is streaming, then finished, stopped or failed. */
export function newAnswer(model) {
  return {
    model, text: "", state: "streaming", reason: null, problem: null, asksForKey: false, tokens: [], usage: null,
    wait: null, seconds: null,
  };
}

/** Streams `answer` from the server and calls `changed` after each chunk. Never rejects. */
export async function streamAnswer(answer, request, { key, probabilities, signal, changed }) {
  const started = performance.now();
  const named = { ...request, model: answer.model };
  try {
    await withProbabilities(named, probabilities, async (body) => {
      for await (const chunk of streamChat(body, key, signal)) {
        addChunk(answer, chunk, started);
        changed();
      }
    });
    answer.state = "finished";
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) {
      answer.state = "stopped";
    } else {
      answer.state = "failed";
      answer.problem = error instanceof ServerError ? error.message : `The page failed: ${error.message}`;
      answer.asksForKey = error.asksForKey ?? false;
    }
  }
  answer.seconds = (performance.now() - started) / 1000;
  changed();
}

/** Requests log-probabilities; without alternatives if the server does not support those. */
async function withProbabilities(body, wanted, send) {
  if (!wanted) {
    await send(body);
    return;
  }
  try {
    await send({ ...body, logprobs: true, top_logprobs: ALTERNATIVES });
  } catch (error) {
    if (error.param !== "top_logprobs") throw error;
    await send({ ...body, logprobs: true });
  }
}

function addChunk(answer, chunk, started) {
  if (chunk.usage) answer.usage = chunk.usage;
  const choice = chunk.choices?.[0];
  if (!choice) return;
  const logprobs = choice.logprobs?.content ?? [];
  const text = choice.delta?.content ?? choice.delta?.refusal ?? "";
  if (answer.wait === null && (text || logprobs.length)) answer.wait = (performance.now() - started) / 1000;
  answer.text += text;
  for (const token of logprobs) answer.tokens.push(token);
  if (choice.finish_reason) answer.reason = choice.finish_reason;
}

/** Facts about a finished answer: token count, rate, waiting time, and why it ended. */
export function factsOf(answer) {
  const facts = [];
  const count = answer.usage?.completion_tokens ?? (answer.tokens.length || null);
  if (count !== null) facts.push(`${count} token${count === 1 ? "" : "s"}`);
  const streaming = answer.seconds - (answer.wait ?? 0);
  if (count > 1 && answer.wait !== null && streaming > 0) facts.push(`${rate((count - 1) / streaming)} tokens/s`);
  if (answer.wait !== null) facts.push(`first after ${answer.wait.toFixed(2)} s`);
  const ends = { length: "cut at the token limit", content_filter: "withheld by the guard", tool_calls: "calls a tool" };
  if (answer.state === "stopped") facts.push("stopped");
  else if (ends[answer.reason]) facts.push(ends[answer.reason]);
  return facts;
}

function rate(perSecond) {
  return perSecond < 10 ? perSecond.toFixed(1) : String(Math.round(perSecond));
}
