// What the page has beyond links and forms: it follows work that goes on, and it can be used with the keyboard.
"use strict";

async function follow() {
  const main = document.getElementById("main");
  while (main.dataset.busy) {
    await new Promise((done) => setTimeout(done, 800));
    let fresh;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    } catch {
      continue; // sidecar was stopped, or is busy
    }
    const busy = fresh.getElementById("main")?.dataset.busy ?? "";
    if (main.dataset.busy === "reload" && busy !== "reload") return location.reload();
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(part.id);
      if (other && part.innerHTML !== other.innerHTML) part.innerHTML = other.innerHTML;
    }
    main.dataset.busy = busy;
  }
}

function move(step) {
  const rows = [...document.querySelectorAll("[data-row]")];
  const at = rows.indexOf(document.activeElement.closest("[data-row]"));
  const next = rows[at < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(Math.max(at + step, 0), rows.length - 1)];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  n: () => document.querySelector("a[rel=next]")?.click(),
  p: () => document.querySelector("a[rel=prev]")?.click(),
  "/": () => document.querySelector("input[type=search]")?.focus(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=radio], [type=checkbox]), select, textarea")) return;
  if (event.key === "Enter" && event.target.matches("[data-row]")) {
    event.target.querySelector("[data-open], a")?.click();
  } else if (KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
  }
});

// Without scripts there is a button for it.
document.querySelector("form.filter")?.addEventListener("change", (event) => {
  if (!event.target.matches("[type=search]")) event.currentTarget.requestSubmit();
});

follow();
