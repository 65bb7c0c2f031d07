"use strict";
// The page is text: whatever comes is put into text nodes, never into markup.

const OLD_MS = 4000;     // without news for so long what is shown is old
const AGAIN_MS = 2000;   // after a stream that was refused
const DEAD_MS = 10000;   // after a stream on which nothing comes any more
const ORDER_MS = 5000;   // between two looks whether rows have to move: whoever reads wants them to stay
const OLD_S = 5;         // a symbol's figures

const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en");
const tenths = new Intl.NumberFormat("en", {minimumFractionDigits: 1, maximumFractionDigits: 1});
const known = (value, show) => value === null || value === undefined ? "–" : show(value);

function age(seconds) {
  seconds = Math.max(0, seconds);
  if (seconds < 10) return `${tenths.format(seconds)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${tenths.format(seconds / 3600)} h` : `${tenths.format(seconds / 86400)} days`;
}

const isOld = (of) => of.age_s === null || of.age_s === undefined || of.age_s >= OLD_S;
const old = (of, text) => text !== "–" && isOld(of) ? `${text} (old)` : text;
const reason = (of) => of.reason + (of.more ? ` (and ${of.more} more)` : "");

// Classes `middle` and `wide` are left out of narrow windows; the details have what is left out.
const COLUMNS = [
  {key: "symbol", title: "Symbol", text: (of) => of.symbol, by: (of) => of.symbol},
  {key: "state", title: "Health", text: (of) => of.reason ? `${of.state}: ${reason(of)}` : of.state, by: (of) => of.rank},
  {key: "rate", title: "Frames/s", number: true, text: (of) => known(of.rate, tenths.format), by: (of) => of.rate, mark: true},
  {key: "delay", title: "Delay, ms", number: true, hide: "middle", text: (of) => old(of, known(of.delay_ms, tenths.format)), by: (of) => of.delay_ms, mark: true},
  {key: "age", title: "Last frame", number: true, text: (of) => old(of, known(of.age_s, age)), by: (of) => of.age_s, mark: true},
  {key: "way", title: "Way out", hide: "wide", text: (of) => known(of.way, String), by: (of) => of.way},
  {key: "backlog", title: "Backlog", number: true, hide: "middle", text: (of) => known(of.backlog, whole.format), by: (of) => of.backlog},
  {key: "file", title: "Last file", hide: "wide", text: (of) => known(of.file, (name) => name.replace(/\.parquet$/, "")), by: (of) => of.file},
  {key: "age-file", title: "Its age", number: true, hide: "wide", text: (of) => known(of.file_age_s, age), by: (of) => of.file_age_s},
  {key: "verdict", title: "Verdict", hide: "wide", text: (of) => known(of.verdict, String), by: (of) => of.verdict},
];

const rows = new Map();  // by id
let sort = {column: COLUMNS[1], falling: false};
let ordered = 0;
let open = null;         // the row whose details are shown
let page = null;

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const classes = (column, ...more) => [column.number ? "number" : "", column.hide || "", ...more].join(" ").trim();

function heads() {
  for (const column of COLUMNS) {
    const button = element("button", {type: "button"}, column.title);
    column.head = element("th", {scope: "col", role: "columnheader", class: classes(column)}, button);
    button.addEventListener("click", () => {
      sort = {column, falling: sort.column === column && !sort.falling};
      order();
    });
    $("columns").append(column.head);
  }
}

// A row of the table: its nodes, and what they show.
function row(id) {
  const made = {id, of: null, cells: [], words: ""};
  made.button = element("button", {type: "button", "aria-expanded": "false"});
  made.button.addEventListener("click", () => show(open === made ? null : made));
  made.tr = element("tr", {role: "row"}, element("th", {scope: "row", role: "rowheader", class: classes(COLUMNS[0])}, made.button));
  for (const column of COLUMNS.slice(1)) {
    const text = document.createTextNode("");
    const td = element("td", {role: "cell", class: classes(column, column.key === "state" ? "state" : "")}, text);
    made.cells.push({column, td, text});
    made.tr.append(td);
  }
  return made;
}

function fill(one, of) {
  one.of = of;
  say(one.button, of.symbol);
  for (const {column, td, text} of one.cells) {
    const shown = column.text(of);
    if (text.data !== shown) text.data = shown;
    if (column.mark) td.classList.toggle("old", shown !== "–" && isOld(of));
  }
  one.tr.classList.toggle("ill", of.reason !== "");
  one.words = `${of.id} ${of.symbol} ${of.state} ${of.reason} ${of.way || ""}`.toLowerCase();
}

function compare(one, other) {
  const [a, b] = [sort.column.by(one.of), sort.column.by(other.of)];
  const missing = (value) => value === null || value === undefined;
  if (missing(a) || missing(b)) {
    if (missing(a) !== missing(b)) return missing(a) ? 1 : -1;
  } else if (a !== b) {
    return (a < b ? -1 : 1) * (sort.falling ? -1 : 1);
  }
  return one.of.symbol < other.of.symbol ? -1 : 1;
}

function order() {
  ordered = performance.now();
  for (const column of COLUMNS) {
    if (column !== sort.column) column.head.removeAttribute("aria-sort");
    else column.head.setAttribute("aria-sort", sort.falling ? "descending" : "ascending");
  }
  let at = $("rows").firstChild;
  for (const one of [...rows.values()].sort(compare)) {
    if (at === one.tr) at = at.nextSibling;
    else $("rows").insertBefore(one.tr, at);
    if (one === open) {
      if (at === open.detail) at = at.nextSibling;
      else $("rows").insertBefore(open.detail, at);
    }
  }
}

function filter() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const ill = $("faults").checked;
  let shown = 0;
  for (const one of rows.values()) {
    const hidden = (ill && !one.of.reason) || !words.every((word) => one.words.includes(word));
    if (one.tr.hidden !== hidden) one.tr.hidden = hidden;
    if (one === open && one.detail.hidden !== hidden) one.detail.hidden = hidden;
    shown += hidden ? 0 : 1;
  }
  say($("shown"), shown === rows.size ? `${whole.format(shown)} symbols` : `${whole.format(shown)} of ${whole.format(rows.size)} symbols`);
}

// Details of one symbol, as a row below its own.
function show(one) {
  if (open) {
    open.detail.remove();
    open.button.setAttribute("aria-expanded", "false");
    open.button.removeAttribute("aria-controls");
  }
  open = one;
  history.replaceState(null, "", one ? `#${one.id}` : location.pathname + location.search);
  if (!one) return;
  one.detail = element("tr", {role: "row", class: "detail", id: "detail"}, element("td", {role: "cell", "aria-colspan": COLUMNS.length}, "asking"));
  one.tr.after(one.detail);
  one.button.setAttribute("aria-expanded", "true");
  one.button.setAttribute("aria-controls", "detail");
  detail();
}

async function detail() {
  const one = open;
  if (!one || one.asked) return;
  one.asked = true;
  try {
    const answer = await fetch(`symbol?id=${encodeURIComponent(one.id)}`);
    if (answer.ok) tell(one, await answer.json());
  } catch {
    // the page says by itself that it has no news
  } finally {
    one.asked = false;
  }
}

function tell(one, said) {
  if (one !== open) return;
  const list = (items) => element("ul", {}, ...items.map((text) => element("li", {}, text)));
  const facts = (pairs) => element("dl", {}, ...pairs.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  const made = [];
  if (said.reasons.length) {
    made.push(element("h3", {}, "What is wrong, and what to do"));
    made.push(list(said.reasons.map((of) => `${of.kind}: ${of.text}${of.since ? ` (${of.since})` : ""}. ${of.todo}`)));
  }
  if (said.said.length) made.push(element("h3", {}, "What it says"), list(said.said));
  if (said.facts.length) made.push(element("h3", {}, "Facts"), facts(said.facts));
  if (said.channels.length) made.push(element("h3", {}, "Channels"), facts(said.channels));
  if (!made.length) made.push("Nothing is known of it.");
  renew(one.detail.firstChild, made);
}

// Only texts change where the structure is the same: what somebody has marked, or reads, stays.
function renew(place, made) {
  const fresh = element("td", {}, ...made);
  const texts = (node) => {
    const walk = document.createTreeWalker(node, NodeFilter.SHOW_ALL);
    const found = [];
    while (walk.nextNode()) found.push(walk.currentNode);
    return found;
  };
  const [before, after] = [texts(place), texts(fresh)];
  if (before.length !== after.length || before.some((node, n) => node.nodeName !== after[n].nodeName)) {
    place.replaceChildren(...fresh.childNodes);
    return;
  }
  before.forEach((node, n) => { if (node.nodeType === Node.TEXT_NODE && node.data !== after[n].data) node.data = after[n].data; });
}

function host() {
  const rate = page.symbols.reduce((sum, of) => sum + (of.rate || 0), 0);
  const parts = [
    ["Symbols", "ok", whole.format(page.symbols.length)],
    ["With a fault", page.faults ? "fault" : "ok", known(page.faults, whole.format)],
    ["Frames/s", "ok", tenths.format(rate)],
    ...page.parts,
    ["As of", "ok", page.at === null ? "–" : `${new Date(page.at * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC`],
  ];
  const made = parts.flatMap(([name, kind, text]) => [element("dt", {}, name), element("dd", kind === "fault" ? {class: "fault"} : {}, text)]);
  const place = $("host");
  made.forEach((node, n) => {
    const there = place.children[n];
    if (!there) place.append(node);
    else if (there.nodeName !== node.nodeName) there.replaceWith(node);
    else { say(there, node.textContent); there.className = node.className; }
  });
  while (place.children.length > made.length) place.lastChild.remove();
}

function take(text) {
  const said = JSON.parse(text);
  page = {...said, symbols: said.symbols.map((values) => Object.fromEntries(said.columns.map((name, n) => [name, values[n]])))};
  const there = new Set();
  const fresh = rows.size === 0;
  for (const of of page.symbols) {
    there.add(of.id);
    if (!rows.has(of.id)) rows.set(of.id, row(of.id));
    fill(rows.get(of.id), of);
  }
  for (const [id, one] of rows) {
    if (there.has(id)) continue;
    if (one === open) show(null);
    one.tr.remove();
    rows.delete(id);
  }
  const isBusy = $("rows").contains(document.activeElement);  // nothing moves away from under somebody
  if (fresh || (!isBusy && performance.now() - ordered > ORDER_MS)) order();
  else if ($("rows").childElementCount < rows.size) order();
  filter();
  host();
  detail();
  if (fresh && location.hash) {
    const one = rows.get(decodeURIComponent(location.hash.slice(1)));
    if (one) { show(one); one.tr.scrollIntoView({block: "center"}); }
  }
}

// The stream of news, and what is said when there are none.
let stream = null;
let tried = 0;
let heard = null;

function connect() {
  tried = performance.now();
  if (stream) stream.close();
  stream = new EventSource("events");
  stream.addEventListener("now", (event) => {
    const first = page === null || page.number === 0;
    take(event.data);
    if (page.number === 0) return;
    heard = performance.now();
    if (first) order();
    look();
  });
}

function look() {
  const now = performance.now();
  const isLost = heard === null ? now - tried > OLD_MS : now - heard > OLD_MS;
  document.body.classList.toggle("old", isLost);
  if (isLost) {
    const since = heard === null ? "yet" : `since ${new Date(page.at * 1000).toISOString().slice(11, 19)} UTC`;
    say($("link"), `No news ${since}: what is shown is old. Trying again.`);
  } else {
    say($("link"), heard === null ? "Connecting" : page.faults ? `Live, ${whole.format(page.faults)} with a fault` : "Live");
  }
  document.title = (isLost ? "Old · " : page && page.faults ? `${page.faults} with a fault · ` : "") + "MEXC recorder";
  const waited = now - Math.max(tried, heard || 0);
  if (stream.readyState === EventSource.CLOSED ? waited > AGAIN_MS : waited > DEAD_MS) connect();
}

heads();
$("controls").addEventListener("submit", (event) => event.preventDefault());
$("search").addEventListener("input", filter);
$("faults").addEventListener("change", filter);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && open) {
    const button = open.button;
    show(null);
    button.focus();
  }
});
document.addEventListener("visibilitychange", look);
connect();
setInterval(look, 500);
