// The way to the server: OpenAI's protocol, and its failures in words.

const BASE = new URL("v1/", document.baseURI);

/** A request that failed: `message` for people, `status` (0 where there was no answer), the API's `code` and `param`. */
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

/** The models that the server has, as /v1/models tells them. */
export async function listModels(key, signal) {
  const response = await send("models", { headers: headersWith(key), signal });
  const body = await readJson(response);
  if (!Array.isArray(body?.data)) throw new ServerError("The server's list of models cannot be read.");
  return body.data.filter((model) => typeof model?.id === "string");
}

/** The chunks of one streamed chat completion. Aborting `signal` ends it with an AbortError. */
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
    throw new ServerError("The connection broke while the answer was coming.");
  }
  throw new ServerError("The server closed the connection before the answer was complete.");
}

/** The data of server-sent events in a stream of bytes, however it is cut into pieces. */
export async function* eventsOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      rest += value ?? "";
      // A carriage return at the end may be half of a line's end: it waits.
      const lines = rest.split(done ? /\r\n|\n|\r/ : /\r\n|\n|\r(?!$)/);
      rest = lines.pop();
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
  if (!response.ok) throw await failureOf(response);
  return response;
}

async function failureOf(response) {
  const { status } = response;
  let told = null;
  try {
    told = (await response.json()).error;
  } catch {
    // A proxy's page, or nothing: the status has to do.
  }
  return new ServerError(words(status, told, response.headers.get("retry-after")), {
    status, code: told?.code ?? null, param: told?.param ?? null,
  });
}

function words(status, told, retryAfter) {
  const reason = typeof told?.message === "string" ? sentence(told.message) : "";
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
  if (!/^[\x21-\x7e]+$/.test(key)) throw new ServerError("The API key holds characters that no key has.", { status: 401 });
  return { authorization: `Bearer ${key}` };
}

async function readJson(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server's answer is no JSON.");
  }
}

function parse(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new ServerError("A piece of the answer is no JSON.");
  }
}

function sentence(text) {
  const trimmed = String(text).trim();
  const begun = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}
