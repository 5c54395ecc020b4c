// Talks, kept in the browser's IndexedDB. A talk is a tree of messages: what was asked or answered again is a branch, `leaf` ends the one that is shown.

const talks = new Map();
let database = null;
const others = "BroadcastChannel" in window ? new BroadcastChannel("hadal-talks") : null;

function wait(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function open() {
  const request = indexedDB.open("hadal", 1);
  request.onupgradeneeded = () => request.result.createObjectStore("talks", { keyPath: "id" });
  return wait(request);
}

function settled(transaction) {  // what it wrote is there after a reload
  return new Promise((resolve, reject) => {
    transaction.oncomplete = resolve;
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });
}

function write(change) {
  if (!database) return Promise.resolve();
  const transaction = database.transaction("talks", "readwrite");
  change(transaction.objectStore("talks"));
  return settled(transaction).catch(() => {});  // no room left: the talk lasts as long as the page
}

const store = () => database.transaction("talks", "readonly").objectStore("talks");

// False: nothing can be kept. changed(id): another tab wrote or removed it.
export async function openTalks(changed) {
  try {
    database = await open();
    for (const talk of await wait(store().getAll())) {
      const sound = soundTalk(talk);
      if (sound) talks.set(sound.id, sound);
    }
  } catch {
    database = null;
    return false;
  }
  if (others) {
    others.onmessage = async ({ data: id }) => {
      const talk = soundTalk(await wait(store().get(String(id))));
      if (talk) talks.set(talk.id, talk);
      else talks.delete(id);
      changed(id);
    };
  }
  return true;
}

export async function saveTalk(talk) {
  talk.updated = Date.now();
  await putTalk(talk);
}

export async function putTalk(talk) {
  talks.set(talk.id, talk);
  await write((all) => all.put(talk));
  others?.postMessage(talk.id);
}

export async function removeTalk(id) {
  talks.delete(id);
  await write((all) => all.delete(id));
  others?.postMessage(id);
}

export const talkOf = (id) => talks.get(id);
export const allTalks = () => [...talks.values()].sort((a, b) => b.updated - a.updated);

const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(9)), (byte) => byte.toString(36).padStart(2, "0")).join("");

export function newTalk() {
  const now = Date.now();
  return { id: newId(), title: "", created: now, updated: now, messages: {}, leaf: null };
}

export function addMessage(talk, parent, role, content) {
  const message = { id: newId(), parent, role, content, created: Date.now() };
  talk.messages[message.id] = message;
  talk.leaf = message.id;
  return message;
}

export function pathTo(talk, id) {  // from the first message to this one
  const path = [];
  for (let message = talk.messages[id]; message; message = talk.messages[message.parent]) path.push(message);
  return path.reverse();
}

export function siblings(talk, message) {
  return Object.values(talk.messages).filter((other) => other.parent === message.parent).sort((a, b) => a.created - b.created);
}

export function showBranch(talk, id) {  // from this message on, the newest reply to each
  for (;;) {
    const next = Object.values(talk.messages).filter((message) => message.parent === id).sort((a, b) => b.created - a.created)[0];
    if (!next) break;
    id = next.id;
  }
  talk.leaf = id;
}

export const titleFrom = (text) => text.trim().replace(/\s+/g, " ").slice(0, 60);

export function exportJson() {
  return JSON.stringify({ format: "hadal-talks", version: 1, talks: allTalks() }, null, 1);
}

// What was imported; throws where it is not a file of ours.
export async function importJson(text) {
  const file = JSON.parse(text);
  if (file?.format !== "hadal-talks" || !Array.isArray(file.talks)) throw new Error("format");
  const sound = file.talks.map(soundTalk);
  if (sound.some((talk) => talk === null)) throw new Error("talk");
  for (const talk of sound) await putTalk(talk);
  return sound.length;
}

// A talk with known fields of known types only, whose messages form a tree; null where that cannot be.
function soundTalk(raw) {
  if (typeof raw?.id !== "string" || raw.id === "" || typeof raw.messages !== "object" || raw.messages === null) return null;
  const number = (value) => (Number.isFinite(value) ? value : 0);
  const string = (value) => (typeof value === "string" ? value : "");
  const talk = { id: raw.id, title: string(raw.title), created: number(raw.created), updated: number(raw.updated), messages: Object.create(null), leaf: null };
  for (const message of Object.values(raw.messages)) {
    if (typeof message?.id !== "string" || typeof message.content !== "string" || !["user", "assistant"].includes(message.role)) return null;
    const sound = { id: message.id, parent: typeof message.parent === "string" ? message.parent : null, role: message.role, content: message.content, created: number(message.created) };
    for (const key of ["reasoning", "error", "note"]) if (typeof message[key] === "string") sound[key] = message[key];
    for (const key of ["tokens", "prompt_tokens", "seconds", "first", "thought"]) if (Number.isFinite(message[key])) sound[key] = message[key];
    talk.messages[sound.id] = sound;
  }
  const rooted = new Set();  // a tree has no circle and no unknown parent
  for (const start of Object.values(talk.messages)) {
    const seen = new Set();
    for (let message = start; !rooted.has(message.id); message = talk.messages[message.parent]) {
      seen.add(message.id);
      if (message.parent === null) break;
      if (seen.has(message.parent) || !talk.messages[message.parent]) return null;
    }
    for (const id of seen) rooted.add(id);
  }
  if (typeof raw.leaf === "string" && talk.messages[raw.leaf]) talk.leaf = raw.leaf;
  else showBranch(talk, null);
  return talk;
}
