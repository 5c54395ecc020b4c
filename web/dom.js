// Elements and icons. Text from a model or a user only ever becomes text nodes.

export function el(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") node.addEventListener(key.slice(2), value);
    else if (key === "class") node.className = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children) if (child !== null && child !== undefined) node.append(child);
  return node;
}

export function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

export const byId = (id) => document.getElementById(id);

const shapes = {  // on a grid of 24
  plus: "M12 5v14M5 12h14",
  menu: "M4 7h16M4 12h16M4 17h16",
  close: "M6 6l12 12M18 6L6 18",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M8 8h8v8H8z",
  down: "M12 5v14M6 13l6 6 6-6",
  copy: "M9 9h10v11H9zM6 15H5V4h10v2",
  check: "M5 13l4.5 4.5L19 7",
  retry: "M19.5 12a7.5 7.5 0 1 1-2.300-5.4M19.5 4v4h-4",
  edit: "M5 19l1-4.5L16 4.5l3.5 3.5L9.5 18 5 19z",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  left: "M14 6l-6 6 6 6",
  right: "M10 6l6 6-6 6",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  upload: "M12 16V5M7 9l5-5 5 5M5 20h14",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.300 5.300l1.4 1.4M17.300 17.300l1.4 1.4M5.300 18.700l1.4-1.4M17.300 6.700l1.4-1.4",
  moon: "M20 14.5A8 8 0 0 1 9.5 4a8 8 0 1 0 10.5 10.5z",
  half: "M12 4a8 8 0 1 0 0 16V4zM12 4a8 8 0 0 1 0 16",
  settings: "M4 7h9M17 7h3M15 4.5v5M4 17h3M11 17h9M9 14.5v5",
  alert: "M12 8v5M12 16.5v.1M12 3.5l9 16H3z",
};

export function icon(name) {
  return svg("svg", { viewBox: "0 0 24 24", class: "icon-shape", "aria-hidden": "true" }, svg("path", { d: shapes[name] }));
}

export function setIcon(button, name) {
  button.querySelector("svg")?.remove();
  button.prepend(icon(name));
}

export const iconButton = (name, label, onclick, more = {}) =>
  el("button", { type: "button", class: "icon", "aria-label": label, title: label, onclick, ...more }, icon(name));

// Says by its icon that it worked.
export function copyButton(label, done, text) {
  const button = iconButton("copy", label, async () => {
    try {
      await navigator.clipboard.writeText(text());
    } catch {
      copyBySelection(text());
    }
    setIcon(button, "check");
    button.setAttribute("aria-label", done);
    setTimeout(() => {
      setIcon(button, "copy");
      button.setAttribute("aria-label", label);
    }, 1500);
  });
  return button;
}

function copyBySelection(text) {  // where the page came over plain HTTP from another machine, there is no clipboard
  const area = el("textarea", { class: "visually-hidden", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

let toastTimer = 0;
export function toast(text, action, onaction) {
  const box = byId("toast");
  box.replaceChildren(el("span", {}, text));
  if (action) {
    box.append(el("button", { type: "button", class: "plain", onclick: () => ((box.hidden = true), onaction()) }, action));
  }
  box.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (box.hidden = true), action ? 8000 : 4000);
}
