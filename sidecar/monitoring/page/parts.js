// Turns an answer of /status into elements. Every value of the daemon becomes text, never markup.

const PHASES = ["checkpoint", "snapshot", "upload"];
const SHOWN = 6;

let skew = 0; // the daemon's clock minus this device's: ages are by the daemon's clock

export function setClock(iso) {
  const theirs = Date.parse(iso);
  if (Number.isNaN(theirs)) throw new Error("the answer is not a status");
  skew = theirs - Date.now();
}

export const theirTime = (milliseconds) => new Date(milliseconds + skew).toISOString();

function make(tag, options, ...children) {
  const isSvg = ["svg", "g", "rect", "title"].includes(tag);
  const element = isSvg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(options || {})) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

// --- quantities

function size(bytes) {
  if (typeof bytes !== "number") return "–";
  let value = bytes;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024) return `${unit === "B" || value >= 100 ? value.toFixed(0) : value.toFixed(1)} ${unit}`;
    value /= 1024;
  }
  return `${value.toFixed(1)} TiB`;
}

function duration(seconds) {
  if (typeof seconds !== "number") return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  return span(seconds);
}

export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min` + (whole < 600 && whole % 60 ? ` ${whole % 60} s` : "");
  if (whole < 172800) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} days`;
}

function clock(instant, seconds) {
  const options = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  if (seconds) options.second = "2-digit";
  const text = instant.toLocaleTimeString("en-GB", options);
  const today = new Date().toDateString() === instant.toDateString();
  return today ? text : `${instant.toLocaleDateString("en-GB", { day: "numeric", month: "short" })}, ${text}`;
}

// `tick` keeps these up to date; `form` chooses the wording.
export function age(iso, form) {
  const element = make("time", { datetime: iso, "data-form": form, title: iso });
  element.textContent = aged(element);
  return element;
}

export function aged(element) {
  const instant = new Date(element.dateTime);
  const seconds = (Date.now() + skew - instant) / 1000;
  const left = -seconds;
  switch (element.dataset.form) {
    case "since": return `since ${clock(instant)}, for ${span(seconds)}`;
    case "in": return left > 0.5 ? `in ${span(left)}` : "now";
    case "at": return clock(instant, true);
    case "for": return span(seconds);
    case "proven": return `passed ${span(seconds)} ago`;
    case "checked": return `checked ${span(seconds)} ago`;
    default: return `${span(seconds)} ago`;
  }
}

const instantOf = (key) => {
  const found = /(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d\.\d{3})Z/.exec(key || "");
  return found ? `${found[1]}-${found[2]}-${found[3]}T${found[4]}:${found[5]}:${found[6]}Z` : null;
};

function figure(label, value, ...small) {
  const shown = small.filter((each) => each);
  return make("div", {}, make("dt", {}, label), make("dd", {}, value, shown.length ? make("small", {}, ...shown) : null));
}

export function database(each, running) {
  const pending = each.unprotected_since;
  const known = (word) => (running || each.last_outcome ? word : "not known yet"); // nothing is known before the boot
  const newest = instantOf(each.restore_point);
  const restored = instantOf(each.restored_from);
  const figures = make("dl", { class: "figures" },
    figure("Newest restore point", newest ? age(newest, "ago") : known("none"), newest ? age(newest, "at") : ""),
    figure("Unpublished changes", pending ? age(pending, "for") : known("none"),
      pending ? "age of the oldest" : "", !pending && each.last_success ? age(each.last_success, "checked") : ""),
    figure("Next backup", running && each.next_backup ? age(each.next_backup, "in") : "–",
      each.failing_since ? "retried until it succeeds" : running && each.next_backup ? age(each.next_backup, "at") : ""),
    figure("Database", size(each.size), each.wal_size ? `and ${size(each.wal_size)} WAL` : ""),
  );
  return make("section", { class: "card" },
    make("div", { class: "head" }, make("h2", {}, each.name),
      make("span", { class: "badge", "data-level": each.verdict.level }, each.verdict.title)),
    make("p", { class: "path" }, each.path),
    figures,
    streaming(each.stream),
    chunks(each.chunks),
    make("h3", {}, "Restore points in the store"),
    ...stored(each.name, each.listing),
    ...timeline(each.name, each.history || []),
    restored ? make("p", { class: "note" }, "At its start this machine restored the restore point of ", age(restored, "at"),
      each.restore_seconds ? `, in ${duration(each.restore_seconds)}` : "", ".") : null,
  );
}

// One line on the stream between restore points; nothing where none is wanted.
function streaming(stream) {
  if (!stream || stream.setting === "off") return null;
  const missed = stream.setting === "on" && !stream.active;
  const now = stream.active
    ? ["Streaming ", age(stream.since, "since"), `; ${stream.lag_seconds ? `${duration(stream.lag_seconds)} behind` : "nothing waits"}.`,
      stream.protects ? "" : " It protects nothing before the next restore point.",
      stream.uploaded ? ` ${size(stream.uploaded)} sent instead of ${size(stream.whole_pages)} with whole pages.` : ""]
    : [`Not streaming: ${stream.reason}.`];
  const { waiting, stored, failed, mean_seconds: mean } = stream.waits;
  const waits = waiting || stored || failed
    ? [` Waits: ${waiting} now, ${stored} stored${stored ? ` after ${mean.toFixed(2)} s on average` : ""}, ${failed} not confirmed.`] : [];
  const cut = stream.last_cut ? [" Last cut ", age(stream.last_cut_at, "ago"), `: ${stream.last_cut}.`] : [];
  return make("p", { class: missed ? "note stream look-ink" : "note stream" }, ...now, ...waits, ...cut);
}

// One line on what restore points took over unread; nothing where none did.
function chunks(counted) {
  if (!counted || (!counted.taken_over && !counted.written_past)) return null;
  const [read, over, compared, past] = ["read", "taken_over", "compared", "written_past"].map((how) => size(counted[how] * 2 ** 20));
  return make("p", { class: counted.written_past ? "note stream look-ink" : "note stream" },
    `For restore points ${read} was read, and ${over} taken over unread; ${compared} of that was compared.`,
    counted.written_past ? ` ${past} was written past the log.` : "");
}

// The store's restore points: the newest ones, the oldest, and for each the commands that restore it and compare it.
function stored(name, listing) {
  if (!listing) return [make("p", { class: "note" }, "The store is not listed yet.")];
  const { newest, oldest } = listing;
  const rows = newest.map((each, index) => point(each, index === 0));
  const more = rows.slice(SHOWN);
  const apart = oldest && !newest.some((each) => each.key === oldest.key);
  const count = listing.count === 1 ? "1 restore point" : `${listing.count.toLocaleString("en-GB")} restore points`;
  return [
    make("p", { class: "note" }, count, oldest ? ", the oldest " : "", oldest ? age(oldest.time, "ago") : "", ". The store was listed ", age(listing.at, "ago"), ".",
      rows.length ? " Open one for the commands that restore it to a new file, and show what changed since the one before; they change nothing else." : ""),
    ...rows.slice(0, SHOWN),
    more.length ? make("details", { class: "more", "data-key": `stored ${name}` }, make("summary", {}, `${more.length} older ones`), ...more) : null,
    apart ? make("p", { class: "note gap" }, "… and the oldest:") : null,
    apart ? point(oldest, false) : null,
  ].filter((each) => each);
}

function point(each, newest) {
  const commands = [each.restore, each.diff].filter((text) => text).map((text) => make("code", {}, text));
  return make("details", { class: "point", "data-key": each.key },
    make("summary", {}, make("span", { class: "age" }, age(each.time, "ago")), make("span", { class: "time" }, age(each.time, "at")),
      make("span", { class: "size" }, size(each.size)), make("span", { class: "holder", title: "published by" }, each.holder),
      make("span", { class: "tier", "data-tier": each.tier || "" }, newest ? "newest" : each.tier)),
    ...commands.map((command) => make("p", { class: "command" }, command, copier(command))));
}

// The page is often served over plain HTTP, where browsers have no clipboard API, and where there is one it may be denied:
// copy what is selected then, and if that is denied too it stays selected.
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return document.execCommand("copy");
  }
}

function copier(command) {
  const button = make("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(command);
    button.textContent = await copied(command.textContent) ? "Copied" : "Selected";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  return button;
}

// What this process published: how much of each restore point was uploaded, and how long that took.
function timeline(name, history) {
  if (!history.length) return [make("p", { class: "note" }, "No restore point was published since this daemon started.")];
  const newest = [...history].reverse();
  return [
    make("h3", {}, "Published since this daemon started"),
    chart(history),
    make("div", { class: "axis" }, make("span", {}, age(history[0].at, "at"), history.length > 1 ? " – " : "", history.length > 1 ? age(newest[0].at, "at") : ""),
      `tallest ${size(Math.max(...history.map((each) => each.size)))}`),
    make("p", { class: "key" }, key("fresh", "uploaded"), key("reused", "reused: copied by the store")),
    make("details", { "data-key": `published ${name}` }, make("summary", {}, "Sizes and durations"), table(newest)),
    make("h3", {}, "Durations of the newest"),
    phases(newest[0].seconds),
  ];
}

const key = (kind, text) => make("span", {}, make("i", { class: kind }), text);

function chart(history) {
  const [width, height, gap] = [1000, 160, 6];
  const slot = width / Math.max(history.length, 16);
  const tallest = Math.max(1, ...history.map((each) => each.size));
  const bars = history.map((each, index) => {
    const whole = Math.max(3, (each.size / tallest) * height);
    const fresh = each.uploaded ? Math.min(whole, Math.max(3, (each.uploaded / Math.max(each.size, 1)) * whole)) : 0;
    const bar = { x: index * slot + gap / 2, width: slot - gap };
    return make("g", {},
      make("title", {}, `${each.at}: ${size(each.size)}, ${size(each.uploaded)} uploaded, ${size(each.reused)} reused`),
      make("rect", { ...bar, x: bar.x - gap / 2, width: slot, y: 0, height, class: "slot" }),
      make("rect", { ...bar, y: height - whole, height: whole, class: "reused" }),
      make("rect", { ...bar, y: height - fresh, height: fresh, class: "fresh" }));
  });
  const label = `sizes of the last ${history.length} restore points; the table has the numbers`;
  return make("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", class: "chart", role: "img", "aria-label": label }, ...bars);
}

function table(points) {
  const took = (each) => Object.values(each.seconds || {}).reduce((sum, seconds) => sum + seconds, 0);
  const rows = points.map((each) => make("tr", { title: each.key }, make("td", {}, age(each.at, "at")), make("td", {}, size(each.size)),
    make("td", {}, size(each.uploaded)), make("td", {}, size(each.reused)), make("td", {}, duration(took(each)))));
  const head = ["Time", "Size", "Uploaded", "Reused", "Took"].map((text) => make("th", { scope: "col" }, text));
  return make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
}

function phases(seconds) {
  const total = PHASES.reduce((sum, phase) => sum + (seconds[phase] || 0), 0) || 1;
  let x = 0;
  const bars = PHASES.map((phase) => {
    const width = ((seconds[phase] || 0) / total) * 1000;
    const bar = make("rect", { x, y: 0, width, height: 10, class: phase });
    x += width;
    return bar;
  });
  return make("div", {}, make("svg", { viewBox: "0 0 1000 10", preserveAspectRatio: "none", class: "phases", "aria-hidden": "true" }, ...bars),
    make("p", { class: "key" }, ...PHASES.map((phase) => key(phase, `${phase} ${duration(seconds[phase] || 0)}`))));
}

function fact(title, big, ...notes) {
  const shown = notes.filter((each) => each).map((note) => make("p", { class: "note" }, note));
  return make("section", { class: "card" }, make("h2", {}, title), make("p", { class: "big" }, big), ...shown);
}

export function facts({ app, lease, drills, cost, estimate }) {
  const parts = [];
  if (!app) parts.push(fact("App", "no command", "it protects databases that others write"));
  if (!lease.enabled) parts.push(fact("Lease", "off", "nothing keeps a second machine from publishing"));
  else if (lease.waiting_for) parts.push(fact("Lease", "held by another machine", lease.waiting_for));
  else parts.push(fact("Lease", lease.held ? "held by this machine" : "not held", lease.holder, `epoch ${lease.epoch}, renewed ${lease.renewals.ok || 0}\u00a0×`));
  for (const each of drills) {
    const failed = each.drill_error ? make("span", { class: "bad-ink" }, `${each.drill_outcome}: ${each.drill_error}`) : null;
    const proven = each.last_drill ? age(each.last_drill, "proven") : "none has passed yet";
    parts.push(fact("Last drill", proven, each.name, failed, each.next_drill ? make("span", {}, "next ", age(each.next_drill, "in")) : null));
  }
  if (cost) parts.push(fact("Estimated cost", `$${cost.total.toFixed(2)} a month`, ...cost.parts));
  if (typeof estimate === "number") parts.push(fact("Final backup", duration(estimate), "estimated, if the machine were stopped now"));
  return parts;
}

export function problems(list) {
  const shown = [...list].reverse().slice(0, 10).map(({ first, ...each }) => make("div", { class: "problem" },
    make("p", { class: "when" }, age(each.at, "at"), each.database ? ` · ${each.database}` : "",
      each.times > 1 ? ` · ${each.times} times since ` : "", each.times > 1 ? age(first, "at") : ""),
    make("p", { class: "what" }, each.message), make("p", { class: "todo" }, each.hint), acknowledging(each.acknowledge)));
  return [make("h2", {}, "Last problems"), ...shown];
}

function acknowledging(text) {
  if (!text) return null;
  const command = make("code", {}, text);
  return make("p", { class: "command" }, command, "acknowledges it", copier(command));
}

// The problems, each open incident with the command that acknowledges it.
export function advised({ problems, incidents }) {
  const same = (one, other) => ["kind", "database", "message"].every((name) => one[name] === other[name]);
  const open = (each) => (incidents || []).find((incident) => same(incident, each));
  return problems.map((each) => ({ ...each, acknowledge: open(each)?.acknowledge }));
}

// A repeated problem becomes one line, with its count and the time of its first occurrence.
export function folded(list) {
  const rows = [];
  for (const each of list) {
    const same = rows.find((row) => row.message === each.message && row.database === each.database);
    if (same) rows.splice(rows.indexOf(same), 1);
    rows.push({ ...each, times: (same ? same.times : 0) + 1, first: same ? same.first : each.at });
  }
  return rows;
}

export function extras(status) {
  const drills = status.databases.filter((each) => each.last_drill || each.next_drill || each.drill_error)
    .map(({ name, last_drill, next_drill, drill_outcome, drill_error }) => ({ name, last_drill, next_drill, drill_outcome, drill_error }));
  return { app: status.has_command !== false, lease: status.lease, drills, cost: costOf(status.cost || {}), estimate: status.final_backup_estimate_seconds };
}

// Dollars a month: the total and its parts.
function costOf(cost) {
  if (typeof cost.total !== "number") return null;
  const parts = ["requests", "storage", "egress"].map((name) => `${name} $${cost[name].toFixed(2)}`);
  if (cost.auto_saves > 1) parts.push(`restore_points=auto would save $${cost.auto_saves.toFixed(2)} of storage`);
  if (cost.stream) parts.push(`of it the stream: $${(cost.stream.requests + cost.stream.egress).toFixed(2)}; with stream_interval=5s its PUTs would be $${cost.stream.with_5s.toFixed(2)} instead of $${cost.stream.requests.toFixed(2)}`);
  if (cost.boot >= 0.005) parts.push(`$${cost.boot.toFixed(2)} for each start`);
  return { total: cost.total, parts };
}
