// One reply on its way: asks the server, fills the message, tells whoever shows it. Goes on while another talk is looked at.
import { chat, Failure } from "./api.js";
import { kept, samplingBody } from "./settings_store.js";
import { pathTo, saveTalk, talkOf } from "./talks.js";

const SAVE_EVERY = 3000;  // milliseconds: a reload loses no more than that

const running = new Map();  // id of a talk -> Reply

export const replyOf = (talk) => running.get(talk?.id);

// What the model is given: system prompt, then the path, without replies that failed before their first word.
export function messagesFor(talk, message) {
  const out = [], system = kept("system");
  if (system) out.push({ role: "system", content: system });
  for (const { role, content } of pathTo(talk, message.parent)) {
    if (role === "assistant" && content === "") continue;
    const last = out[out.length - 1];
    if (last?.role === role) last.content += `\n\n${content}`;
    else out.push({ role, content });
  }
  return out;
}

export class Reply {
  constructor(talk, message, model, listener) {
    Object.assign(this, { talk, message, model, listener });
    this.controller = new AbortController();
    this.reading = null;  // share of the prompt that has been read
    this.saved = 0;
    running.set(talk.id, this);
  }

  stop() {
    this.controller.abort();
  }

  async run() {
    const { talk, message } = this, started = performance.now();
    let first = 0, last = 0, pieces = 0;
    try {
      const body = { model: this.model, messages: messagesFor(talk, message), ...samplingBody() };
      for await (const chunk of chat(body, this.controller.signal)) {
        const progress = chunk.prompt_progress;
        if (progress?.total > 0) this.reading = Math.min(1, (progress.processed ?? 0) / progress.total);
        const choice = chunk.choices?.[0], delta = choice?.delta ?? {};
        if (delta.content || delta.reasoning_content) {
          last = performance.now();
          first ||= last;
          ++pieces;
          if (delta.reasoning_content) message.reasoning = (message.reasoning ?? "") + delta.reasoning_content;
          if (delta.content) {
            if (message.reasoning && message.thought === undefined) message.thought = (last - first) / 1000;
            message.content += delta.content;
          }
        }
        if (choice?.finish_reason === "length") message.note = "cut";
        if (chunk.usage) Object.assign(message, { tokens: chunk.usage.completion_tokens, prompt_tokens: chunk.usage.prompt_tokens });
        this.listener(this);
        if (performance.now() - this.saved > SAVE_EVERY && talkOf(talk.id)) {
          this.saved = performance.now();
          saveTalk(talk);
        }
      }
    } catch (error) {
      if (error.name === "AbortError") message.note = "stopped";
      else if (error instanceof Failure) this.failure = error;
      else throw error;
    } finally {
      message.tokens ??= pieces;
      if (first) Object.assign(message, { first: (first - started) / 1000, seconds: (last - first) / 1000 });
      if (this.failure) message.error = this.failure.text;
      running.delete(talk.id);
      this.ended = true;
      if (talkOf(talk.id)) await saveTalk(talk);  // it may have been deleted
      this.listener(this);
    }
  }
}

// Tokens that followed the first, in the time they took; null where that says nothing.
export function speedOf(message) {
  return message.tokens > 1 && message.seconds > 0.02 ? (message.tokens - 1) / message.seconds : null;
}
