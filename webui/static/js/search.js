// The search page: ask, follow the ticket, show the answer.

import { get, post, query, remove } from "./api.js";
import { filePreview, hasAnswer, hitCard, isNarrowed, preview, queryNode, remarkOn, stateText } from "./answer.js";
import { badge, byId, clear, el, isPage, onFilesDropped, showProblem } from "./dom.js";
import { follow, isOpen } from "./follow.js";
import { bytes, count, duration, moment, number } from "./format.js";
import { formOf, options, showOptions, startOptions } from "./options.js";
import { reportNode } from "./report.js";
import { status } from "./status.js";

const WAIT_S = 2;
const PAGE = 24; // hits
const TICK_MS = 100;
const TEXT_FIELDS = "input:not([type=range], [type=file]), textarea";

const files = new Map(); // ticket -> File, to search again with other options
let shown = null; // the search on the page
let controller = new AbortController();

const wide = matchMedia("(min-width: 60rem)"); // the style sheet shows the options there

// --- asking -------------------------------------------------------------------------------------

function bodyOf(asked) {
  if (!asked.file) return { ...asked, ...options() };
  const form = formOf(options());
  form.append("file", asked.file, asked.file.name || "pasted image");
  return form;
}

function begin() {
  if (!wide.matches) for (const id of ["options", "more-options"]) byId(id).open = false;
  controller.abort();
  controller = new AbortController();
  for (const id of ["problem", "hits", "report", "actions", "state", "query"]) clear(byId(id));
  byId("pager").hidden = true;
  shown = null;
  byId("answer").hidden = false;
  document.body.classList.add("answered");
  return controller.signal;
}

async function ask(asked, { replace = false } = {}) {
  const signal = begin();
  showQuery({ label: asked.file?.name ?? asked.url ?? "" }, asked.file && filePreview(asked.file));
  setState("sending");
  let search;
  try {
    search = await post("/searches", bodyOf(asked), signal);
  } catch (error) {
    if (!signal.aborted) fail(error);
    if (error.field) error.field.closest("details").open = true;
    error.field?.focus();
    return;
  }
  if (asked.file) files.set(search.ticket, asked.file);
  const address = `/?${new URLSearchParams({ ticket: search.ticket })}`;
  history[replace ? "replaceState" : "pushState"]({}, "", address);
  show(search);
  followTicket(search.ticket, signal);
}

async function followTicket(ticket, signal, { atOnce = false, refill = false } = {}) {
  const path = pathOf(ticket);
  const params = { offset: offsetAsked(), limit: PAGE };
  const onTrouble = (error) => showProblem(byId("problem"), { message: error.message, remedy: "It is tried again by itself." });
  try {
    for await (const search of follow(path, { wait: WAIT_S, atOnce, params, signal, onTrouble })) {
      clear(byId("problem"));
      if (refill && shown === null) showOptions(search);
      show(search);
    }
  } catch (error) {
    if (!signal.aborted) fail(error);
  }
}

const pathOf = (ticket) => `/searches/${encodeURIComponent(ticket)}`;

function offsetAsked() {
  const offset = Number(new URLSearchParams(location.search).get("offset"));
  return Number.isSafeInteger(offset) && offset > 0 ? offset : 0;
}

async function cancel(ticket) {
  try {
    show(await remove(pathOf(ticket)));
  } catch (error) {
    showProblem(byId("problem"), error);
  }
}

// --- showing ------------------------------------------------------------------------------------

function fail(error) {
  stopClock();
  shown = null;
  setState(error.code === "unknown_ticket" ? "unknown" : "failed");
  clear(byId("actions"));
  showProblem(byId("problem"), error);
}

function show(search) {
  const changed = shown?.state !== search.state;
  const known = shown !== null;
  shown = search;
  setState(search.state, stateText(search));
  if (!changed) return; // a button that is about to be pressed stays where it is
  if (!known || !files.has(search.ticket)) showQuery(search.query, queryImage(search));
  byId("actions").replaceChildren(...actionsFor(search));
  if (!isOpen(search)) showOutcome(search);
}

function showQuery(query, image) {
  byId("query").replaceChildren(queryNode(query, image));
}

let clock = null;

function setState(state, text = "") {
  const open = ["sending", "queued", "running"].includes(state);
  const line = el("p", { class: "state" }, badge(state), text && el("span", {}, text));
  // The same again would be read out again.
  if (byId("state").textContent !== line.textContent) byId("state").replaceChildren(line);
  byId("answer").setAttribute("aria-busy", String(open));
  document.body.classList.toggle("busy", open);
  if (open) startClock();
  else stopClock();
}

// The clock is outside of the live region: a screen reader should not read every tenth of a second.
function startClock() {
  clock ??= { since: performance.now(), timer: setInterval(tick, TICK_MS) };
  tick();
}

function tick() {
  byId("elapsed").textContent = duration((performance.now() - clock.since) / 1000);
}

function stopClock() {
  if (clock) clearInterval(clock.timer);
  clock = null;
  byId("elapsed").textContent = "";
}

// The file that was chosen is at hand at once; the server has a small copy once it has decoded it.
function queryImage(search) {
  if (files.has(search.ticket)) return filePreview(files.get(search.ticket));
  if (search.query.image_id) return preview(`/api/v1/images/${encodeURIComponent(search.query.image_id)}/thumbnail`);
  return hasAnswer(search) ? preview(`/api/v1${pathOf(search.ticket)}/thumbnail`) : null;
}

function actionsFor(search) {
  if (isOpen(search)) return [el("button", { type: "button", class: "danger", onclick: () => cancel(search.ticket) }, "Cancel")];
  const again = askedIn(search);
  return [
    again && el("button", { type: "button", onclick: () => ask(again) }, "Search again"),
    hasAnswer(search) && el("button", { type: "button", onclick: copyLink }, "Copy the link"),
  ].filter(Boolean);
}

function askedIn(search) {
  if (files.has(search.ticket)) return { file: files.get(search.ticket) };
  if (search.query.image_id) return { image_id: search.query.image_id };
  return search.query.kind === "url" ? { url: search.query.label } : null;
}

async function copyLink(event) {
  const button = event.currentTarget;
  try {
    await navigator.clipboard.writeText(location.href);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Copy it from the address bar";
  }
}

function showOutcome(search) {
  if (search.report) byId("report").replaceChildren(reportNode(search.report, { narrowed: isNarrowed(search) }));
  showHits(search);
  const remark = remarkOn(search);
  if (remark) showProblem(byId("problem"), remark, remark.tone);
  if (hasAnswer(search)) byId("report").append(el("p", { class: "quiet" }, `Kept until ${moment(search.expires_at)}.`));
}

function showHits({ ticket, hits, offset, total }) {
  const here = hits.slice(0, PAGE);
  const last = offset + here.length;
  byId("hits").start = offset + 1;
  byId("hits").replaceChildren(...here.map((hit) => hitCard(hit, searchWith)));
  byId("pager").hidden = total <= PAGE && offset === 0;
  byId("shown").textContent = here.length ? `${number(offset + 1)} to ${number(last)} of ${count(total, "hit")}` : count(total, "hit");
  byId("previous").disabled = offset === 0;
  byId("previous").onclick = () => turn(ticket, Math.max(0, Math.min(offset, total) - PAGE));
  byId("next").disabled = last >= total;
  byId("next").onclick = () => turn(ticket, last);
}

async function turn(ticket, offset) {
  try {
    const search = await get(pathOf(ticket) + query({ offset, limit: PAGE }), controller.signal);
    history.pushState({}, "", `/${query({ ticket, offset: offset || null })}`);
    clear(byId("problem"));
    if (hasAnswer(search)) showHits(search);
    else show(search); // it has expired since
    byId("hits").focus({ preventScroll: true });
    byId("hits").scrollIntoView({ block: "start" });
  } catch (error) {
    if (error.name !== "AbortError") showProblem(byId("problem"), error);
  }
}

function searchWith(event, imageId) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
  event.preventDefault();
  scrollTo({ top: 0 });
  ask({ image_id: imageId });
}

// --- the form -----------------------------------------------------------------------------------

function askWithFiles(chosen, folders = []) {
  const image = chosen.find((file) => file.type.startsWith("image/")) ?? chosen[0];
  if (!image) {
    if (!folders.length) return;
    begin();
    fail({ message: `${folders[0]} is a folder.`, remedy: "Search with one image; add folders on the jobs page." });
    return;
  }
  const most = Number(byId("ask").dataset.maxBytes);
  if (image.size <= most) {
    ask({ file: image });
    return;
  }
  begin();
  fail({ message: `${image.name} has ${bytes(image.size)}.`, remedy: `The site takes images of ${bytes(most)} at most.` });
}

function paste(event) {
  const pasted = [...event.clipboardData.files];
  const text = event.clipboardData.getData("text/plain").trim();
  const isAddress = isPage(text) && !/\s/.test(text) && !event.target.matches?.(TEXT_FIELDS);
  if (!pasted.length && !isAddress) return;
  event.preventDefault();
  if (pasted.length) {
    askWithFiles(pasted);
    return;
  }
  byId("url").value = text;
  ask({ url: text });
}

function listen() {
  byId("file").addEventListener("change", (event) => {
    askWithFiles([...event.target.files]);
    event.target.value = ""; // so that the same file can be chosen again
  });
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const url = byId("url").value.trim();
    if (url) ask({ url });
    else byId("url").focus();
  });
  document.addEventListener("paste", paste);
  onFilesDropped(askWithFiles, byId("drop"));
  addEventListener("popstate", open);
  wide.addEventListener("change", () => wide.matches && (byId("options").open = true));
}

function reset() {
  controller.abort();
  stopClock();
  shown = null;
  byId("answer").hidden = true;
  document.body.classList.remove("answered", "busy");
}

function open() {
  const address = new URLSearchParams(location.search);
  if (address.get("image")) ask({ image_id: address.get("image") }, { replace: true });
  else if (address.get("ticket")) followTicket(address.get("ticket"), begin(), { atOnce: true, refill: true });
  else reset();
}

async function tellIfEmpty() {
  const { images } = await status.catch(() => ({ images: null }));
  byId("empty").hidden = images !== 0;
}

startOptions();
listen();
open();
tellIfEmpty();
