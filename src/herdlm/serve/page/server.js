// The client of the server's OpenAI API, with errors as messages for people.

const BASE = new URL("v1/", document.baseURI);

/** A failed request: a `message` for people, the `status` (0 without a response), the API's `code` and `param`. */
export class ServerError extends Error {
  constructor(message, { status = 0, code = null, param = null } = {}) {
    super(message);
    this.name = "ServerError";
    this.status = status;
    this.code = code;
    this.param = param;
  }

  get asksForKey() {
    return this.status === 401 || this.status === 403;
  }
}

/** The server's models, from /v1/models. */
export async function listModels(key, signal) {
  const response = await send("models", { headers: headersWith(key), signal });
  const body = await readJson(response);
  if (!Array.isArray(body?.data)) throw new ServerError("The server's list of models cannot be read.");
  return body.data.filter((model) => typeof model?.id === "string");
}

/** The chunks of a streamed chat completion. Aborting `signal` throws an AbortError. */
export async function* streamChat(request, key, signal) {
  const response = await send("chat/completions", {
    method: "POST",
    headers: { ...headersWith(key), "content-type": "application/json" },
    body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  try {
    for await (const data of eventsOf(response.body)) {
      if (data === "[DONE]") return;
      const chunk = parse(data);
      if (chunk?.error) throw new ServerError(sentence(chunk.error.message ?? "The server failed"), chunk.error);
      yield chunk;
    }
  } catch (error) {
    if (error instanceof ServerError || error.name === "AbortError") throw error;
    throw new ServerError("The connection broke during the answer.");
  }
  throw new ServerError("The server closed the connection before the answer was complete.");
}

/** The data of server-sent events in a stream of bytes. */
export async function* eventsOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      pending += value ?? "";
      // A carriage return at the end may be half of a line ending, so it waits.
      const lines = pending.split(done ? /\r\n|\n|\r/ : /\r\n|\n|\r(?!$)/);
      pending = lines.pop();
      for (const line of lines) {
        if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        }
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(new URL(path, BASE), { ...options, credentials: "same-origin", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server cannot be reached. Is it running, and is this machine online?");
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

async function errorOf(response) {
  const { status } = response;
  let error = null;
  try {
    error = (await response.json()).error;
  } catch {
    // A proxy's page or an empty body: the status must do.
  }
  return new ServerError(messageFor(status, error, response.headers.get("retry-after")), {
    status, code: error?.code ?? null, param: error?.param ?? null,
  });
}

function messageFor(status, error, retryAfter) {
  const reason = typeof error?.message === "string" ? sentence(error.message) : "";
  if (status === 401) return `The server asks for an API key. ${reason}`.trim();
  if (status === 403) return `The API key does not allow this. ${reason}`.trim();
  if (status === 429) {
    const wait = /^\d+$/.test(retryAfter ?? "") ? ` Try again in ${retryAfter} s.` : " Try again in a moment.";
    return `The server is busy. ${reason}${wait}`.replace("  ", " ");
  }
  return reason || `The server answered with status ${status}.`;
}

function headersWith(key) {
  if (!key) return {};
  if (!/^[\x21-\x7e]+$/.test(key)) throw new ServerError("The API key holds characters that no key has. Copy the whole key and nothing else.", { status: 401 });
  return { authorization: `Bearer ${key}` };
}

async function readJson(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server's answer is not JSON.");
  }
}

function parse(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new ServerError("A chunk of the answer is not JSON.");
  }
}

function sentence(text) {
  const trimmed = String(text).trim();
  const begun = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}
