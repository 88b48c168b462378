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

const shown = (page) => page.$$eval("[data-search]", (all) =>
  all.filter((one) => one.offsetParent !== null).map((one) => one.id));

async function axe(page, rules) {
  if (rules.length === 0) return [];
  await page.evaluate(fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8"));
  const { violations } = await page.evaluate((only) => window.axe.run({ runOnly: only }), rules);
  return violations.map(({ id, nodes }) => ({ id, nodes: nodes.slice(0, 3).map((n) => n.html) }));
}

async function read(opened, { page: file, search, link, rules }) {
  const seen = { requests: [], errors: [], axe: {} };
  const context = await opened.newContext({ colorScheme: "light", bypassCSP: false });
  const page = await context.newPage();
  page.on("request", (request) => seen.requests.push(request.url()));
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("console", (message) => seen.errors.push(message.text()));
  await page.goto(`file://${file}`);
  const ids = new Set(await page.$$eval("[id]", (all) => all.map((one) => one.id)));
  const hashes = await page.$$eval("a[href]", (all) => all.map((one) => one.getAttribute("href")));
  seen.broken = hashes.filter((hash) => !hash.startsWith("#") || !ids.has(hash.slice(1)));
  seen.repeated = await page.evaluate(() => {
    const all = [...document.querySelectorAll("[id]")].map((one) => one.id);
    return all.filter((id, index) => all.indexOf(id) !== index);
  });
  seen.all = (await shown(page)).length;

  await page.keyboard.press("/");
  await page.keyboard.type(search);
  seen.found = await shown(page);
  seen.said = await page.textContent("#found");
  await page.keyboard.press("Escape");
  seen.cleared = (await shown(page)).length;

  // Whoever follows a link to what the search hid sees it.
  await page.fill("#search", "nothing has these words");
  seen.nothing = await shown(page);
  await page.evaluate((name) => { location.hash = name; }, link);
  await page.waitForFunction((name) => document.getElementById(name).offsetParent, link);
  seen.arrived = await page.$eval(`[id="${link}"]`, (one) => {
    const { top } = one.getBoundingClientRect();
    return top >= 0 && top < innerHeight;
  });

  const back = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  seen.light = await back();
  seen.axe.light = await axe(page, rules);
  await page.click("#theme");
  seen.dark = await back();
  seen.axe.dark = await axe(page, rules);
  await page.reload();
  seen.kept = await back();
  // How far the picture must be scrolled in a window that is a little too small for it.
  await page.setViewportSize({ width: 1000, height: 800 });
  seen.picture = await page.evaluate(() => {
    const picture = document.querySelector(".picture");
    return picture ? picture.scrollWidth - picture.clientWidth : 0;
  });
  await page.setViewportSize({ width: 390, height: 800 });
  seen.overflow = await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
  await context.close();

  const plain = await opened.newContext({ javaScriptEnabled: false, colorScheme: "dark" });
  const silent = await plain.newPage();
  await silent.goto(`file://${file}`);
  seen.withoutScript = await silent.locator(`[id="${link}"]`).isVisible();
  await plain.close();
  return seen;
}

browser().then(async (opened) => {
  try {
    const seen = [];
    for (const page of pages) seen.push(await read(opened, page));
    process.stdout.write(JSON.stringify(seen));
  } finally {
    await opened.close();
  }
});
