// The one script of the pages: the token, the address behind #, and what happens when a button is pressed.
import { drawCharts } from "./chart.js";
import { watchSets } from "./data.js";
import { fillForm } from "./form.js";

const KEY = "regimen-token";
const LANGUAGE = "regimen-language";
const $ = (selector) => document.querySelector(selector);
let texts = {};

// The token comes behind #, which browsers send to nobody, and is kept for this tab and this port alone.
function takeToken() {
  const found = /^#token=([\w-]+)$/.exec(location.hash);
  if (found) {
    sessionStorage.setItem(KEY, found[1]);
    history.replaceState(null, "", "#/runs");
  }
}

function language() {
  return localStorage.getItem(LANGUAGE) || navigator.language;
}

function headers() {
  return { Authorization: `Bearer ${sessionStorage.getItem(KEY) || ""}`, "Accept-Language": language() };
}

async function ask(path, values) {
  const sent = values === undefined ? { headers: headers() }
    : { method: "POST", headers: { ...headers(), "Content-Type": "application/json" }, body: JSON.stringify(values) };
  const answer = await fetch(path, { ...sent, credentials: "omit", cache: "no-store" });
  if (answer.status === 401) lock();
  return answer;
}

function lock() {
  sessionStorage.removeItem(KEY);
  $("#top").replaceChildren();
  $("#page").replaceChildren($("#locked").content.cloneNode(true));
  $("#unlock").addEventListener("submit", (event) => {
    event.preventDefault();
    const given = new FormData(event.target).get("token").trim().replace(/^.*#token=/, "");
    sessionStorage.setItem(KEY, given);
    open();
  });
}

const say = (key) => texts[key] ?? key;

async function open() {
  const answer = await ask("texts");
  if (!answer.ok) return;
  texts = await answer.json();
  document.documentElement.lang = answer.headers.get("Content-Language") || "en";
  await htmx.ajax("GET", "top", { target: "#top", swap: "innerHTML" });
  show();
}

const PAGES = ["new", "sweeps", "node", "data", "compare"]; // beside that of the runs

// #/PAGE, #/PAGE?QUERY, #/sweeps/ID, #/runs/ID and #/runs/ID/TAB
function show() {
  takeToken();
  const [page, id, tab] = location.hash.replace(/^#\/?/, "").split("?")[0].split("/");
  const query = location.hash.split("?")[1], named = /^[0-9a-f]+$/.test(id ?? "");
  const path = page === "runs" && named ? `runs/${id}?tab=${encodeURIComponent(tab ?? "progress")}`
    : page === "sweeps" && named ? `sweeps/${id}`
    : PAGES.includes(page) ? `${page}${query ? `?${query}` : ""}` : "runs";
  for (const link of document.querySelectorAll("header nav a")) {
    if (link.hash === `#/${PAGES.includes(page) ? page : "runs"}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  return htmx.ajax("GET", path, { target: "#page", swap: "innerHTML" });
}

document.addEventListener("htmx:configRequest", (event) => Object.assign(event.detail.headers, headers()));
document.addEventListener("htmx:beforeRequest", (event) => {
  const polls = event.detail.requestConfig?.triggeringEvent === undefined && event.detail.elt !== document.body;
  if (document.hidden && polls) event.preventDefault(); // a page that nobody sees asks for nothing
});
document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status === 401) lock();
  else lost(event.detail.xhr.responseText);
});
document.addEventListener("htmx:sendError", () => lost(say("lost")));
document.addEventListener("htmx:afterRequest", (event) => { if (event.detail.successful) lost(""); });
// What polls and has not changed stays as it is, with whatever has the focus in it; a table that was opened stays open.
const shown = new WeakMap();
let opened = [];
document.addEventListener("htmx:beforeSwap", (event) => {
  const { target, xhr } = event.detail;
  if (target.id !== "page" && shown.get(target) === xhr.responseText && target.childElementCount) event.detail.shouldSwap = false;
  else shown.set(target, xhr.responseText);
  opened = [...target.querySelectorAll("details[id][open]")].map((details) => details.id);
});
// A narrow window shows each row as a list: every cell begins with the name of its column there (style.css).
function nameCells(root) {
  for (const table of root?.querySelectorAll?.("table.runs, table.stacked") ?? []) {
    const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    for (const row of table.tBodies[0].rows) [...row.cells].forEach((cell, at) => { if (cell.tagName === "TD" && cell.textContent.trim()) cell.dataset.column = names[at]; });
  }
}

document.addEventListener("htmx:afterSwap", (event) => {
  nameCells(event.detail.target);
  for (const id of opened) event.detail.target?.querySelector?.(`#${id}`)?.setAttribute("open", "");
  if (event.detail.target?.querySelector?.(".compared")) showChosen();
  if (event.detail.target?.querySelector?.("#look-at")) watchSets(event.detail.target, ask, say);
  const charts = event.detail.target?.querySelector?.("#charts");
  if (charts) drawCharts(charts, ask, say);
  const form = event.detail.target?.querySelector?.("#new");
  if (form) fillForm(form, ask, say, confirmAction);
});

// Runs are chosen to be compared; the list is drawn anew every two seconds.
const chosen = new Set();
function showChosen() {
  for (const box of document.querySelectorAll(".compared")) box.checked = chosen.has(box.value);
  if (!$("#chosen")) return;
  $("#chosen").hidden = chosen.size === 0;
  const link = $("#chosen a");
  link.hash = `#/compare?r=${[...chosen].join(",")}`;
  link.hidden = chosen.size < 2 || chosen.size > 6;
}
document.addEventListener("change", ({ target }) => {
  if (!target.classList.contains("compared")) return;
  if (target.checked) chosen.add(target.value);
  else chosen.delete(target.value);
  showChosen();
});

function lost(text) {
  $("#lost").hidden = !text;
  $("#lost").textContent = text;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.id === "language") {
    localStorage.setItem(LANGUAGE, button.lang);
    open();
  } else if (button.dataset.act) {
    confirmAction(button.dataset);
  }
});

// Shows the command line's words; only then are they run.
function confirmAction({ act, name, command, values, told }) {
  const dialog = $("#ask"), yes = $("#ask-yes"), no = $("#ask-no"), state = $("#ask-state"), output = $("#ask-output");
  $("#ask-title").textContent = say(name);
  $("#ask-warning").hidden = name !== "delete";
  $("#ask-warning").textContent = say("delete_warning");
  $("#ask-what").textContent = say("will_run");
  $("#ask-command").textContent = command;
  yes.textContent = say("confirm");
  yes.hidden = false;
  yes.disabled = false;
  no.textContent = say("cancel");
  state.textContent = "";
  output.hidden = true;
  no.onclick = () => dialog.close();
  yes.onclick = async () => {
    yes.disabled = true;
    state.textContent = say("working");
    try {
      const answer = await ask(act, values ? JSON.parse(values) : {});
      const done = answer.ok ? await answer.json() : { code: answer.status, text: await answer.text() };
      state.textContent = done.code === null ? "" : `${say("exit_code")}: ${done.code}`;
      output.textContent = done.text;
      output.hidden = false;
      yes.hidden = true;
      if (answer.ok && done.code === 0 && ["delete", "start", "enqueue"].includes(name)) location.hash = name === "enqueue" ? "#/node" : "#/runs";
    } catch {
      state.textContent = say("lost");
      yes.disabled = false;
    }
    no.textContent = say("close");
  };
  if (told) tellBefore(told, output, yes);
  if (!dialog.open) dialog.showModal();
  no.focus();
}

// What the command would say before it asks; it may come after the command was run, and is not shown then.
async function tellBefore(path, output, yes) {
  const answer = await ask(path).catch(() => null), text = answer && await answer.text();
  if (!text || yes.hidden || yes.disabled) return;
  output.textContent = text;
  output.hidden = false;
}

// The answers of the model as they come.
document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-chat]");
  if (!form) return;
  event.preventDefault();
  const button = form.querySelector("button"), answers = form.querySelector("pre");
  button.disabled = true;
  answers.hidden = false;
  answers.textContent = say("chat_loading");
  try {
    const answer = await ask(form.dataset.chat, { lines: form.querySelector("textarea").value });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(), first = true; !part.done; part = await reader.read(), first = false) {
      answers.textContent = first ? part.value : answers.textContent + part.value;
    }
  } catch {
    answers.textContent = say("lost");
  }
  button.disabled = false;
});

// j and k move through the runs, as Enter on a link opens one.
document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, select, textarea, dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && $("#filter input")) {
    event.preventDefault();
    $("#filter input").focus();
  }
  if (event.key !== "j" && event.key !== "k") return;
  const links = [...document.querySelectorAll("table.runs th a")];
  const at = links.indexOf(document.activeElement);
  links[Math.max(0, Math.min(links.length - 1, at < 0 ? 0 : at + (event.key === "j" ? 1 : -1)))]?.focus();
});

window.addEventListener("hashchange", () => (/^#token=/.test(location.hash) ? (takeToken(), open()) : location.hash.startsWith("#/") && show()));
document.addEventListener("click", (event) => {
  if (event.target.closest("a.skip")) {
    event.preventDefault();
    $("#page").focus();
  }
});
takeToken();
if (sessionStorage.getItem(KEY)) open();
else lock();
