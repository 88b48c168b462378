"use strict";
(() => {
  const root = document.documentElement;
  const box = document.getElementById("search");
  const found = document.getElementById("found");
  const entries = [...document.querySelectorAll("[data-search]")];
  const groups = [...document.querySelectorAll("section[data-group]")];
  const words = entries.map((entry) => entry.dataset.search + " " + entry.textContent.toLowerCase());

  function search() {
    const wanted = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    entries.forEach((entry, index) => {
      entry.hidden = !wanted.every((word) => words[index].includes(word));
      count += entry.hidden ? 0 : 1;
    });
    groups.forEach((group) => {
      const own = [...group.querySelectorAll("[data-search]")];
      group.hidden = wanted.length > 0 && own.every((entry) => entry.hidden);
    });
    found.textContent = wanted.length ? `${count} found` : "";
  }

  // What somebody is sent to must be seen, whatever was searched for before.
  function arrive() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.closest("[hidden]")) {
      box.value = "";
      search();
    }
    const closed = target && target.closest("details");
    if (closed) closed.open = true;
    if (target) target.scrollIntoView();
  }

  box.addEventListener("input", search);
  window.addEventListener("hashchange", arrive);
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== box) {
      event.preventDefault();
      box.focus();
    } else if (event.key === "Escape" && box.value) {
      box.value = "";
      search();
    }
  });

  const dark = () => (root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches);
  const button = document.getElementById("theme");
  const label = () => { button.textContent = dark() ? "Light" : "Dark"; };
  // A page that was opened from disk may be refused a storage.
  const remembered = (theme) => {
    try {
      if (theme) localStorage.setItem("accord-theme", theme);
      return localStorage.getItem("accord-theme");
    } catch {
      return null;
    }
  };
  const before = remembered();
  if (before === "dark" || before === "light") root.dataset.theme = before;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    remembered(root.dataset.theme);
    label();
  });
  label();
  button.hidden = false;
  box.parentElement.hidden = false;
  if (location.hash) arrive();
})();
