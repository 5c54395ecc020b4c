// The server, as the page knows it. A failure has a `kind`: network, broken, key, busy, server or request.
import { apiKey } from "./settings_store.js";
import { t } from "./strings.js";

export class Failure extends Error {
  constructor(kind, detail = "", wait = 1) {
    super(detail);
    this.kind = kind;
    this.wait = wait;
  }
  get text() {
    switch (this.kind) {
      case "network":
        return t("error_network");
      case "broken":
        return t("error_broken");
      case "key":
        return t("error_key");
      case "busy":
        return t("error_busy", this.wait);
      case "server":
        return t("error_server", this.message);
      case "answer":
        return t("error_answer");
      default:
        return this.message;
    }
  }
}

async function failureOf(reply) {
  let detail = `HTTP ${reply.status}`;
  try {
    detail = (await reply.json()).error.message || detail;
  } catch {
    // not in the interface's shape: the status has to do
  }
  if (reply.status === 401 || reply.status === 403) return new Failure("key", detail);
  if (reply.status === 429 || reply.status === 503) return new Failure("busy", detail, Number(reply.headers.get("Retry-After")) || 1);
  return new Failure(reply.status >= 500 ? "server" : "request", detail);
}

async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (apiKey()) headers.Authorization = `Bearer ${apiKey()}`;
  let reply;
  try {
    reply = await fetch(path, { ...options, headers, cache: "no-store", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("network", String(error));
  }
  if (!reply.ok) throw await failureOf(reply);
  return reply;
}

export async function getJson(path) {
  const reply = await request(path);
  try {
    return await reply.json();
  } catch {
    throw new Failure("answer");
  }
}

export async function getText(path, signal) {
  return (await request(path, { signal })).text();
}

// Server-sent events of a body: the data of each.
export async function* events(body) {
  const reader = body.getReader(), decoder = new TextDecoder();
  let rest = "", data = [], ended = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += decoder.decode(value, { stream: !done });
      const lines = rest.split(/\r\n|\n|\r/);
      rest = done ? "" : lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        if (line === "" && data.length > 0) {
          yield data.join("\n");
          data = [];
        }
      }
      if (done) return void (ended = true);
    }
  } finally {
    if (!ended) reader.cancel().catch(() => {});
  }
}

// Chunks of a chat completion until its end; `signal` stops it.
export async function* chat(body, signal) {
  const reply = await request("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true }, return_progress: true }),
    signal,
  });
  let done = false;  // what follows is read too: the connection serves the next request
  try {
    for await (const data of events(reply.body)) {
      done ||= data === "[DONE]";
      if (done) continue;
      let chunk;
      try {
        chunk = JSON.parse(data);
      } catch {
        throw new Failure("answer");
      }
      if (chunk.error) throw new Failure(chunk.error.type === "server_error" ? "server" : "request", chunk.error.message);
      yield chunk;
    }
  } catch (error) {
    if (error instanceof Failure || error.name === "AbortError") throw error;
    throw new Failure("broken", String(error));
  }
  if (!done) throw new Failure("broken");
}
