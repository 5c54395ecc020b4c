// Markdown into nodes: headings, lists, tables, quotes, code, mathematics. Whatever is not Markdown, HTML too, stays text.
// A growing text keeps the nodes of the blocks that did not change.
import { copyButton, el } from "./dom.js";
import { highlight } from "./highlight.js";
import { renderInline } from "./inline.js";
import { renderMath } from "./math.js";
import { t } from "./strings.js";

const MOST_DEPTH = 10;  // of lists and quotes within each other
const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?=[ \t]|$)/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}>/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( +|$)/;
const DELIMITERS = /^ {0,3}\|? *:?-+:? *(?:\| *:?-+:? *)*\|? *$/;
const MATH_OPEN = /^ {0,3}(\$\$|\\\[)/;

const blank = (line) => line.trim() === "";
const indentOf = (line) => line.length - line.trimStart().length;
const isBullet = (marker) => !/\d/.test(marker);

function linesOf(text) {
  return text.replace(/\r\n?/g, "\n").split("\n").map((line) => {
    const lead = /^[ \t]*/.exec(line)[0];
    return lead.includes("\t") ? lead.replaceAll("\t", "    ") + line.slice(lead.length) : line;
  });
}

function cellsOf(line) {
  const cells = [];
  let cell = "", code = false;
  for (let i = 0; i < line.length; ++i) {
    if (line[i] === "\\" && line[i + 1] === "|") {
      cell += "|";
      ++i;
    } else if (line[i] === "|" && !code) {
      cells.push(cell.trim());
      cell = "";
    } else {
      if (line[i] === "`") code = !code && line.includes("`", i + 1);
      cell += line[i];
    }
  }
  cells.push(cell.trim());
  if (line.trimStart().startsWith("|")) cells.shift();
  if (cells.length > 1 && cells[cells.length - 1] === "" && line.trimEnd().endsWith("|")) cells.pop();
  return cells;
}

function tableAt(lines, i) {
  if (!lines[i].includes("|") || i + 1 >= lines.length || !lines[i + 1].includes("-") || !DELIMITERS.test(lines[i + 1])) return null;
  const head = cellsOf(lines[i]), marks = cellsOf(lines[i + 1]);
  return head.length === marks.length ? { head, marks } : null;
}

const interrupts = (lines, i) => {
  const line = lines[i], item = ITEM.exec(line);
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || tableAt(lines, i) !== null ||
    (item !== null && item[3] !== "" && (isBullet(item[2]) || /^1[.)]$/.test(item[2])));
};

// The blocks of one level; what is within a quote or an item is split when that is rendered.
function split(lines) {
  const blocks = [], closers = new Map();  // of mathematics: the last line that has one
  const lastWith = (text) => {
    if (!closers.has(text)) closers.set(text, lines.findLastIndex((line) => line.trimEnd().endsWith(text)));
    return closers.get(text);
  };
  for (let i = 0; i < lines.length; ) {
    const line = lines[i], from = i;
    let found, table;
    const push = (kind, more) => blocks.push({ kind, source: lines.slice(from, i).join("\n"), ...more });
    if (blank(line)) {
      ++i;
    } else if ((found = FENCE.exec(line))) {
      const [, fence, info] = found, indent = indentOf(line), inner = [];
      const ends = (text) => text.trim().startsWith(fence) && indentOf(text) < 4 && text.trim().replaceAll(fence[0], "") === "";
      for (++i; i < lines.length && !ends(lines[i]); ++i) inner.push(lines[i].slice(Math.min(indent, indentOf(lines[i]))));
      const closed = i < lines.length;
      if (closed) ++i;
      push("code", { info: info.trim(), text: inner.join("\n"), closed });
    } else if ((found = HEADING.exec(line))) {
      ++i;
      let text = line.slice(found[0].length).trim();
      const bare = text.replace(/#+$/, "");
      if (bare === "" || bare.endsWith(" ")) text = bare.trim();
      push("heading", { level: found[1].length, text });
    } else if (RULE.test(line)) {
      ++i;
      push("rule");
    } else if (QUOTE.test(line)) {
      while (i < lines.length && QUOTE.test(lines[i])) ++i;
      push("quote", { lines: lines.slice(from, i).map((text) => text.replace(/^ {0,3}> ?/, "")) });
    } else if (ITEM.test(line)) {
      i = listAt(lines, i, blocks);
    } else if ((table = tableAt(lines, i))) {
      for (i += 2; i < lines.length && !blank(lines[i]) && lines[i].includes("|"); ++i);
      push("table", { ...table, rows: lines.slice(from + 2, i).map(cellsOf) });
    } else if ((found = MATH_OPEN.exec(line)) && mathEnd(line, found[0], found[1], lastWith, from)) {
      const closer = found[1] === "$$" ? "$$" : "\\]";
      const ends = (k) => lines[k].trimEnd().endsWith(closer) && (k > from || line.trim().length > found[0].trim().length + 1);
      while (!ends(i)) ++i;
      ++i;
      const text = lines.slice(from, i).join("\n").trim();
      push("math", { text: text.slice(2, -2).trim() });
    } else {
      for (++i; i < lines.length && !blank(lines[i]) && !interrupts(lines, i); ++i);
      push("paragraph", { text: lines.slice(from, i).map((text) => text.trim()).join("\n") });
    }
  }
  return blocks;
}

function mathEnd(line, opened, opener, lastWith, from) {
  const closer = opener === "$$" ? "$$" : "\\]";
  return (line.trimEnd().length > opened.length + 1 && line.trimEnd().endsWith(closer)) || lastWith(closer) > from;
}

function listAt(lines, i, blocks) {
  const from = i, ordered = !isBullet(ITEM.exec(lines[i])[2]);
  const start = ordered ? parseInt(ITEM.exec(lines[i])[2], 10) : 1;
  const items = [];
  let loose = false;
  while (i < lines.length) {
    const found = ITEM.exec(lines[i]);
    if (!found || !isBullet(found[2]) !== ordered || RULE.test(lines[i])) break;
    const edge = found[1].length + found[2].length;
    const content = edge + (found[3].length >= 1 && found[3].length <= 4 ? found[3].length : 1);
    const belongs = Math.min(content, found[1].length + 2);  // many write lists within lists with two spaces
    const inner = [lines[i].slice(content)];
    let gap = false;
    for (++i; i < lines.length; ++i) {
      if (blank(lines[i])) {
        gap = true;
        inner.push("");
        continue;
      }
      const indent = indentOf(lines[i]);
      if (indent >= belongs) {
        if (gap && !ITEM.test(lines[i].trimStart())) loose = true;
        inner.push(lines[i].slice(Math.min(indent, content)));
      } else if (gap || ITEM.test(lines[i]) || interrupts(lines, i)) {
        break;
      } else {
        inner.push(lines[i].trim());
      }
      gap = false;
    }
    while (inner.length > 1 && inner[inner.length - 1] === "") inner.pop();
    if (gap && i < lines.length && ITEM.test(lines[i])) loose = true;
    items.push(inner);
  }
  blocks.push({ kind: "list", source: lines.slice(from, i).join("\n"), ordered, start, items, loose });
  return i;
}

function renderCode(block) {
  const language = block.info.split(/[\s{]/)[0].toLowerCase();
  const code = el("code");
  highlight(block.text, language, code);
  const head = el("div", { class: "code-head" }, el("span", {}, language || t("code")), copyButton(t("copy_code"), t("copied"), () => block.text));
  const body = el("pre", { tabindex: "0", role: "region", "aria-label": language ? `${t("code")}: ${language}` : t("code") }, code);
  return el("div", { class: "code", translate: "no" }, head, body);
}

function renderTable(block) {
  const sides = block.marks.map((mark) => (/^:.*:$/.test(mark) ? "center" : mark.endsWith(":") ? "right" : mark.startsWith(":") ? "left" : ""));
  const row = (cells, name) => {
    const tr = el("tr");
    block.head.forEach((_, i) => tr.append(renderInline(cells[i] ?? "", el(name, { class: sides[i] ? `to-${sides[i]}` : null, scope: name === "th" ? "col" : null }))));
    return tr;
  };
  const body = el("tbody");
  for (const cells of block.rows) body.append(row(cells, "td"));
  return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": t("table") },
    el("table", {}, el("thead", {}, row(block.head, "th")), body));
}

function renderList(block, depth) {
  const list = el(block.ordered ? "ol" : "ul", block.ordered && block.start !== 1 ? { start: block.start } : {});
  for (const lines of block.items) {
    const item = el("li");
    const task = /^\[([ xX])\] /.exec(lines[0]);
    if (task) {
      item.className = "task";
      item.append(task[1] === " " ? "☐ " : "☑ ");
      lines[0] = lines[0].slice(4);
    }
    for (const part of split(lines)) {
      if (part.kind === "paragraph" && !block.loose) renderInline(part.text, item);
      else item.append(render(part, depth + 1));
    }
    list.append(item);
  }
  return list;
}

function render(block, depth) {
  if (depth > MOST_DEPTH) return el("p", {}, block.source);
  switch (block.kind) {
    case "code":
      return renderCode(block);
    case "heading":
      return renderInline(block.text, el(`h${Math.min(6, block.level + 2)}`, { class: `h${block.level}` }));
    case "rule":
      return el("hr");
    case "quote": {
      const quote = el("blockquote");
      for (const part of split(block.lines)) quote.append(render(part, depth + 1));
      return quote;
    }
    case "list":
      return renderList(block, depth);
    case "table":
      return renderTable(block);
    case "math":
      return el("div", { class: "math-block", tabindex: "0", role: "region", "aria-label": t("formula") }, renderMath(block.text, el("div", { class: "math" })));
    default:
      return renderInline(block.text, el("p"));
  }
}

export function renderMarkdown(text, into = el("div", { class: "markdown" })) {
  for (const block of split(linesOf(text))) into.append(render(block, 0));
  return into;
}

// A text that grows: show(text) renders anew only the blocks that changed. Returns what has been finished since the last call, as text.
export class GrowingMarkdown {
  constructor() {
    this.node = el("div", { class: "markdown" });
    this.sources = [];
    this.announced = 0;
  }
  show(text, ended) {
    const blocks = split(linesOf(text));
    let same = 0;
    while (same < blocks.length && same < this.sources.length && blocks[same].source === this.sources[same]) ++same;
    while (this.node.childNodes.length > same) this.node.lastChild.remove();
    for (const block of blocks.slice(same)) this.node.append(render(block, 0));
    this.sources = blocks.map((block) => block.source);
    const finished = ended ? blocks.length : Math.max(0, blocks.length - 1);
    const news = [...this.node.childNodes].slice(this.announced, finished).map((node) => node.textContent);
    this.announced = Math.max(this.announced, finished);
    return news;
  }
}
