// Opens references in a real browser, as files, and does what a reader does.
//
// Reads {home, pages: [{page, search, link, rules}]} and writes what was seen of each. `home` is where
// the browser may be unpacked and keep its profile; `rules` are the sets of rules that axe judges by.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const { home, pages } = JSON.parse(fs.readFileSync(0, "utf8"));
process.env.TMPDIR = home;

async function browser() {
  const { default: packed, inflate } = require("@sparticuz/chromium");
  // Its libraries lie beside it, for machines that lack them.
  const entry = require.resolve("@sparticuz/chromium");
  const bin = path.join(entry.slice(0, entry.lastIndexOf("@sparticuz")), "@sparticuz/chromium/bin");
  const libraries = await inflate(path.join(bin, "al2023.tar.br"));
  process.env.LD_LIBRARY_PATH = path.join(libraries, "lib");
  const executablePath = await packed.executablePath(bin);
  const args = ["--no-sandbox", "--headless=shell", "--disable-gpu", "--no-zygote"];
  return require("playwright-core").chromium.launch({ executablePath, args });
}

const results = (page) => page.$$eval("#results a", (all) =>
  all.map((one) => decodeURIComponent(one.hash.slice(1))));

// Follows a link as a reader does; whether what it names is seen then.
async function follow(page, name) {
  await page.evaluate((to) => { location.hash = ""; location.hash = encodeURIComponent(to); }, name);
  await page.waitForFunction((to) => document.getElementById(to)?.offsetParent, name);
  return page.$eval(`[id="${name}"]`, (one) => {
    const { top } = one.getBoundingClientRect();
    return top >= 0 && top < innerHeight;
  });
}

async function axe(page, rules) {
  if (rules.length === 0) return [];
  await page.evaluate(fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8"));
  const { violations } = await page.evaluate((only) => window.axe.run({ runOnly: only }), rules);
  return violations.map(({ id, nodes }) => ({ id, nodes: nodes.slice(0, 3).map((n) => n.html) }));
}

// Every link of everything that can be shown leads somewhere, and no id is there twice.
async function walk(page) {
  return page.evaluate(async () => {
    const [seen, broken, repeated, tags] = [new Set(["", "#"]), [], [], new Set()];
    const waiting = ["#", "#events", "#errors", "#messages"];
    while (waiting.length && seen.size < 2000) {
      const hash = waiting.pop();
      location.hash = hash;
      dispatchEvent(new HashChangeEvent("hashchange"));
      const name = decodeURIComponent(hash.slice(1));
      const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
      repeated.push(...ids.filter((id, at) => ids.indexOf(id) !== at));
      for (const one of document.querySelectorAll("*")) tags.add(one.localName);
      const shown = ids.includes(name) || ["", "events", "errors", "messages"].includes(name);
      if (!shown) broken.push(hash);
      for (const link of document.querySelectorAll("a[href]")) {
        const next = link.getAttribute("href");
        if (!next.startsWith("#")) broken.push(next);
        else if (!seen.has(next) && next !== "#main") waiting.push(next);
        seen.add(next);
      }
    }
    return { broken, repeated, walked: seen.size, tags: [...tags] };
  });
}

async function read(opened, { page: file, search, link, rules }) {
  const seen = { requests: [], errors: [], axe: {} };
  const context = await opened.newContext({ colorScheme: "light", bypassCSP: false });
  const page = await context.newPage();
  page.on("request", (request) => seen.requests.push(request.url()));
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("console", (message) => seen.errors.push(message.text()));
  await page.goto(`file://${file}`);
  await page.waitForSelector("#view a");

  await page.keyboard.press("/");
  await page.keyboard.type(search);
  seen.found = await results(page);
  seen.said = await page.textContent("#found");
  // By keys alone: down to the first result, up again, and to it by Enter.
  await page.keyboard.press("ArrowDown");
  seen.first = await page.evaluate(() => decodeURIComponent(document.activeElement.hash.slice(1)));
  await page.keyboard.press("ArrowUp");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => location.hash.length > 1);
  seen.entered = await page.evaluate(() => decodeURIComponent(location.hash.slice(1)));

  // Whoever follows a link to what the search hid sees it.
  await page.fill("#search", "nothing has these words");
  seen.nothing = await results(page);
  await page.keyboard.press("Escape");
  seen.cleared = await page.isVisible("#view");
  await page.fill("#search", "nothing has these words");
  seen.arrived = await follow(page, link);

  const back = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  seen.light = await back();
  seen.axe.light = await axe(page, rules);
  await page.click("#theme");
  seen.dark = await back();
  seen.axe.dark = await axe(page, rules);
  await page.reload();
  await page.waitForSelector("#view :is(a, article)");
  seen.kept = await back();
  seen.deep = await page.isVisible(`[id="${link}"]`);
  // How far the picture must be scrolled in a window that is a little too small for it.
  await page.setViewportSize({ width: 1000, height: 800 });
  seen.picture = await page.evaluate(() => {
    const picture = document.querySelector(".picture");
    return picture ? picture.scrollWidth - picture.clientWidth : 0;
  });
  await page.setViewportSize({ width: 390, height: 800 });
  seen.overflow = await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
  Object.assign(seen, await walk(page));
  await context.close();

  const plain = await opened.newContext({ javaScriptEnabled: false, colorScheme: "dark" });
  const silent = await plain.newPage();
  await silent.goto(`file://${file}`);
  seen.withoutScript = await silent.locator(`[id="${link}"]`).isVisible();
  await plain.close();
  return seen;
}

// Milliseconds from a letter to what it finds, painted; and of the page from disk to its first view.
async function time(opened, { page: file, searches }) {
  const page = await opened.newPage();
  const begun = Date.now();
  await page.goto(`file://${file}`);
  await page.waitForSelector("#view a");
  const opening = Date.now() - begun;
  const searching = await page.evaluate(async (wanted) => {
    const box = document.getElementById("search");
    const times = [];
    for (const text of wanted) {
      const start = performance.now();
      box.value = text;
      box.dispatchEvent(new Event("input"));
      document.getElementById("results").getBoundingClientRect();
      times.push(performance.now() - start);
      await new Promise((resolve) => { setTimeout(resolve, 20); });
    }
    return times;
  }, searches);
  const nodes = await page.evaluate(() => document.querySelectorAll("*").length);
  const found = await results(page);
  await page.close();
  return { opening, searching, nodes, found };
}

browser().then(async (opened) => {
  try {
    const seen = [];
    for (const page of pages) seen.push(await (page.searches ? time : read)(opened, page));
    process.stdout.write(JSON.stringify(seen));
  } finally {
    await opened.close();
  }
});
