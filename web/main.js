// Puts the page together: where one is (#chat, #talk/ID, #dashboard, #model), theme, language, keys.
import { Failure, getJson } from "./api.js";
import { Card } from "./card.js";
import { Chat } from "./chat.js";
import { Dashboard } from "./dashboard.js";
import { byId, el, setIcon, toast } from "./dom.js";
import { replyOf } from "./reply.js";
import { askKey, makeSettings } from "./settings.js";
import { keep, kept } from "./settings_store.js";
import { Sidebar } from "./sidebar.js";
import { language, languages, setLanguage, t, translate } from "./strings.js";
import { openTalks, talkOf } from "./talks.js";

let model = "", parents = new Map();  // of adapters: their models
const pages = ["chat", "dashboard", "model"];

const chat = new Chat({
  model: () => model,
  askKey,
  changed: (id) => {
    if (chat.talk?.id === id && location.hash !== `#talk/${id}` && shown() === "chat") history.pushState(null, "", `#talk/${id}`);
    sidebar.draw();
  },
});
const sidebar = new Sidebar({ current: () => (shown() === "chat" ? chat.talk?.id : null), shown: () => chat.talk && !replyOf(chat.talk) && chat.draw() });
const dashboard = new Dashboard(askKey);
const card = new Card(askKey);

function shown() {
  const page = location.hash.slice(1).split("/")[0];
  return pages.includes(page) ? page : "chat";
}

function go() {
  const page = shown(), id = /^#talk\/([\w-]+)$/.exec(location.hash)?.[1] ?? null;
  for (const name of pages) {
    byId(name).hidden = name !== page;
    const tab = byId(`tab-${name}`);
    name === page ? tab.setAttribute("aria-current", "page") : tab.removeAttribute("aria-current");
  }
  byId("skip").hidden = page !== "chat";
  if (page === "chat") {
    const known = id !== null && talkOf(id) ? id : null;
    if ((chat.talk?.id ?? null) !== known) chat.show(known);
  } else {
    document.title = `${t(page)} · hadal`;
  }
  dashboard.show(page === "dashboard");
  if (page === "model") card.show(model, parents.get(model));
  sidebar.draw();
  openSide(false);
}

function openSide(open) {
  document.body.classList.toggle("side-open", open);
  byId("shade").hidden = !open;
  byId("open-side").setAttribute("aria-expanded", String(open));
  byId("side").inert = !open && isNarrow.matches;
  byId("column").inert = open && isNarrow.matches;
  if (open) byId("close-side").focus();
}
const isNarrow = matchMedia("(max-width: 800px)");
isNarrow.addEventListener("change", () => openSide(false));

// Theme: as the system has it, light or dark, in turn.
const themes = ["auto", "light", "dark"], themeIcons = { auto: "half", light: "sun", dark: "moon" };
function setTheme(theme) {
  if (!themes.includes(theme)) theme = "auto";
  keep("theme", theme === "auto" ? null : theme);
  theme === "auto" ? delete document.documentElement.dataset.theme : (document.documentElement.dataset.theme = theme);
  const button = byId("theme");
  setIcon(button, themeIcons[theme]);
  button.dataset.tLabel = `theme_${theme}`;
  button.title = t(`theme_${theme}`);
  button.setAttribute("aria-label", button.title);
}

function speak(chosen) {
  setLanguage(chosen);
  translate();
  const other = byId("language");
  other.textContent = t("other_language");
  other.lang = language() === "en" ? "zh" : "en";
  chat.draw();
  sidebar.draw();
  dashboard.translate();
  if (shown() === "model") card.draw();
  if (shown() !== "chat") document.title = `${t(shown())} · hadal`;
}

async function learnModel() {
  try {
    const served = (await getJson("v1/models")).data, names = served.map(({ id }) => id);
    parents = new Map(served.map(({ id, parent }) => [id, parent]));
    model = names.includes(kept("model")) ? kept("model") : names[0];
    byId("models").replaceChildren(...names.map((name) => el("option", { selected: name === model }, name)));
    byId("models").hidden = names.length < 2;
    byId("model-name").hidden = names.length > 1;
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (error.kind === "key" && (await askKey())) return learnModel();
    toast(error.text, t("retry"), learnModel);
  }
  byId("model-name").textContent = model;
  chat.drawSuggestions();
  if (shown() === "model") card.show(model, parents.get(model));
}

byId("models").addEventListener("change", ({ target }) => {
  model = target.value;
  keep("model", model);
  chat.drawSuggestions();
  if (shown() === "model") card.show(model, parents.get(model));
});

for (const button of document.querySelectorAll("[data-icon]")) setIcon(button, button.dataset.icon);
byId("new-talk").addEventListener("click", () => {
  if (location.hash === "#chat") chat.show(null);
  location.hash = "#chat";
  openSide(false);
  byId("input").focus();
});
byId("theme").addEventListener("click", () => setTheme(themes[(themes.indexOf(kept("theme") ?? "auto") + 1) % 3]));
byId("language").addEventListener("click", () => {
  const other = languages.find((name) => name !== language());
  keep("language", other);
  speak(other);
});
byId("open-side").addEventListener("click", () => openSide(true));
byId("close-side").addEventListener("click", () => {
  openSide(false);
  byId("open-side").focus();
});
byId("shade").addEventListener("click", () => openSide(false));
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("input").focus();
});
byId("tab-chat").addEventListener("click", (event) => {  // back to the talk that was shown
  if (!chat.talk || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  location.hash = `#talk/${chat.talk.id}`;
});
document.addEventListener("keydown", (event) => {
  const writing = event.target.closest?.("input, textarea, dialog") !== null;
  if (event.key === "Escape" && document.body.classList.contains("side-open")) {
    openSide(false);
    byId("open-side").focus();
  } else if (event.key === "Escape" && shown() === "chat" && !document.querySelector("dialog[open]")) {
    chat.stop();
  } else if (event.key === "/" && !writing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    if (shown() !== "chat") location.hash = chat.talk ? `#talk/${chat.talk.id}` : "#chat";
    setTimeout(() => byId("input").focus());
  }
});
window.addEventListener("hashchange", go);

const wanted = kept("language") ?? (navigator.languages ?? [navigator.language]).map((name) => name.slice(0, 2).toLowerCase()).find((name) => languages.includes(name));
speak(wanted ?? "en");
setTheme(kept("theme") ?? "auto");
makeSettings(() => {
  if (chat.talk && !talkOf(chat.talk.id)) {
    chat.show(null);
    location.hash = "#chat";
  }
  sidebar.draw();
});
const can_keep = await openTalks((id) => {
  if (chat.talk?.id === id && !replyOf(chat.talk)) chat.show(talkOf(id) ? id : null);
  sidebar.draw();
});
if (!can_keep) toast(t("error_storage"));
go();
if (shown() === "chat") chat.focus();
await learnModel();
document.documentElement.dataset.ready = "true";
