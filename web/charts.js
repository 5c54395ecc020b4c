// Small pictures of figures: a line over the last two minutes, a grid of experts.
import { el, svg } from "./dom.js";

const WIDTH = 240, HEIGHT = 56;

export class Line {  // of one or two series
  constructor(label, series = 1) {
    this.paths = Array.from({ length: series }, (_, i) => svg("path", { class: `line line-${i}` }));
    this.area = svg("path", { class: "area" });
    this.node = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: "chart", role: "img" }, this.area, ...this.paths);
    this.node.setAttribute("aria-label", label);
  }

  // values: of each series, oldest first, null where there is nothing; most: of one line's length
  draw(values, most, label) {
    const top = Math.max(1e-9, ...values.flat().filter((value) => value !== null)) * 1.15;
    const x = (i, count) => WIDTH - (count - 1 - i) * (WIDTH / (most - 1)), y = (value) => HEIGHT - 2 - (value / top) * (HEIGHT - 6);
    values.forEach((series, k) => {
      let path = "", first = null, last = null;
      series.forEach((value, i) => {
        if (value === null) return;
        const at = `${x(i, series.length).toFixed(1)} ${y(value).toFixed(1)}`;
        path += last === i - 1 ? `L${at}` : `M${at}h0`;  // where nothing follows, a dot
        first ??= i;
        last = i;
      });
      this.paths[k].setAttribute("d", path);
      if (k === 0) {
        const gaps = path.lastIndexOf("M") > 0;
        this.area.setAttribute("d", path && !gaps ? `${path}L${x(last, series.length).toFixed(1)} ${HEIGHT}L${x(first, series.length).toFixed(1)} ${HEIGHT}Z` : "");
      }
    });
    this.node.setAttribute("aria-label", label);
  }
}

export class Heat {  // rows of shares in [0, 1], a square each; described(row, column): the line under it
  constructor(describe) {
    this.canvas = el("canvas", { class: "heat", role: "img", tabindex: "0" });
    this.caption = el("p", { class: "quiet heat-caption" });
    this.node = el("div", {}, this.canvas, this.caption);
    this.describe = describe;
    this.at = null;
    this.canvas.addEventListener("pointermove", (event) => {
      const box = this.canvas.getBoundingClientRect();
      this.at = [Math.floor((event.clientY - box.top) / box.height * this.rows.length), Math.floor((event.clientX - box.left) / box.width * this.columns)];
      this.say();
    });
    this.canvas.addEventListener("pointerleave", () => {
      this.at = null;
      this.say();
    });
    this.canvas.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      const [row, column] = this.at ?? [0, -1];
      this.at = [Math.min(this.rows.length - 1, Math.max(0, row + step[0])), Math.min(this.columns - 1, Math.max(0, column + step[1]))];
      this.say();
    });
  }

  say() {
    const inside = this.at && this.rows[this.at[0]]?.[this.at[1]] !== undefined;
    this.caption.textContent = inside ? this.describe(...this.at) : this.summary;
  }

  draw(rows, summary) {
    this.rows = rows;
    this.columns = Math.max(...rows.map((row) => row.length));
    this.summary = summary;
    const { canvas } = this, scale = window.devicePixelRatio || 1;
    const room = this.node.clientWidth || 600, wide = Math.min(28, room / this.columns), high = Math.max(4, Math.min(14, wide));
    canvas.width = Math.round(wide * this.columns * scale);
    canvas.height = Math.round(high * rows.length * scale);
    canvas.style.width = `${wide * this.columns}px`;
    canvas.style.height = `${high * rows.length}px`;
    const pen = canvas.getContext("2d"), style = getComputedStyle(canvas), gap = wide > 5 ? Math.round(scale) : 0;
    const edge = (i, size) => Math.round(i * size * scale);  // whole pixels
    const fill = (color, alpha, i, k) => {
      pen.globalAlpha = alpha;
      pen.fillStyle = color;
      pen.fillRect(edge(k, wide), edge(i, high), edge(k + 1, wide) - edge(k, wide) - gap, edge(i + 1, high) - edge(i, high) - gap);
    };
    const cold = style.getPropertyValue("--cold"), hot = style.getPropertyValue("--hot");
    rows.forEach((row, i) => row.forEach((share, k) => {
      fill(cold, 1, i, k);
      fill(hot, Math.sqrt(share), i, k);
    }));
    canvas.setAttribute("aria-label", summary);
    this.say();
  }
}
