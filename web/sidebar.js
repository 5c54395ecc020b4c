// The list of talks: newest first, by day; renamed in place, deleted with a way back.
import { byId, el, iconButton, toast } from "./dom.js";
import { replyOf } from "./reply.js";
import { locale, t } from "./strings.js";
import { allTalks, putTalk, removeTalk, talkOf } from "./talks.js";

function dayOf(time) {
  const day = new Date(), then = new Date(time);
  const days = Math.round((day.setHours(0, 0, 0, 0) - then.setHours(0, 0, 0, 0)) / 86400000);
  return days <= 0 ? "today" : days === 1 ? "yesterday" : "earlier";
}

export class Sidebar {
  constructor({ current, shown }) {  // current(): id of the talk that is shown; shown(): it may have to be drawn again
    Object.assign(this, { current, shown });
  }

  draw() {
    if (this.renaming) return;
    const list = byId("talks"), talks = allTalks();
    let day = "";
    const items = [];
    for (const talk of talks) {
      const its = dayOf(talk.updated);
      if (its !== day) items.push(el("li", { class: "day" }, el("h3", {}, t(its))));
      day = its;
      items.push(this.item(talk));
    }
    const focused = list.contains(document.activeElement) ? document.activeElement : null;
    const selector = focused && `[data-id="${focused.closest("li").dataset.id}"] ${focused.dataset.do ? `[data-do=${focused.dataset.do}]` : "a"}`;
    list.replaceChildren(...items);
    if (selector) list.querySelector(selector)?.focus({ preventScroll: true });
    byId("no-talks").hidden = talks.length > 0;
  }

  item(talk) {
    const title = talk.title || t("untitled"), active = talk.id === this.current();
    const when = new Date(talk.updated).toLocaleString(locale());
    const item = el("li", { class: active ? "talk active" : "talk", "data-id": talk.id },
      el("a", { href: `#talk/${talk.id}`, "aria-current": active ? "true" : null, title: `${title}\n${when}` }, title),
      iconButton("edit", t("rename", title), () => this.rename(talk, item), { "data-do": "rename" }),
      iconButton("trash", t("remove", title), () => this.remove(talk), { "data-do": "remove" }));
    return item;
  }

  rename(talk, item) {
    const field = el("input", { "aria-label": t("rename_field"), maxlength: 200 });
    field.value = talk.title;
    let done = false;
    const end = async (save, by_key) => {
      if (done) return;
      done = true;
      this.renaming = false;
      if (save && field.value.trim()) {
        talk.title = field.value.trim();
        await putTalk(talk);
      }
      this.draw();
      this.shown();
      if (by_key) byId("talks").querySelector(`[data-id="${talk.id}"] [data-do=rename]`)?.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing) end(true, true);
      if (event.key === "Escape") end(false, true);
      event.stopPropagation();
    });
    field.addEventListener("blur", () => end(true, false));
    this.renaming = true;
    item.replaceChildren(field);
    field.focus();
    field.select();
  }

  async remove(talk) {
    const here = talk.id === this.current();
    replyOf(talk)?.stop();
    await removeTalk(talk.id);
    if (here) location.hash = "#chat";
    this.draw();
    byId("new-talk").focus();
    toast(t("removed"), t("undo"), async () => {
      await putTalk(talk);
      if (here && talkOf(talk.id)) location.hash = `#talk/${talk.id}`;
      this.draw();
    });
  }
}
