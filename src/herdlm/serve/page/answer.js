// One answer: what is asked for it, and how it grows.

import { ServerError, streamChat } from "./server.js";

const ALTERNATIVES = 5; // other tokens told beside each drawn one

/** An answer that has not begun. `state` becomes growing, then finished, stopped or failed. */
export function newAnswer(model) {
  return {
    model, text: "", state: "growing", reason: null, problem: null, asksForKey: false, tokens: [], usage: null,
    wait: null, seconds: null,
  };
}

/** Fill `answer` from the server; `changed` is called whenever there is more. Never rejects. */
export async function fill(answer, request, { key, probabilities, signal, changed }) {
  const begun = performance.now();
  const asked = { ...request, model: answer.model };
  try {
    await withProbabilities(asked, probabilities, async (body) => {
      for await (const chunk of streamChat(body, key, signal)) {
        take(answer, chunk, begun);
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
  answer.seconds = (performance.now() - begun) / 1000;
  changed();
}

/** A server without alternatives is asked again for the drawn tokens' probabilities alone. */
async function withProbabilities(body, wanted, ask) {
  if (!wanted) {
    await ask(body);
    return;
  }
  try {
    await ask({ ...body, logprobs: true, top_logprobs: ALTERNATIVES });
  } catch (error) {
    if (error.param !== "top_logprobs") throw error;
    await ask({ ...body, logprobs: true });
  }
}

function take(answer, chunk, begun) {
  if (chunk.usage) answer.usage = chunk.usage;
  const choice = chunk.choices?.[0];
  if (!choice) return;
  const told = choice.logprobs?.content ?? [];
  const text = choice.delta?.content ?? choice.delta?.refusal ?? "";
  if (answer.wait === null && (text || told.length)) answer.wait = (performance.now() - begun) / 1000;
  answer.text += text;
  for (const token of told) answer.tokens.push(token);
  if (choice.finish_reason) answer.reason = choice.finish_reason;
}

/** What is to be said about a finished answer: counts, rate, waiting time, why it ended. */
export function factsOf(answer) {
  const facts = [];
  const count = answer.usage?.completion_tokens ?? (answer.tokens.length || null);
  if (count !== null) facts.push(`${count} token${count === 1 ? "" : "s"}`);
  const growing = answer.seconds - (answer.wait ?? 0);
  if (count > 1 && answer.wait !== null && growing > 0) facts.push(`${rate((count - 1) / growing)} tokens/s`);
  if (answer.wait !== null) facts.push(`first after ${answer.wait.toFixed(2)} s`);
  const ends = { length: "cut at the limit of tokens", content_filter: "withheld by the guard", tool_calls: "calls a tool" };
  if (answer.state === "stopped") facts.push("stopped");
  else if (ends[answer.reason]) facts.push(ends[answer.reason]);
  return facts;
}

function rate(perSecond) {
  return perSecond < 10 ? perSecond.toFixed(1) : String(Math.round(perSecond));
}
