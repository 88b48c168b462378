"use strict";
// What is shown is made when it is asked for: a service, a message, a list. Names and comments come
// from contracts, and become text, never markup.
(async () => {
  const packed = Uint8Array.from(atob(document.getElementById("data").textContent),
    (letter) => letter.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const data = JSON.parse(await new Response(unpacked).text());
  const view = document.getElementById("view");
  const box = document.getElementById("search");
  const said = document.getElementById("found");
  const results = document.getElementById("results");
  const [LINK, MIDDLE, END] = ["\ue000", "\ue001", "\ue002"];
  const MOST_RESULTS = 100;
  const MOST_NODES = 12;

  // Each thing by what is behind the # of its address.
  const services = new Map(data.services.map((service) => [service.name, service]));
  const types = new Map(data.types.map((type) => [type.name, type]));
  const events = new Map(data.events.map((event) => [`event-${event.name}`, event]));
  const lists = { events: data.events, errors: data.errors, messages: data.types };
  // Edges name RPCs as gRPC does, "/pkg.Service/Method"; whatever else calls is an identity.
  const rpcName = (name) => name.slice(name.startsWith("/") ? 1 : 0);
  const upper = (name) => name.slice(0, Math.max(name.lastIndexOf("/"), 0));
  const serviceOf = (name) => (name.startsWith("/") ? upper(rpcName(name)) : name);
  const shortOf = (name) => name.slice(name.lastIndexOf(".") + 1);
  const href = (name) => `#${encodeURIComponent(name)}`;

  function el(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  // Text in which names are marked: a link to what is explained, or code.
  function inline(text) {
    const [first, ...rest] = text.split(LINK);
    return rest.reduce((made, part) => {
      const [target, name] = part.split(MIDDLE);
      const [label, after] = name.split(END);
      const code = el("code", {}, label);
      return [...made, target ? el("a", { href: href(target) }, code) : code, after];
    }, [first]);
  }

  // A comment: a blank line begins a paragraph, backquotes mark code.
  const prose = (comment) => comment.split(/\n\s*\n/).filter(Boolean).map((text) => el("p", {},
    ...text.split(/`([^`\n]+)`/).map((part, at) => (at % 2 ? el("code", {}, part) : part))));

  const badges = (texts) => texts.map((text) => el("span", { class: "badge" }, text));

  function table(columns, rows) {
    const head = columns.map((name) => el("th", { scope: "col" }, name));
    const body = rows.map((cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, ...cell))));
    const made = el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
    return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": columns.join(", ") },
      made);
  }

  function entry(id, heading, marks, ...children) {
    return el("article", { id }, el("h3", {}, heading, ...badges(marks)), ...children);
  }

  function rpc(service, { name, request, response, marks, comment, rows }) {
    const terms = rows.flatMap(([term, text]) => [el("dt", {}, term), el("dd", {}, ...inline(text))]);
    return entry(`${service.name}/${name}`, name, marks,
      el("p", {}, ...inline(request), " → ", ...inline(response)), ...prose(comment),
      el("dl", {}, ...terms));
  }

  function event({ name, subject, version, message, key, publishers, comment, marks }) {
    const terms = { Message: message, "Ordered by": key, "Published by": publishers };
    const rows = Object.entries(terms);
    return entry(`event-${name}`, subject, [...marks, `version ${version}`], ...prose(comment),
      el("dl", {}, ...rows.flatMap(([term, text]) =>
        [el("dt", {}, term), el("dd", {}, ...inline(text))])));
  }

  function type({ name, columns, comment, marks, rows }) {
    const cells = rows.map(([field, number, ...more]) => [
      [el("code", {}, field), ...(more[2] ? badges(["deprecated"]) : [])], [`${number}`],
      ...(columns.length > 3 ? [inline(more[0])] : []), prose(more[1])]);
    return entry(name, name, marks, ...prose(comment),
      rows.length ? table(columns, cells) : el("p", {}, "It is empty."));
  }

  // The neighbourhood of a service: who calls it, whom it calls, and what it publishes.
  function edgesOf(name) {
    return data.edges.filter(([source, , target]) =>
      serviceOf(source) === name || serviceOf(target) === name);
  }

  function picture(name, edges) {
    const sides = [new Map(), new Map()];
    for (const [source, kind, target, time] of edges) {
      if (data.drawn.includes(kind)) {
        const out = serviceOf(source) === name;
        const other = serviceOf(out ? target : source);
        const text = `${rpcName(source)} ${kind} ${rpcName(target)}${time ? ` (${time})` : ""}`;
        const known = sides[+out].get(other) || new Map();
        if (other !== name) sides[+out].set(other, known.set(kind, [...(known.get(kind) || []), text]));
      }
    }
    for (const { name: id, subject, by } of data.events) {
      if (by.includes(name)) {
        sides[1].set(`event-${id}`, new Map([["publishes", [`${name} publishes ${subject}`]]]));
      }
    }
    const columns = sides.map((side) => [...side].slice(0, MOST_NODES));
    if (!columns[0].length && !columns[1].length) return [];
    const [width, gap, step] = [200, 56, 60];
    const height = Math.max(columns[0].length, columns[1].length, 1) * step;
    const svg = (tag, attributes, ...children) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      made.append(...children);
      return made;
    };
    const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
    function node(full, column, y) {
      const x = column * (width + gap);
      const published = events.get(full);
      const [scheme, path] = full.split("://");
      const large = published ? published.subject : path ? path.split("/").pop() : shortOf(full);
      const small = published ? "event" : path ? `${scheme}://${path.split("/")[0]}`
        : full.slice(0, -large.length - 1);
      const shape = [
        svg("rect", { x, y, width, height: 44, rx: services.has(full) ? 8 : 22 }),
        svg("text", { x: x + width / 2, y: y + (small ? 19 : 26) }, cut(large, 25)),
        svg("text", { class: "small", x: x + width / 2, y: y + 34 }, cut(small, 34)),
      ];
      const known = services.has(full) || published;
      const inside = known ? [svg("a", { href: href(full) }, ...shape)] : shape;
      return svg("g", { class: `node ${services.has(full) ? "service" : "identity"}` },
        svg("title", {}, full), ...inside);
    }
    const middle = (height - 44) / 2;
    const drawn = [node(name, 1, middle)];
    const used = new Set();
    columns.forEach((column, out) => column.forEach(([other, kinds], at) => {
      const y = (height - column.length * step) / 2 + at * step + 8;
      drawn.push(node(other, 2 * out, y));
      [...kinds].forEach(([kind, texts], index) => {
        used.add(kind);
        const shift = 22 + 8 * (index - (kinds.size - 1) / 2);
        const x = width + out * (width + gap);
        const [from, to] = out ? [middle + 22, y + shift] : [y + shift, middle + 22];
        const way = `M${x} ${from}C${x + gap / 2} ${from} ${x + gap / 2} ${to} ${x + gap - 6} ${to}`;
        drawn.push(svg("path", { class: `edge-${data.drawn.indexOf(kind)}`, d: way },
          svg("title", {}, texts.join("\n"))),
        svg("path", { class: `arrow-${data.drawn.indexOf(kind)}`, d: `M${x + gap - 8} ${to - 4}l8 4l-8 4z` }));
      });
    }));
    const all = 3 * width + 2 * gap;
    const image = svg("svg", { viewBox: `-8 -4 ${all + 16} ${height + 8}`, width: all + 16,
      height: height + 8, role: "group",
      "aria-label": `Neighbours of ${name}; the table below says the same in words` }, ...drawn);
    image.style.minWidth = `${0.7 * all}px`;
    const more = sides[0].size + sides[1].size - columns[0].length - columns[1].length;
    return [
      el("div", { class: "picture", tabindex: 0, role: "region", "aria-label": "Picture, scrollable" },
        image),
      el("ul", { class: "legend" }, ...[...used].map((kind) =>
        el("li", { class: `kind-${data.drawn.indexOf(kind)}` }, kind)),
      ...(more ? [el("li", { class: "more" }, `${more} more are in the table`)] : [])),
    ];
  }

  function neighbours(name) {
    const edges = edgesOf(name);
    const drawn = picture(name, edges);
    if (!edges.length) return drawn;
    const link = (to) => (services.has(serviceOf(to))
      ? el("a", { href: href(rpcName(to)) }, el("code", {}, rpcName(to)))
      : el("code", {}, rpcName(to)));
    const rows = edges.map(([source, kind, target, time]) =>
      [[link(source)], [kind], [link(target)], [time || ""]]);
    const details = el("details", {}, el("summary", {}, `The same as a table (${rows.length} rows)`));
    details.addEventListener("toggle", () => {
      if (details.children.length < 2) {
        details.append(table(["From", "Why", "To", "Time allowed"], rows));
      }
    });
    return [...drawn, details];
  }

  function service(found) {
    return [
      el("h2", { id: found.name }, found.name, ...badges(found.marks)),
      el("p", { class: "dim" }, ...inline(found.file)),
      ...prose(found.comment), ...neighbours(found.name),
      ...(found.rpcs.length ? found.rpcs.map((one) => rpc(found, one)) : [el("p", {}, "It has no RPCs.")]),
    ];
  }

  const links = (all) => el("ul", { class: "names" }, ...all.map(([to, label, dim]) =>
    el("li", {}, el("a", { href: href(to) }, label), el("span", { class: "dim" }, ` ${dim}`))));

  function overview() {
    return [el("h2", {}, "Services"),
      links(data.services.map(({ name, rpcs }) => [name, name, `${rpcs.length} RPCs`]))];
  }

  function list(name) {
    const title = name[0].toUpperCase() + name.slice(1);
    if (name === "messages") {
      return [el("h2", { id: name }, title), links(data.types.map((one) => [one.name, one.name, ""]))];
    }
    if (name === "events") return [el("h2", { id: name }, title), ...data.events.map(event)];
    const rows = data.errors.map(([reason, rpcs]) =>
      [[el("code", { id: `error-${reason}` }, reason)], inline(rpcs)]);
    return [el("h2", { id: name }, title), table(["Reason", "Answered by"], rows)];
  }

  function shown(name) {
    const of = services.has(name) ? name : upper(name);
    if (services.has(of)) return [of, () => service(services.get(of))];
    if (types.has(name)) return [name, () => [el("h2", {}, "Message"), type(types.get(name))]];
    if (events.has(name)) return ["events", () => list("events")];
    if (name.startsWith("error-")) return ["errors", () => list("errors")];
    return name in lists && lists[name].length ? [name, () => list(name)] : ["", overview];
  }

  let current = null;
  function show() {
    const name = decodeURIComponent(location.hash.slice(1));
    const [what, make] = shown(name);
    if (what !== current) {
      view.replaceChildren(...make());
      current = what;
    }
    box.value = "";
    search();
    const target = document.getElementById(name);
    document.querySelector(".target")?.classList.remove("target");
    if (target && view.contains(target)) {
      target.classList.add("target");
      target.scrollIntoView();
    } else if (name) {
      scrollTo(0, 0);
    }
  }

  // What is searched: words that are shown, of everything.
  const plain = (text) => text.replace(/[\ue000-\ue002]/g, " ");
  let index = null;
  function indexed() {
    const made = [];
    const add = (kind, to, label, ...texts) => made.push({ kind, to, label,
      name: `${to} ${label}`.toLowerCase(), words: plain(texts.join(" ")).toLowerCase() });
    for (const found of data.services) {
      add("service", found.name, found.name, found.file, found.comment, ...found.marks);
      for (const one of found.rpcs) {
        add("RPC", `${found.name}/${one.name}`, `${shortOf(found.name)}/${one.name}`,
          one.request, one.response, one.comment, ...one.marks, ...one.rows.flat());
      }
    }
    for (const one of data.events) {
      add("event", `event-${one.name}`, one.subject, one.message, one.comment, ...one.marks);
    }
    for (const [reason, rpcs] of data.errors) add("error", `error-${reason}`, reason, rpcs);
    for (const one of data.types) {
      add("message", one.name, one.name, one.comment, ...one.marks, ...one.rows.flat().map(String));
    }
    return made;
  }

  function search() {
    const wanted = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    view.hidden = wanted.length > 0;
    results.hidden = !wanted.length;
    if (!wanted.length) {
      said.textContent = "";
      results.replaceChildren();
      return;
    }
    index ||= indexed();
    const [named, others] = [[], []];
    for (const one of index) {
      if (wanted.every((word) => one.name.includes(word))) named.push(one);
      else if (wanted.every((word) => one.name.includes(word) || one.words.includes(word))) {
        others.push(one);
      }
    }
    const found = [...named, ...others];
    const more = found.length - MOST_RESULTS;
    said.textContent = `${found.length} found${more > 0 ? `, ${MOST_RESULTS} shown` : ""}`;
    results.replaceChildren(...found.slice(0, MOST_RESULTS).map(({ kind, to, label }) =>
      el("li", {}, el("a", { href: href(to) }, label), el("span", { class: "dim" }, ` ${kind} ${to}`))));
  }

  box.addEventListener("input", search);
  window.addEventListener("hashchange", show);
  // A link to where the reader is already shows it, too: the address does not change.
  document.addEventListener("click", (clicked) => {
    const link = clicked.target.closest("a");
    if (link && link.hash && link.hash === location.hash) show();
  });
  document.addEventListener("keydown", (pressed) => {
    const all = [box, ...results.querySelectorAll("a")];
    const at = all.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[pressed.key];
    if (pressed.key === "/" && document.activeElement !== box) {
      pressed.preventDefault();
      box.focus();
    } else if (pressed.key === "Escape" && box.value) {
      box.value = "";
      search();
      box.focus();
    } else if (step && at >= 0 && all[at + step]) {
      pressed.preventDefault();
      all[at + step].focus();
    } else if (pressed.key === "Enter" && at === 0 && all[1]) {
      all[1].click();
    }
  });

  const root = document.documentElement;
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
  document.getElementById("services").append(...data.services.map(({ name }) =>
    el("li", {}, el("a", { href: href(name) }, shortOf(name)),
      el("span", { class: "dim" }, ` ${name.slice(0, -shortOf(name).length - 1)}`))));
  show();
})();
