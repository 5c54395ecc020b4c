// The talk that is shown, and what can be done in it.
import { byId, el, icon } from "./dom.js";
import { assistantView, LiveView, userView } from "./message_view.js";
import { Reply, replyOf } from "./reply.js";
import { keep, kept } from "./settings_store.js";
import { t } from "./strings.js";
import { addMessage, newTalk, pathTo, saveTalk, showBranch, siblings, talkOf, titleFrom } from "./talks.js";

const NEAR_END = 60;  // pixels: who has scrolled further away reads, and is not moved

export class Chat {
  // model(): its name; askKey(): a promise of whether there is one now; changed(): titles or order of the talks have
  constructor({ model, askKey, changed }) {
    Object.assign(this, { model, askKey, changed });
    this.talk = null;
    this.live = null;
    this.input = byId("input");
    this.scroll = byId("scroll");
    this.messages = byId("messages");
    this.input.value = kept("draft") ?? "";
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.sendTyped();
    });
    this.input.addEventListener("input", () => {
      keep("draft", this.input.value);
      this.fit();
    });
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) {
        event.preventDefault();
        this.sendTyped();
      }
    });
    byId("stop").addEventListener("click", () => this.stop());
    byId("to-end").addEventListener("click", () => this.toEnd());
    this.scroll.addEventListener("scroll", () => this.showToEnd(), { passive: true });
    new ResizeObserver(() => this.follow && this.toEnd()).observe(this.messages);
    this.follow = true;
    this.fit();
  }

  show(id) {  // null: a new talk
    this.talk = id === null ? null : talkOf(id) ?? null;
    this.draw();
    this.toEnd();
  }

  draw() {
    const path = this.talk ? pathTo(this.talk, this.talk.leaf) : [];
    const reply = replyOf(this.talk);
    this.live = null;
    this.messages.replaceChildren(...path.map((message) => this.viewOf(message, reply)));
    byId("welcome").hidden = path.length > 0;
    byId("talk-title").textContent = this.talk?.title || t("new_talk");
    document.title = this.talk?.title ? `${this.talk.title} · hadal` : "hadal";
    this.drawSuggestions();
    this.showRunning();
  }

  viewOf(message, reply) {
    if (reply?.message === message) {
      this.live = new LiveView(reply, this.model(), announce);
      this.live.draw();
      return this.live.view;
    }
    const actions = {
      go: (other) => this.go(other),
      retry: (other) => this.retry(other),
      resend: (other, text) => this.resend(other, text),
    };
    const all = siblings(this.talk, message);
    return message.role === "user" ? userView(message, all, actions) : assistantView(message, all, this.model(), actions);
  }

  focus() {
    if (matchMedia("(pointer: fine)").matches) this.input.focus({ preventScroll: true });  // a touch screen would show its keys
  }

  drawSuggestions() {
    byId("welcome-model").textContent = this.model() ? t("welcome_model", this.model()) : "";
    byId("suggestions").replaceChildren(...["suggest_1", "suggest_2", "suggest_3"].map((key) =>
      el("li", {}, el("button", { type: "button", onclick: () => (this.send(t(key)), this.focus()) }, el("span", {}, t(key)), icon("right")))));
  }

  sendTyped() {
    const text = this.input.value.trim();
    if (!text || replyOf(this.talk)) return;
    this.input.value = "";
    keep("draft", null);
    this.fit();
    this.send(text);
  }

  send(text) {
    if (replyOf(this.talk)) return;
    const talk = this.talk ?? newTalk();
    if (!talk.title) talk.title = titleFrom(text);
    this.talk = talk;
    this.answer(addMessage(talk, talk.leaf, "user", text));
  }

  retry(message) {
    if (replyOf(this.talk)) return;
    this.answer(this.talk.messages[message.parent]);
  }

  resend(message, text) {  // a branch beside the message
    if (replyOf(this.talk)) return;
    this.answer(addMessage(this.talk, message.parent, "user", text));
  }

  async answer(question) {
    const talk = this.talk, message = addMessage(talk, question.id, "assistant", "");
    const reply = new Reply(talk, message, this.model(), () => this.onReply(reply));
    this.draw();
    this.toEnd();
    await saveTalk(talk);
    this.changed(talk.id);
    await reply.run();
    if (reply.failure?.kind === "key" && (await this.askKey(reply.failure.message)) && !replyOf(talk)) {
      delete talk.messages[message.id];
      talk.leaf = question.id;
      if (this.talk === talk) return this.answer(question);
    }
  }

  onReply(reply) {
    if (this.talk !== reply.talk) return reply.ended && this.changed(reply.talk.id);
    if (!reply.ended) return this.live?.refresh();
    this.live?.finish();
    const inside = this.live?.view.contains(document.activeElement);
    const view = this.viewOf(reply.message, null);
    this.live?.view.replaceWith(view);
    this.live = null;
    if (inside) view.querySelector("[data-do=retry]").focus();
    this.showRunning();
    this.changed(reply.talk.id);
  }

  go(message) {
    showBranch(this.talk, message.id);
    saveTalk(this.talk);
    this.draw();
    this.messages.querySelector(`[data-id="${message.id}"] .branches button:not(:disabled)`)?.focus();
  }

  stop() {
    const reply = replyOf(this.talk);
    reply?.stop();
    return Boolean(reply);
  }

  showRunning() {
    const running = Boolean(replyOf(this.talk)), focused = ["stop", "send"].includes(document.activeElement?.id);
    byId("stop").hidden = !running;
    byId("send").hidden = running;
    if (focused) this.input.focus({ preventScroll: true });
  }

  fit() {
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(this.input.scrollHeight, window.innerHeight * 0.4)}px`;
  }

  toEnd() {
    this.scroll.scrollTop = this.scroll.scrollHeight;
    this.showToEnd();
  }

  showToEnd() {
    const left = this.scroll.scrollHeight - this.scroll.scrollTop - this.scroll.clientHeight;
    this.follow = left < NEAR_END;
    byId("to-end").hidden = this.follow;
  }
}

// For those who hear the page: each paragraph once it is complete.
function announce(texts) {
  const box = byId("announcer");
  for (const text of texts) box.append(el("p", {}, text));
  while (box.childNodes.length > 30) box.firstChild.remove();
}
