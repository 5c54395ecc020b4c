// What the visitor has chosen, kept in the browser. A browser that refuses to keep things costs no more than that.

function read(store, key) {
  try {
    return store().getItem(key);
  } catch {
    return null;
  }
}
function write(store, key, value) {
  try {
    value === null || value === "" ? store().removeItem(key) : store().setItem(key, value);
  } catch {
    // full or forbidden
  }
}
const local = () => window.localStorage, session = () => window.sessionStorage;

export const kept = (key) => read(local, `hadal.${key}`);
export const keep = (key, value) => write(local, `hadal.${key}`, value);

export const apiKey = () => read(session, "hadal.key") ?? "";
export const setApiKey = (key) => write(session, "hadal.key", key);

export function keptJson(key, otherwise) {
  try {
    return JSON.parse(kept(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}
export const keepJson = (key, value) => keep(key, JSON.stringify(value));

// key, smallest, largest, step: as the server checks them
export const samplingFields = [
  ["temperature", 0, 2, 0.1], ["top_p", 0, 1, 0.05], ["min_p", 0, 1, 0.01], ["max_tokens", 1, 1000000, 1],
  ["presence_penalty", -2, 2, 0.1], ["frequency_penalty", -2, 2, 0.1], ["seed", 0, 4294967295, 1],
];

export function samplingBody() {  // only what was chosen, and makes sense
  const chosen = keptJson("sampling", {}), body = {};
  for (const [key, least, most] of samplingFields) {
    const value = Number(chosen[key]);
    if (chosen[key] !== undefined && chosen[key] !== "" && value >= least && value <= most) body[key] = value;
  }
  if (chosen.stop) body.stop = [String(chosen.stop)];
  return body;
}
