"use strict";

// Work done in one animation frame. Above it the rest waits for the next
// frame, so that a storm of pushes never blocks typing or scrolling.
const perFrame = 400;
// The server says something at least every 5 s; three missed are a lost line.
const silence = 15000;

const $ = (id) => document.getElementById(id);
const wall = $("wall"), template = $("tile").content.firstElementChild;
const whole = new Intl.NumberFormat("en-US");
const order = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

const tiles = new Map();   // token -> {device, li, badge, device button, text}
const sorted = [];         // the same tiles in the order of the wall
const pending = new Map(); // token -> newest device not drawn yet
let seen = new Set();      // tokens named since the stream began
let stats = null, skew = 0, query = "", synced = false, frame = 0;

// What a badge says: as on a phone in full up to five digits, then shortened.
function short(n) {
  if (n < 100000) return whole.format(n);
  const [unit, by] = n < 1e6 ? ["K", 1e3] : n < 1e9 ? ["M", 1e6] : ["B", 1e9];
  const v = Math.floor(n / by * 10) / 10;
  return (v >= 100 ? Math.floor(v) : v) + unit;
}

function compare(a, b) {
  return order.compare(a.device.mailbox, b.device.mailbox) || order.compare(a.device.name, b.device.name) ||
    (a.device.token < b.device.token ? -1 : a.device.token > b.device.token ? 1 : 0);
}

function place(tile) {
  let low = 0, high = sorted.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (compare(sorted[mid], tile) < 0) low = mid + 1; else high = mid;
  }
  wall.insertBefore(tile.li, low < sorted.length ? sorted[low].li : null);
  sorted.splice(low, 0, tile);
}

function matches(tile) { return query === "" || tile.text.includes(query); }

function draw(device) {
  let tile = tiles.get(device.token);
  const before = tile && tile.device;
  if (before && (before.name !== device.name || before.mailbox !== device.mailbox)) {
    remove(device.token);
    tile = undefined;
  }
  if (!tile) {
    const li = template.cloneNode(true);
    tile = { device, li, button: li.querySelector(".device"), badge: li.querySelector(".badge"), flag: li.querySelector(".flag"),
      text: [device.name, device.mailbox, device.model, device.token].join("\n").toLowerCase() };
    li.dataset.token = device.token;
    li.querySelector(".name").textContent = device.name;
    li.querySelector(".mailbox").textContent = device.mailbox;
    li.querySelector(".mailbox").title = device.mailbox;
    li.querySelector(".screen").classList.add("w" + parseInt(device.token.slice(-4), 16) % 6);
    li.addEventListener("animationend", (e) => { if (e.animationName === "ring") li.classList.remove("fresh"); });
    tiles.set(device.token, tile);
    place(tile);
    li.hidden = !matches(tile);
  }
  tile.device = device;
  tile.li.classList.toggle("ipad", device.model === "iPad");
  tile.li.classList.toggle("gone", !device.registered);
  tile.badge.hidden = device.badge === 0;
  tile.badge.textContent = device.badge === 0 ? "" : short(device.badge);
  tile.badge.classList.toggle("long", tile.badge.textContent.length > 2);
  const flag = device.registered ? device.online ? "" : device.waiting ? "1 waiting" : "Offline" : "Unregistered";
  tile.li.classList.toggle("off", device.registered && !device.online);
  tile.flag.hidden = flag === "";
  tile.flag.textContent = flag;
  const label = `${device.name}, ${device.mailbox}, ${whole.format(device.badge)} unread` + (flag && ", " + flag.toLowerCase());
  tile.button.setAttribute("aria-label", label);
  tile.button.title = `${whole.format(device.badge)} unread`;
  if (before && before.pushes !== device.pushes && !document.hidden) {
    tile.li.classList.remove("fresh");
    if (!before.quiet) requestAnimationFrame(() => tile.li.classList.add("fresh"));
  }
  if (shown === device.token) describe(device);
}

function remove(token) {
  const tile = tiles.get(token);
  if (!tile) return;
  tile.li.remove();
  tiles.delete(token);
  sorted.splice(sorted.indexOf(tile), 1);
}

function schedule() { if (!frame) frame = requestAnimationFrame(paint); }

function paint() {
  frame = 0;
  let left = perFrame;
  for (const [token, device] of pending) {
    if (left-- === 0) break;
    pending.delete(token);
    if (device) draw(device); else remove(token);
  }
  if (pending.size) { schedule(); return; }
  if (synced) {
    synced = false;
    for (const token of [...tiles.keys()]) if (!seen.has(token)) remove(token);
    wall.dataset.synced = "true";
  }
  count();
}

// Hidden tabs draw nothing; what waits for them is one entry a device.
function take(devices) {
  for (const d of devices) { pending.set(d.token, d); seen.add(d.token); }
  schedule();
}

function count() {
  let found = tiles.size;
  if (query !== "") { found = 0; for (const t of sorted) if (!t.li.hidden) found++; }
  $("found").textContent = query === "" ? "" : `${whole.format(found)} of ${whole.format(tiles.size)} devices`;
  const loaded = wall.dataset.synced === "true";
  $("empty").hidden = found > 0 || !loaded;
  if (found === 0 && loaded) {
    const none = tiles.size === 0;
    $("emptytitle").textContent = none ? "No devices yet" : "Nothing found";
    $("emptytext").textContent = none ? "Register one, and it appears here:" : "No mailbox or device matches the search.";
    $("emptyhow").hidden = !none;
    $("emptyhow").textContent = `curl ${location.origin}/api/devices -H 'Content-Type: application/json' \\\n  -d '{"name":"iPhone","mailbox":"box@example.org","topic":"com.example.mail"}'`;
  }
}

function search() {
  query = $("search").value.trim().toLowerCase();
  for (const t of sorted) {
    const hide = !matches(t);
    if (t.li.hidden !== hide) t.li.hidden = hide;
  }
  count();
}

function ago(when) {
  const s = Math.max(0, Math.round((Date.now() + skew - Date.parse(when)) / 1000));
  if (s < 2) return "just now";
  if (s < 60) return `${s} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ago`;
  return `${Math.floor(s / 86400)} days ago`;
}

function summary() {
  if (!stats) return;
  $("devices").textContent = whole.format(stats.devices);
  $("pushes").textContent = whole.format(stats.pushes);
  $("faults").textContent = whole.format(stats.clientFaultsTotal);
  $("faultbox").classList.toggle("some", stats.clientFaultsTotal > 0);
  $("last").textContent = stats.lastPush ? ago(stats.lastPush) : "none yet";
}

// The line to the simulator.

let source = null, timer = 0, attempt = 0, heard = 0;

function state(name, text) { $("state").dataset.state = name; $("state").textContent = text; }

function connect() {
  clearTimeout(timer);
  if (source) source.close();
  heard = Date.now();
  source = new EventSource("api/events");
  const on = (type, f) => source.addEventListener(type, (e) => { heard = Date.now(); f(JSON.parse(e.data)); });
  on("hello", () => {
    attempt = 0; seen = new Set(); pending.clear(); synced = false;
    for (const t of tiles.values()) t.device = { ...t.device, quiet: true };
    $("lost").hidden = true;
    state("live", "Live");
  });
  on("devices", take);
  on("gone", (tokens) => { for (const t of tokens) { pending.set(t, null); seen.delete(t); } schedule(); });
  on("synced", () => { synced = true; schedule(); });
  on("stats", (s) => { stats = s; skew = Date.parse(s.now) - Date.now(); summary(); });
  source.onerror = lost;
}

function lost() {
  if (source) source.close();
  source = null;
  state("lost", "Connection lost");
  $("lost").hidden = false;
  const wait = Math.min(8000, 500 * 2 ** attempt++);
  $("retry").textContent = `The counts below may be old. Trying again in ${Math.max(1, Math.round(wait / 1000))} s.`;
  clearTimeout(timer);
  timer = setTimeout(connect, wait);
}

setInterval(() => {
  summary();
  if (source && Date.now() - heard > silence) lost();
}, 1000);

// One device, or what the client did wrong, close by.

let shown = "";
const answers = [
  ["410 Unregistered", 410, "Unregistered"], ["400 BadDeviceToken", 400, "BadDeviceToken"],
  ["400 DeviceTokenNotForTopic", 400, "DeviceTokenNotForTopic"], ["429 TooManyRequests", 429, "TooManyRequests"],
  ["500 InternalServerError", 500, "InternalServerError"], ["503 ServiceUnavailable", 503, "ServiceUnavailable"],
];
for (const [text] of answers) $("answer").add(new Option(text));

function facts(pairs) {
  $("detailfacts").replaceChildren(...pairs.flatMap(([k, v]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = k; dd.textContent = v;
    return [dt, dd];
  }));
}

function describe(d) {
  $("detailname").textContent = d.name;
  $("detailmailbox").textContent = d.mailbox;
  facts([["Unread", whole.format(d.badge)], ["Pushes", whole.format(d.pushes)], ["Last push", d.lastPush ? new Date(d.lastPush).toLocaleString() : "none yet"],
    ["Model", d.model], ["Topic", d.topic], ["Environment", d.environment], ["State", d.registered ? d.online ? "registered" : "registered, offline" : "unregistered"], ["Device token", d.token]]);
  $("detailacts").hidden = !d.registered;
}

function open(token) {
  shown = token;
  $("detailnote").textContent = "";
  describe(tiles.get(token).device);
  $("detail").showModal();
}

async function call(method, path, body) {
  try {
    const r = await fetch(path, { method, headers: body ? { "Content-Type": "application/json" } : {}, body: body && JSON.stringify(body) });
    if (r.ok) return "";
    const e = (await r.json()).error;
    return `${e.field ? e.field + ": " : ""}${e.message}`;
  } catch { return "The simulator does not answer."; }
}

wall.addEventListener("click", (e) => {
  const button = e.target.closest(".device");
  if (button) open(button.closest(".tile").dataset.token);
});
$("detail").addEventListener("close", () => { shown = ""; });
$("detail").addEventListener("click", (e) => { if (e.target === $("detail")) $("detail").close(); });
$("script").addEventListener("click", async () => {
  const [text, status, reason] = answers[$("answer").selectedIndex];
  const failed = await call("POST", "api/script", { token: shown, answers: [{ status, reason }] });
  $("detailnote").textContent = failed || `Its next push is answered ${text}.`;
});
$("unregister").addEventListener("click", async () => {
  const failed = await call("DELETE", "api/devices/" + shown);
  $("detailnote").textContent = failed || "Unregistered: from now on pushes to it are answered 410.";
});
$("faults").addEventListener("click", () => {
  shown = "";
  $("detailname").textContent = "Client faults";
  $("detailmailbox").textContent = "What the connected client did that Apple asks not to do";
  const all = Object.entries(stats ? stats.clientFaults : {}).filter(([, n]) => n > 0);
  facts(all.length ? all.map(([k, n]) => [k, whole.format(n) + ": " + stats.clientFaultMeanings[k]]) : [["None", "so far"]]);
  $("detailacts").hidden = true;
  $("detailnote").textContent = "";
  $("detail").showModal();
});

let typed = 0;
$("search").addEventListener("input", () => { if (!typed) typed = requestAnimationFrame(() => { typed = 0; search(); }); });
$("reconnect").addEventListener("click", () => { attempt = 0; connect(); });
for (const r of document.querySelectorAll("input[name=size]"))
  r.addEventListener("change", () => document.body.classList.toggle("small", r.value === "small" && r.checked));
document.addEventListener("keydown", (e) => {
  if (e.key === "/" && !/^(INPUT|SELECT)$/.test(document.activeElement.tagName) && !$("detail").open) { e.preventDefault(); $("search").focus(); }
});
connect();
