// Markdown inside a paragraph, into nodes. Emphasis follows CommonMark's delimiter algorithm, in linear time and with bounded nesting.
import { el } from "./dom.js";
import { renderMath } from "./math.js";

const MOST_HEIGHT = 8;  // of elements within each other
const SPECIAL = /[\\`*_~[\]!<$h]/g;
const PUNCTUATION = /[\p{P}\p{S}]/u;
const CJK = /[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Hangul}\u3000-\u303f\uff00-\uffef]/u;
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const DESTINATION = /\(\s*(<[^<>\n]*>|[^\s()<]*(?:\([^\s()]*\)[^\s()]*)*)(?:\s+(?:"[^"]*"|'[^']*'))?\s*\)/y;
const ADDRESS = /https?:\/\/[!#-;=?-_a-z~]+/y;
const ANGLE = /<(https?:\/\/[^\s<>]+)>/y;

export function safeAddress(text) {  // null unless it is http or https
  try {
    const url = new URL(text);
    return url.protocol === "https:" || url.protocol === "http:" ? url.href : null;
  } catch {
    return null;
  }
}

export function link(address, ...children) {
  return el("a", { href: address, rel: "noopener noreferrer nofollow", target: "_blank" }, ...children);
}

const textPart = (text) => ({ text, height: 0 });
const nodePart = (node, height = 1) => ({ node, height });

class Scanner {
  constructor(source) {
    this.source = source;
    this.at = 0;
    this.parts = [];
    this.brackets = [];  // indices of parts that may open a link
    this.none = new Set();  // closers that do not come any more
  }

  run() {
    const { source } = this;
    while (this.at < source.length) {
      SPECIAL.lastIndex = this.at;
      const found = SPECIAL.exec(source);
      const next = found ? found.index : source.length;
      if (next > this.at) this.text(source.slice(this.at, next));
      this.at = next;
      if (found && !this.special(found[0])) {
        this.text(found[0]);
        ++this.at;
      }
    }
    return this.parts;
  }

  text(text) {
    const last = this.parts[this.parts.length - 1];
    if (last && last.text !== undefined && !last.bracket) last.text += text;
    else this.parts.push(textPart(text));
  }

  special(c) {
    if (c === "\\") return this.escape();
    if (c === "`") return this.code();
    if (c === "*" || c === "_" || c === "~") return this.mark(c);
    if (c === "[") return this.open("[");
    if (c === "!") return this.source[this.at + 1] === "[" && this.open("![");
    if (c === "]") return this.close();
    if (c === "<") return this.angle();
    if (c === "$") return this.dollar();
    return this.address();
  }

  find(closer, from) {  // -1 is remembered: later searches would fail too
    if (this.none.has(closer)) return -1;
    const at = this.source.indexOf(closer, from);
    if (at < 0) this.none.add(closer);
    return at;
  }

  escape() {
    const next = this.source[this.at + 1];
    if (next === "(" || next === "[") {
      const end = this.find(next === "(" ? "\\)" : "\\]", this.at + 2);
      if (end > this.at + 2) return this.math(this.at + 2, end, end + 2);
    }
    if (next === undefined || !ESCAPABLE.test(next)) return false;
    this.text(next);
    this.at += 2;
    return true;
  }

  math(from, to, end) {
    this.parts.push(nodePart(renderMath(this.source.slice(from, to).trim(), el("span", { class: "math" }))));
    this.at = end;
    return true;
  }

  code() {
    const { source, at } = this;
    let end = at;
    while (source[end] === "`") ++end;
    const length = end - at;
    this.runs ??= runsOf(source, "`");
    const starts = this.runs.get(length) ?? { list: [], next: 0 };  // none: an escape took a part of the run
    while (starts.next < starts.list.length && starts.list[starts.next] < end) ++starts.next;
    const closing = starts.list[starts.next];
    if (closing === undefined) {
      this.text(source.slice(at, end));
    } else {
      let inner = source.slice(end, closing).replaceAll("\n", " ");
      if (inner.startsWith(" ") && inner.endsWith(" ") && inner.trim()) inner = inner.slice(1, -1);
      this.parts.push(nodePart(el("code", {}, inner)));
      end = closing + length;
    }
    this.at = end;
    return true;
  }

  mark(char) {
    const { source, at } = this;
    let end = at;
    while (source[end] === char) ++end;
    const count = end - at;
    if (char === "~" && count !== 2) return this.literal(end);
    const before = at > 0 ? source[at - 1] : " ", after = end < source.length ? source[end] : " ";
    const space_before = /\s/.test(before), space_after = /\s/.test(after);
    const edge_before = space_before || PUNCTUATION.test(before) || CJK.test(before);
    const edge_after = space_after || PUNCTUATION.test(after) || CJK.test(after);
    const left = !space_after && (!PUNCTUATION.test(after) || edge_before);
    const right = !space_before && (!PUNCTUATION.test(before) || edge_after);
    const opens = left && (char !== "_" || !right || PUNCTUATION.test(before));
    const closes = right && (char !== "_" || !left || PUNCTUATION.test(after));
    if (!opens && !closes) return this.literal(end);
    this.parts.push({ mark: char, count, original: count, opens, closes, height: 0 });
    this.at = end;
    return true;
  }

  literal(end) {
    this.text(this.source.slice(this.at, end));
    this.at = end;
    return true;
  }

  open(bracket) {
    this.brackets.push(this.parts.length);
    this.parts.push({ ...textPart(bracket), bracket: true });
    this.at += bracket.length;
    return true;
  }

  close() {
    const opener = this.brackets.pop();
    if (opener === undefined) return false;
    DESTINATION.lastIndex = this.at + 1;
    const found = DESTINATION.exec(this.source);
    const address = found && safeAddress(found[1].replace(/^<|>$/g, ""));
    if (!address) return false;
    const inner = emphasise(this.parts.slice(opener + 1)).map((part) => (part.link ? textPart(part.node.textContent) : part));
    const height = heightOf(inner) + 1;
    if (height > MOST_HEIGHT) return false;
    const node = append(link(address), inner);
    if (!node.textContent) node.append(address);
    this.parts.length = opener;
    this.parts.push({ ...nodePart(node, height), link: true });
    this.brackets.length = 0;  // links hold no links
    this.at = DESTINATION.lastIndex;
    return true;
  }

  angle() {
    const br = /^<br ?\/?>/i.exec(this.source.slice(this.at, this.at + 6));
    if (br) {
      this.parts.push(nodePart(el("br")));
      this.at += br[0].length;
      return true;
    }
    ANGLE.lastIndex = this.at;
    const found = ANGLE.exec(this.source);
    const address = found && safeAddress(found[1]);
    if (!address) return false;
    this.parts.push({ ...nodePart(link(address, found[1])), link: true });
    this.at = ANGLE.lastIndex;
    return true;
  }

  dollar() {
    const { source, at } = this;
    if (source[at + 1] === "$") {
      const end = this.find("$$", at + 2);
      return end > at + 2 ? this.math(at + 2, end, end + 2) : this.literal(at + 2);
    }
    if (this.none.has("$") || /\s|^$/.test(source[at + 1] ?? "")) return false;
    for (let end = source.indexOf("$", at + 1); end > 0; end = source.indexOf("$", end + 1)) {
      if (/[\s\\$]/.test(source[end - 1]) || /[\d$]/.test(source[end + 1] ?? "")) continue;
      return this.math(at + 1, end, end + 1);
    }
    this.none.add("$");
    return false;
  }

  address() {
    if (this.at > 0 && /[A-Za-z0-9]/.test(this.source[this.at - 1])) return false;
    ADDRESS.lastIndex = this.at;
    const found = ADDRESS.exec(this.source);
    if (!found) return false;
    let text = found[0];
    while (/[.,;:!?*_~'\])]$/.test(text) && !(text.endsWith(")") && text.includes("("))) text = text.slice(0, -1);
    const address = safeAddress(text);
    if (!address) return false;
    this.parts.push({ ...nodePart(link(address, text)), link: true });
    this.at += text.length;
    return true;
  }
}

function runsOf(source, char) {  // length of a run -> where such runs start
  const runs = new Map();
  for (let at = source.indexOf(char); at >= 0; ) {
    let end = at;
    while (source[end] === char) ++end;
    if (!runs.has(end - at)) runs.set(end - at, { list: [], next: 0 });
    runs.get(end - at).list.push(at);
    at = source.indexOf(char, end);
  }
  return runs;
}

const heightOf = (parts) => parts.reduce((most, part) => Math.max(most, part.height), 0);

function settle(part) {  // a mark that found no partner is text
  return part.mark ? textPart(part.mark.repeat(part.count)) : part;
}

function emphasise(parts) {
  const out = [], openers = [], bottom = new Map();
  const pop = () => {
    openers.pop();
    for (const [key, value] of bottom) if (value > openers.length) bottom.set(key, openers.length);
  };
  for (const source of parts) {
    if (!source.mark) {
      out.push(source);
      continue;
    }
    const part = { ...source };
    while (part.closes && part.count > 0) {
      const key = part.mark + (part.original % 3) + part.opens;
      const lowest = bottom.get(key) ?? 0;
      let i = openers.length - 1;
      for (; i >= lowest; --i) {
        const other = out[openers[i]];
        const odd = (other.closes || part.opens) && (other.original + part.original) % 3 === 0 && (other.original % 3 || part.original % 3);
        if (other.mark === part.mark && !odd) break;
      }
      if (i < lowest) {
        bottom.set(key, openers.length);
        break;
      }
      const start = openers[i], opener = out[start];
      const inner = out.slice(start + 1).map(settle);
      const height = heightOf(inner) + 1;
      if (height > MOST_HEIGHT) break;
      const taken = part.mark === "~" || (opener.count >= 2 && part.count >= 2) ? 2 : 1;
      const node = append(el(part.mark === "~" ? "del" : taken === 2 ? "strong" : "em"), inner);
      while (openers.length > i + 1) pop();
      out.length = start + 1;
      opener.count -= taken;
      part.count -= taken;
      if (opener.count === 0) {
        out.pop();
        pop();
      }
      out.push(nodePart(node, height));
    }
    if (part.count === 0) continue;
    if (part.opens) openers.push(out.length);
    out.push(part);
  }
  return out.map(settle);
}

function append(node, parts) {
  for (const part of parts) {
    if (part.node) {
      node.append(part.node);
      continue;
    }
    const lines = part.text.split("\n");
    lines.forEach((line, i) => {
      if (i > 0) node.append(el("br"));
      if (line) node.append(line);
    });
  }
  return node;
}

export function renderInline(text, into) {
  return append(into, emphasise(new Scanner(text).run()));
}
