// Shows what is live as it comes, and says when it does not come.
"use strict";

const connection = document.getElementById("connection");
const live = document.body.dataset.live;

function say(text, kind) {
  if (connection) {
    connection.textContent = text;
    connection.className = kind;
  }
}

// What is ticked, kept for as long as the page is: work that is tried is gone for a moment.
const ticked = new Set([...document.querySelectorAll("input:checked")].map((box) => box.value));
document.addEventListener("change", ({ target }) => {
  if (target.type === "checkbox") ticked[target.checked ? "add" : "delete"](target.value);
});

// What is ticked, and where the keyboard is, survives that a part is shown anew.
function replace(part, html) {
  const scrolled = [...part.querySelectorAll(".scroll")].map((box) => [box.scrollLeft, box.scrollTop]);
  const inside = part.contains(document.activeElement) ? document.activeElement : null;
  const at = inside && { href: inside.getAttribute("href"), value: inside.value, scroll: inside.className };
  part.innerHTML = html;
  for (const box of part.querySelectorAll("input[type=checkbox]")) box.checked = ticked.has(box.value);
  part.querySelectorAll(".scroll").forEach((box, n) => {
    if (scrolled[n]) [box.scrollLeft, box.scrollTop] = scrolled[n];
  });
  if (at) {
    const same = [...part.querySelectorAll("a, input, .scroll")].find((one) =>
      at.href ? one.getAttribute("href") === at.href : at.value ? one.value === at.value : one.className === at.scroll);
    if (same) same.focus({ preventScroll: true });
  }
}

if (live) {
  let since = new Date();
  const source = new EventSource(live);
  source.onopen = () => { say("● live", "good"); since = null; };
  source.onmessage = (event) => {
    for (const [id, html] of Object.entries(JSON.parse(event.data))) {
      const part = document.getElementById(id);
      if (part) replace(part, html);
    }
  };
  source.onerror = () => {
    since = since || new Date();
    say(`▲ disconnected since ${since.toLocaleTimeString()}; what you see is as old`, "bad");
    document.body.classList.add("stale");
    if (source.readyState === EventSource.CLOSED) say("▲ not live any more: load the page again", "bad");
  };
  source.addEventListener("open", () => document.body.classList.remove("stale"));
}
