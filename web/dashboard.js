// What the server does right now, read from /metrics each second while somebody looks. A series that the server does not have is left out.
import { Failure, getText } from "./api.js";
import { Heat, Line } from "./charts.js";
import { byId, el } from "./dom.js";
import { firstOf, parseMetrics, quantile, total } from "./prometheus.js";
import { locale, t } from "./strings.js";

const KEPT = 120;    // looks
const RECENT = 60000;  // milliseconds that quantiles are of

const number = (value, digits = 0) => value.toLocaleString(locale(), { maximumFractionDigits: digits });
const rate = (value) => number(value, value < 10 ? 1 : 0);
function time(seconds) {
  if (seconds === null) return "–";
  return seconds < 1 ? `${number(seconds * 1000, seconds < 0.01 ? 1 : 0)} ms` : `${number(seconds, 2)} s`;
}
const percent = (share) => `${number(100 * share, 1)} %`;

// Tokens of replies as they come: the first of each and those that followed.
function replyTokens(series) {
  const first = total(series, "hadal_first_token_seconds_count"), next = total(series, "hadal_between_tokens_seconds_count");
  return first === null && next === null ? total(series, "hadal_reply_tokens_total") : (first ?? 0) + (next ?? 0);
}

class Figure {  // a title, a large number, a picture, a line of words
  constructor(title, lines = 0) {
    this.value = el("p", { class: "value" }, "–");
    this.note = el("p", { class: "quiet" });
    this.title = title;
    this.chart = lines ? new Line(title, lines) : null;
    this.node = el("section", { class: "figure", "aria-label": title }, el("h2", {}, title), this.value, this.chart?.node ?? null, this.note);
  }
  show(value, unit, note, values) {
    this.value.replaceChildren(value, el("span", { class: "unit" }, unit ? ` ${unit}` : ""));
    this.note.textContent = note;
    this.chart?.draw(values, KEPT, `${this.title}: ${value} ${unit}. ${note}`);
  }
}

export class Dashboard {
  constructor(askKey) {
    this.askKey = askKey;
    this.looks = [];  // {at, series}
    this.history = { reply: [], prompt: [], running: [], waiting: [], first: [], between: [], cache: [], hits: [] };
    this.timer = 0;
    this.open = false;
    document.addEventListener("visibilitychange", () => this.turn());
  }

  show(open) {
    this.open = open;
    this.turn();
  }

  turn() {
    const on = this.open && document.visibilityState === "visible";
    if (on && !this.timer) {
      this.timer = setInterval(() => this.look(), 1000);
      this.look();
    } else if (!on && this.timer) {
      clearInterval(this.timer);
      this.timer = 0;
    }
  }

  translate() {
    this.figures = null;
    if (this.looks.length > 0) this.draw();
    else byId("dashboard-note").textContent = t("dashboard_note");
  }

  async look() {
    if (this.looking) return;
    this.looking = true;
    try {
      this.take(parseMetrics(await getText("metrics")));
      byId("dashboard-note").textContent = t("dashboard_note");
      this.draw();
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      byId("dashboard-note").textContent = t("dashboard_lost", error.text);
      if (error.kind === "key") {
        clearInterval(this.timer);
        this.timer = 0;
        if (await this.askKey(error.message)) this.turn();
      }
    } finally {
      this.looking = false;
    }
  }

  take(series) {
    const look = { at: performance.now(), series }, last = this.looks[this.looks.length - 1];
    const paused = last && look.at - last.at > 5000;
    if (paused || (last && replyTokens(series) < replyTokens(last.series))) this.forget();  // nobody looked, or the server is another
    const before = this.looks[this.looks.length - 1];
    this.looks.push(look);
    while (this.looks.length > 2 && look.at - this.looks[1].at > RECENT) this.looks.shift();
    const per_second = (count) => {
      const now = count(series), then = before ? count(before.series) : null;
      return now === null || then === null ? null : Math.max(0, (now - then) / ((look.at - before.at) / 1000));
    };
    const old = before?.series ?? null;
    const running = firstOf(series, ["hadal_requests_running", "hadal_requests"]);
    this.push("reply", per_second(replyTokens));
    this.push("prompt", per_second((s) => total(s, "hadal_prompt_tokens_total")));
    this.push("running", running);
    this.push("waiting", total(series, "hadal_requests_waiting"));
    this.push("first", old && quantile(series, old, "hadal_first_token_seconds", 0.5));
    this.push("between", old && quantile(series, old, "hadal_between_tokens_seconds", 0.5));
    const cache = this.cacheOf(series);
    this.push("cache", cache ? cache.used / cache.all : null);
    this.push("hits", this.hitRate(series));
  }

  forget() {
    this.looks = [];
    for (const key of Object.keys(this.history)) this.history[key] = [];
  }

  push(key, value) {
    this.history[key].push(value);
    if (this.history[key].length > KEPT) this.history[key].shift();
  }

  cacheOf(series) {
    const all = total(series, "hadal_cache_pages");
    const free = total(series, "hadal_cache_pages_free");
    const used = all !== null && free !== null ? all - free : null;
    return all > 0 && used !== null ? { all, used } : null;
  }

  hitRate(series) {
    const hit = firstOf(series, ["hadal_cached_tokens_total"]);
    const all = total(series, "hadal_prompt_tokens_total");
    return hit !== null && all > 0 ? Math.min(1, hit / all) : null;
  }

  make(series) {
    const figures = { reply: new Figure(t("reply_speed"), 1), prompt: new Figure(t("prompt_speed"), 1), requests: new Figure(t("requests"), 2),
      first: new Figure(t("first_token"), 1), between: new Figure(t("between_tokens"), 1) };
    if (this.cacheOf(series)) figures.cache = new Figure(t("cache"), 1);
    if (this.hitRate(series) !== null) figures.hits = new Figure(t("hits"), 1);
    figures.totals = new Figure(t("totals"));
    figures.answers = new Figure(t("answers"));
    const wide = series.has("hadal_expert_tokens_total");
    if (wide) {
      this.heat = new Heat((layer, expert) => this.describe(layer, expert));
      figures.experts = { node: el("section", { class: "figure whole", "aria-label": t("experts") }, el("h2", {}, t("experts")), el("p", { class: "quiet" }, t("experts_note")), this.heat.node) };
    }
    this.shape = this.shapeOf(series);
    this.figures = figures;
    byId("figures").replaceChildren(...Object.values(figures).map((figure) => figure.node));
  }

  shapeOf(series) {
    return `${Boolean(this.cacheOf(series))} ${this.hitRate(series) !== null} ${series.has("hadal_expert_tokens_total")}`;
  }

  draw() {
    const { series } = this.looks[this.looks.length - 1], { history } = this;
    if (!this.figures || this.shape !== this.shapeOf(series)) this.make(series);
    const { figures } = this, now = (key) => history[key][history[key].length - 1];
    const show_rate = (figure, key) => figure.show(now(key) === null ? "–" : rate(now(key)), t("tokens_per_second"), t("peak", rate(Math.max(0, ...history[key]))), [history[key]]);
    show_rate(figures.reply, "reply");
    show_rate(figures.prompt, "prompt");
    const waiting = now("waiting");
    figures.requests.show(now("running") === null ? "–" : number(now("running")), waiting === null ? t("running_or_waiting") : t("running"),
      waiting === null ? "" : `${number(waiting)} ${t("waiting_short")}`, [history.running, history.waiting]);
    this.drawTimes(figures.first, "hadal_first_token_seconds", history.first);
    this.drawTimes(figures.between, "hadal_between_tokens_seconds", history.between);
    const cache = this.cacheOf(series);
    if (cache) figures.cache.show(percent(cache.used / cache.all), "", t("cache_used", number(cache.used), number(cache.all)), [history.cache]);
    if (figures.hits) figures.hits.show(percent(this.hitRate(series)), "", t("hits_note"), [history.hits]);
    const prompt = total(series, "hadal_prompt_tokens_total") ?? 0, reply = replyTokens(series) ?? 0;
    figures.totals.show(number(prompt + reply), "", `${number(prompt)} ${t("in_prompts")} · ${number(reply)} ${t("in_replies")}`);
    this.drawAnswers(series);
    if (figures.experts) this.drawExperts(series);
  }

  drawTimes(figure, name, values) {
    const { series } = this.looks[this.looks.length - 1], old = this.looks.length > 1 ? this.looks[0].series : null;
    const recent = old && quantile(series, old, name, 0.5) !== null, before = recent ? old : null;
    const half = quantile(series, before, name, 0.5), most = quantile(series, before, name, 0.95);
    const note = half === null ? t("none_yet") : t("p95", time(most)) + (recent ? "" : ` · ${t("since_start")}`);
    figure.show(time(half), half === null ? "" : t("p50"), note, [values]);
  }

  drawAnswers(series) {
    const byStatus = new Map();
    for (const { labels, value } of series.get("hadal_http_answers_total") ?? []) byStatus.set(labels.status, (byStatus.get(labels.status) ?? 0) + value);
    const all = [...byStatus.values()].reduce((sum, value) => sum + value, 0);
    const words = [...byStatus].sort().map(([status, value]) => `${status}: ${number(value)}`).join(" · ");
    this.figures.answers.show(number(all), t("since_start"), words);
  }

  expertRows(series) {  // tokens [layer][expert] of the last minute, or since the start where that has none
    const rows = (from) => {
      const out = new Map();
      for (const { labels, value } of from?.get("hadal_expert_tokens_total") ?? []) {
        if (!out.has(Number(labels.layer))) out.set(Number(labels.layer), []);
        out.get(Number(labels.layer))[Number(labels.expert)] = value;
      }
      return out;
    };
    const now = rows(series), then = rows(this.looks.length > 1 ? this.looks[0].series : null);
    const layers = [...now.keys()].sort((a, b) => a - b);
    const recent = layers.map((layer) => Array.from(now.get(layer), (value, i) => (value ?? 0) - (then.get(layer)?.[i] ?? 0)));
    const any = recent.some((row) => row.some((value) => value > 0));
    return { layers, rows: any ? recent : layers.map((layer) => Array.from(now.get(layer), (value) => value ?? 0)) };
  }

  drawExperts(series) {
    this.experts = this.expertRows(series);
    const { layers, rows } = this.experts;
    let busiest = { times: 0, layer: 0, expert: 0 };
    const shares = rows.map((row, i) => {
      const most = Math.max(...row), mean = row.reduce((sum, value) => sum + value, 0) / row.length;
      if (mean > 0 && most / mean > busiest.times) busiest = { times: most / mean, layer: layers[i], expert: row.indexOf(most) };
      return row.map((value) => (most > 0 ? value / most : 0));
    });
    this.heat.draw(shares, t("expert_summary", layers.length, rows[0].length, number(busiest.times, 1), busiest.layer, busiest.expert));
  }

  describe(row, expert) {
    const { layers, rows } = this.experts, all = rows[row].reduce((sum, value) => sum + value, 0);
    return t("expert_cell", layers[row], expert, number(rows[row][expert]), percent(all > 0 ? rows[row][expert] / all : 0));
  }
}
