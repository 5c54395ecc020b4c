// Prometheus' text format, and what can be read off two looks at it.

const LINE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? +(\S+)/;
const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;

const plain = (text) => text.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));

export function parseMetrics(text) {  // name -> [{labels, value}]
  const series = new Map();
  for (const line of text.split("\n")) {
    const found = line.startsWith("#") ? null : LINE.exec(line);
    if (!found) continue;
    const labels = {};
    for (const [, key, value] of (found[2] ?? "").matchAll(LABEL)) labels[key] = plain(value);
    const value = found[3] === "+Inf" ? Infinity : Number(found[3]);
    if (!series.has(found[1])) series.set(found[1], []);
    series.get(found[1]).push({ labels, value });
  }
  return series;
}

// The sum over all labels; null where there is no such series.
export function total(series, name) {
  const found = series?.get(name);
  return found ? found.reduce((sum, { value }) => sum + value, 0) : null;
}

export function firstOf(series, names) {
  for (const name of names) if (series.has(name)) return total(series, name);
  return null;
}

function buckets(series, name) {  // upper bound -> count, over all labels
  const sums = new Map();
  for (const { labels, value } of series?.get(`${name}_bucket`) ?? []) {
    const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
    sums.set(bound, (sums.get(bound) ?? 0) + value);
  }
  return sums;
}

// Of what a histogram has counted since `before` (null: since the start), as Prometheus' histogram_quantile does; null where that is nothing.
export function quantile(series, before, name, share) {
  const now = buckets(series, name), then = buckets(before, name);
  const bounds = [...now.keys()].sort((a, b) => a - b);
  if (bounds.length === 0) return null;
  const counts = bounds.map((bound) => now.get(bound) - (then.get(bound) ?? 0));
  const all = counts[counts.length - 1];
  if (!(all > 0)) return null;
  const at = counts.findIndex((count) => count >= share * all);
  const from = at > 0 ? bounds[at - 1] : 0, below = at > 0 ? counts[at - 1] : 0;
  if (bounds[at] === Infinity) return from;
  return from + (bounds[at] - from) * (share * all - below) / (counts[at] - below);
}
