// The status page: asks ./status every few seconds, shows the answer, and never shows an old answer as if it were new.

import { advised, age, aged, database, extras, facts, folded, problems, setClock, span, theirTime } from "./parts.js";

const EVERY = 3000;
const PATIENCE = 4000;
const STALE = 12000;
const COLOURS = { good: "#12704f", look: "#b97700", wait: "#4d5d73", bad: "#b3202f", unknown: "#6b7370" };

const byId = (id) => document.getElementById(id);
let answered = null; // time of the daemon's last answer, by this device's clock

const drawn = {};

// Redraw a part only when its data has changed: selections, open details and the scroll position are kept.
function draw(id, data, build) {
  const now = JSON.stringify(data);
  if (drawn[id] === now) return;
  const lists = () => [...byId(id).querySelectorAll("details[data-key]")];
  const open = new Set(lists().filter((each) => each.open).map((each) => each.dataset.key));
  byId(id).replaceChildren(...build(data));
  for (const each of lists()) each.open = open.has(each.dataset.key);
  drawn[id] = now;
}

function hero(level, title, since, reason, hint) {
  document.title = `${title} · sidecar`;
  const svg = `<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><circle cx='8' cy='8' r='7' fill='${COLOURS[level]}'/></svg>`;
  document.querySelector("link[rel=icon]").href = `data:image/svg+xml,${encodeURIComponent(svg)}`;
  if (byId("hero").dataset.level !== level) byId("hero").dataset.level = level;
  for (const [id, text] of [["title", title], ["reason", reason], ["hint", hint]]) {
    if (byId(id).textContent !== text) byId(id).textContent = text;
  }
  draw("since", since, () => (since ? [age(since, "since")] : []));
}

function show(status) {
  setClock(status.now);
  const { level, title, since, reason, hint } = status.verdict;
  const running = status.ready;
  draw("where", [status.lease.holder, status.store], ([holder, store]) => [[holder, store].filter((each) => each).join(" · ")]);
  draw("databases", status.databases.map(({ unprotected_seconds, ...each }) => each), (all) => all.map((each) => database(each, running)));
  draw("facts", extras(status), facts);
  byId("problems").hidden = !status.problems.length;
  draw("problems", folded(advised(status)), problems);
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  draw("foot", [status.phase, status.version, status.sqlite_version, status.started, zone], () => [
    `sidecar ${status.version} · SQLite ${status.sqlite_version} · ${status.phase}, up `, age(status.started, "for"), ` · times are in ${zone}`]);
  hero(level, title, since, reason, hint); // last: an answer that cannot be shown completely is not shown as green
  document.body.dataset.live = "yes";
}

// Never a stale green: everything turns grey with the first request that fails.
function lost(why) {
  document.body.dataset.live = "no";
  const since = answered ? theirTime(answered) : null;
  const reason = answered ? "Below is its last answer, which may be out of date." : why;
  hero("unknown", "No answer from the daemon", since, reason, "Has the machine stopped, or is it restarting? This page keeps trying.");
}

function tick() {
  for (const element of document.querySelectorAll("time[data-form]")) {
    const text = aged(element);
    if (element.textContent !== text) element.textContent = text;
  }
  const quiet = answered === null ? null : Date.now() - answered;
  if (quiet !== null && quiet > STALE) lost("");
  const silent = document.body.dataset.live === "no" ? "no answer" : "connecting …";
  byId("pulse").textContent = document.body.dataset.live === "yes" ? "live" : quiet === null ? silent : `no answer for ${span(quiet / 1000)}`;
}

async function ask() {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), PATIENCE);
  try {
    const reply = await fetch("status", { cache: "no-store", signal: abort.signal });
    if (!reply.ok) throw new Error(`it answered with status ${reply.status}`);
    const status = await reply.json();
    show(status);
    answered = Date.now();
  } catch (error) {
    lost(`The request failed: ${error.message}.`);
  } finally {
    clearTimeout(timer);
    tick();
  }
}

async function live() {
  try {
    await ask();
  } finally {
    setTimeout(live, EVERY);
  }
}

document.addEventListener("visibilitychange", () => document.hidden || ask());
setInterval(tick, 1000);
live();
