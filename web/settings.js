// The two dialogs: settings, and the question for an API key.
import { byId, el, toast } from "./dom.js";
import { apiKey, keep, keepJson, kept, keptJson, samplingFields, setApiKey } from "./settings_store.js";
import { t } from "./strings.js";
import { allTalks, exportJson, importJson, putTalk, removeTalk } from "./talks.js";

const MOST_BYTES = 64 << 20;  // of a file that is imported

function closeByClick(dialog) {  // on what is behind it
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
}

export function drawSampling() {
  const chosen = keptJson("sampling", {});
  const field = (key, properties) => {
    const input = el("input", { id: `set-${key}`, placeholder: t("by_server"), ...properties });
    input.value = chosen[key] ?? "";
    input.addEventListener("input", () => {
      const next = { ...keptJson("sampling", {}), [key]: input.value };
      if (input.value === "") delete next[key];
      keepJson("sampling", next);
    });
    return el("label", { class: "field" }, el("span", {}, t(key)), input);
  };
  byId("sampling-fields").replaceChildren(
    ...samplingFields.map(([key, min, max, step]) => field(key, { type: "number", min, max, step: Number.isInteger(step) ? 1 : "any", inputmode: Number.isInteger(step) ? "numeric" : "decimal" })),
    field("stop", { type: "text" }));
  const stop = byId("set-stop").closest("label").firstChild;
  stop.textContent = t("stop_text");
}

export function makeSettings(changed) {
  const dialog = byId("settings"), system = byId("set-system"), key = byId("set-key"), file = byId("import-file");
  closeByClick(dialog);
  dialog.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close();
  });
  byId("open-settings").addEventListener("click", () => {
    system.value = kept("system") ?? "";
    key.value = apiKey();
    drawSampling();
    dialog.showModal();
  });
  system.addEventListener("input", () => keep("system", system.value));
  key.addEventListener("change", () => setApiKey(key.value.trim()));
  byId("export").addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob([exportJson()], { type: "application/json" }));
    el("a", { href: address, download: `hadal-talks-${new Date().toISOString().slice(0, 10)}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  });
  byId("import").addEventListener("click", () => file.click());
  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    file.value = "";
    if (!chosen) return;
    try {
      if (chosen.size > MOST_BYTES) throw new Error("size");
      const count = await importJson(await chosen.text());
      dialog.close();
      toast(t("imported", count));
    } catch {
      dialog.close();
      toast(t("import_failed"));
    }
    changed();
  });
  byId("clear").addEventListener("click", async () => {
    const talks = allTalks();
    for (const talk of talks) await removeTalk(talk.id);
    dialog.close();
    changed();
    toast(t("all_removed"), t("undo"), async () => {
      for (const talk of talks) await putTalk(talk);
      changed();
    });
  });
}

let asking = null;

// Whether there is a key to try now. Asks once, however many want to know.
export function askKey() {
  asking ??= new Promise((resolve) => {
    const dialog = byId("key-dialog"), input = byId("key-input");
    byId("key-note").textContent = apiKey() ? t("key_wrong") : t("key_note");
    input.value = "";
    const events = new AbortController();
    const end = (key) => {
      events.abort();
      if (key) setApiKey(key);
      dialog.close();
      asking = null;
      resolve(Boolean(key));
    };
    dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      if (input.value.trim()) end(input.value.trim());
    }, events);
    byId("key-cancel").addEventListener("click", () => end(""), events);
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      end("");
    }, events);
    byId("settings").close();
    dialog.showModal();
    input.focus();
  });
  return asking;
}
