// How a message looks: its text, what can be done with it, what it took.
import { copyButton, el, icon, iconButton } from "./dom.js";
import { GrowingMarkdown, renderMarkdown } from "./markdown.js";
import { speedOf } from "./reply.js";
import { locale, t } from "./strings.js";

const number = (value, digits = 0) => value.toLocaleString(locale(), { maximumFractionDigits: digits, minimumFractionDigits: digits });

function statsOf(message) {
  if (!message.tokens) return null;
  const speed = speedOf(message);
  const text = speed === null ? t("stats_one", number(message.tokens)) : t("stats", number(message.tokens), number(speed, speed < 20 ? 1 : 0));
  const more = message.prompt_tokens && message.first !== undefined ? t("stats_prompt", number(message.prompt_tokens), number(message.first, 2)) : null;
  return el("span", { class: "stats", title: more }, text);
}

function branches(all, message, go) {
  if (all.length < 2) return null;
  const at = all.indexOf(message);
  const step = (by, name, label) => iconButton(name, t(label), () => go(all[at + by]), { disabled: !all[at + by], "data-step": by });
  return el("span", { class: "branches" }, step(-1, "left", "version_before"), el("span", {}, t("version", at + 1, all.length)), step(1, "right", "version_after"));
}

function noteOf(message, retry) {
  if (message.error) {
    return el("div", { class: "problem" }, icon("alert"), el("span", {}, message.error),
      el("button", { type: "button", class: "retry-problem", "data-do": "retry", onclick: retry }, t("retry")));
  }
  if (message.note === "cut") return el("p", { class: "note quiet" }, t("cut"));
  if (message.note === "stopped") return el("p", { class: "note quiet" }, t("stopped"));
  return message.content || message.reasoning ? null : el("p", { class: "note quiet" }, t("empty_reply"));
}

function thoughtsOf(message, thinking) {
  const label = thinking ? t("thinking") : message.thought >= 0.1 ? t("thought", number(message.thought, message.thought < 10 ? 1 : 0)) : t("thoughts");
  return { summary: label, text: message.reasoning };
}

export function userView(message, all, actions) {
  const body = el("div", { class: "body", tabindex: message.content.length > 800 ? "0" : null }, message.content);  // long ones scroll
  const tools = el("div", { class: "tools" }, branches(all, message, actions.go),
    copyButton(t("copy"), t("copied"), () => message.content),
    iconButton("edit", t("edit"), () => edit(), { "data-do": "edit" }));
  const view = el("li", { class: "message user", "data-id": message.id }, el("h2", { class: "visually-hidden" }, t("you")), body, tools);

  function edit() {
    const area = el("textarea", { rows: Math.min(12, message.content.split("\n").length + 1), "aria-label": t("edit_message") });
    area.value = message.content;
    const close = () => {
      form.replaceWith(body);
      tools.hidden = false;
      view.classList.remove("editing");
      tools.querySelector("[data-do=edit]").focus();
    };
    const send = () => area.value.trim() && actions.resend(message, area.value.trim());
    const form = el("form", { class: "edit", onsubmit: (event) => (event.preventDefault(), send()) }, area,
      el("div", { class: "buttons end" }, el("button", { type: "button", onclick: close }, t("cancel")), el("button", { class: "primary" }, t("send_edited"))));
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        close();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
      }
    });
    body.replaceWith(form);
    tools.hidden = true;
    view.classList.add("editing");
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }
  return view;
}

function assistantFrame(message, name) {
  const thoughts = el("details", { class: "thinking", hidden: true }, el("summary", {}), el("div", { class: "thoughts" }));
  const body = el("div", { class: "body" });
  const view = el("li", { class: "message assistant", "data-id": message.id }, el("h2", { class: "visually-hidden" }, name), thoughts, body);
  return { view, thoughts, body };
}

export function assistantView(message, all, name, actions) {
  const { view, thoughts, body } = assistantFrame(message, name);
  if (message.reasoning) {
    const { summary, text } = thoughtsOf(message, false);
    thoughts.hidden = false;
    thoughts.firstChild.textContent = summary;
    thoughts.lastChild.textContent = text.trim();
  }
  if (message.content) body.append(renderMarkdown(message.content));
  const note = noteOf(message, () => actions.retry(message));
  if (note) body.append(note);
  const copy = message.content && copyButton(t("copy"), t("copied"), () => message.content);
  view.append(el("div", { class: "tools" }, branches(all, message, actions.go), copy || null,
    message.error ? null : iconButton("retry", t("retry"), () => actions.retry(message), { "data-do": "retry" }), statsOf(message)));
  return view;
}

// A reply that is being written. refresh() draws what has come, at most once in a frame and never for more than a third of the time.
export class LiveView {
  constructor(reply, name, announce) {
    this.reply = reply;
    this.announce = announce;
    Object.assign(this, assistantFrame(reply.message, name));
    this.markdown = new GrowingMarkdown();
    this.waiting = el("p", { class: "waiting quiet" }, el("span", { class: "pulse", "aria-hidden": "true" }), el("span", {}, t("waiting")));
    this.body.append(this.waiting);
    this.view.setAttribute("aria-busy", "true");
    this.view.classList.add("live");
    this.drawn = 0;
    this.cost = 0;
  }

  refresh(after = () => {}) {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (!this.view.isConnected || this.reply.ended) return;
      const now = performance.now();
      if (now - this.drawn < 2 * this.cost) return this.refresh(after);
      this.draw();
      this.drawn = performance.now();
      this.cost = this.drawn - now;
      after();
    });
  }

  draw() {
    const { message, reading } = this.reply;
    if (message.reasoning) {
      const { summary, text } = thoughtsOf(message, !message.content);
      this.thoughts.hidden = false;
      this.thoughts.classList.toggle("going", !message.content);
      this.thoughts.firstChild.textContent = summary;
      this.thoughts.lastChild.textContent = text.trim();
    }
    if (message.content) {
      if (this.waiting.parentNode) this.body.replaceChildren(this.markdown.node);
      this.announce(this.markdown.show(message.content, false));
    } else if (message.reasoning) {
      this.waiting.hidden = true;
    } else if (reading !== null) {
      this.waiting.lastChild.textContent = t("reading", Math.round(100 * reading));
    }
  }

  finish() {  // what was left to say
    cancelAnimationFrame(this.frame);
    if (this.reply.message.content) this.announce(this.markdown.show(this.reply.message.content, true));
    if (this.reply.message.error) this.announce([this.reply.message.error]);
  }
}
