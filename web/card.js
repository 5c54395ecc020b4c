// The model card: what runs on this server, and how a program reaches it.
import { Failure, getJson } from "./api.js";
import { byId, copyButton, el } from "./dom.js";
import { highlight } from "./highlight.js";
import { locale, t } from "./strings.js";

const number = (value) => value.toLocaleString(locale());

function count(value) {  // parameters, as people say them
  const steps = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "K"]];
  const [size, unit] = steps.find(([least]) => value >= least) ?? [1, ""];
  return `${(value / size).toLocaleString(locale(), { maximumFractionDigits: value / size < 100 ? 1 : 0 })}${unit}`;
}

function bytes(value) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let i = 0;
  for (; value >= 1000 && i < units.length - 1; ++i) value /= 1000;
  return `${value.toLocaleString(locale(), { maximumFractionDigits: value < 10 && i > 0 ? 2 : value < 100 && i > 0 ? 1 : 0 })} ${units[i]}`;
}

function attention(a) {
  return a.kind === "mla" ? t("mla", a.heads, a.kv_rank, a.rope_dim) : t("gqa", a.heads, a.kv_heads, a.head_dim);
}

function feedForward(f) {
  if (!f.experts) return t("dense", number(f.dim));
  return f.shared ? t("moe_shared", f.experts, number(f.expert_dim), f.active, f.shared) : t("moe", f.experts, number(f.expert_dim), f.active);
}

function groups(card, name) {
  const { parameters: p, weights, cache } = card;
  const types = Object.entries(weights.types).map(([type, size]) => `${type} ${bytes(size)}`).join(" · ");
  return [
    ["shape", [
      ["family", card.family],
      ...(card.name === name ? [] : [["adapter_of", card.name]]),
      ["parameters", p.active === p.total ? count(p.total) : t("active", count(p.total), count(p.active))],
      ["layers", number(card.layers)],
      ["width", number(card.dim)],
      ["attention", attention(card.attention)],
      ["feed_forward", feedForward(card.feed_forward)],
      ["vocabulary", t("tokens_of", number(card.vocab))],
      ["context", t("tokens_of", number(card.context))],
      ["chat_template", t(card.chat ? "has_template" : "no_template")],
    ]],
    ["memory", [
      ["weights", types + (weights.on_disk ? ` · ${t("weights_on_disk")}` : "")],
      ["kv_cache", t("cache_line", cache.type, number(cache.rows), bytes(cache.bytes))],
      ["threads", number(card.threads)],
      ["program", `hadal ${card.version}`],
    ]],
  ];
}

const list = (rows) => el("dl", {}, ...rows.map(([key, value]) => el("div", {}, el("dt", {}, t(key)), el("dd", {}, value))));

const section = (key, ...children) => el("section", { class: "figure", "aria-label": t(key) }, el("h2", {}, t(key)), ...children);

function example(address, model) {
  const text = `from openai import OpenAI

client = OpenAI(base_url="${address}",
                api_key="none")
reply = client.chat.completions.create(
    model="${model}",
    messages=[{"role": "user", "content": "Hello"}])
print(reply.choices[0].message.content)`;
  const code = el("code");
  highlight(text, "python", code);
  return el("div", { class: "code" }, el("div", { class: "code-head" }, el("span", {}, "python"), copyButton(t("copy_code"), t("copied"), () => text)),
    el("pre", { tabindex: "0", role: "region", "aria-label": `${t("code")}: python` }, code));
}

export class Card {
  constructor(askKey) {
    this.askKey = askKey;
    this.card = null;
  }

  async show(model, parent) {  // parent: of an adapter, its model
    if (model !== this.model) this.card = null;
    this.model = model;
    this.draw();
    if (!model) return;
    try {
      const cards = (await getJson("v1/model_cards")).data;
      this.card = cards.find(({ name }) => name === model) ?? cards.find(({ name }) => name === parent) ?? null;
      this.draw();
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      byId("card-note").textContent = error.text;
      if (error.kind === "key" && (await this.askKey(error.message))) await this.show(model, parent);
    }
  }

  draw() {
    const address = new URL("v1", document.baseURI).href, name = this.model ?? "";
    byId("card-title").textContent = name || t("model");
    byId("card-note").textContent = t("card_note");
    const parts = this.card ? groups(this.card, name).map(([key, rows]) => section(key, list(rows))) : [];
    const use = section("use_it", el("p", { class: "quiet" }, t("use_note")),
      el("p", { class: "address" }, el("code", {}, address), copyButton(t("copy_address"), t("copied"), () => address)), example(address, name || "model"));
    byId("card").replaceChildren(el("div", { class: "stack" }, ...parts.slice(0, 1)), el("div", { class: "stack" }, ...parts.slice(1), use));
  }
}
