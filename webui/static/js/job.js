// The page of one job: live counts, every item with its outcome, cancel.

import { get, post, query } from "./api.js";
import { badge, byId, clear, el, showProblem, sourceNode } from "./dom.js";
import { follow, isOpen } from "./follow.js";
import { count, duration, moment, number, rate } from "./format.js";
import { searchPath } from "./imagecard.js";
import { outcomeMeter } from "./outcomes.js";

const WAIT_S = 1;
const PAGE = 100;
const ITEMS_EVERY_MS = 3000;
const KINDS = { upload: "Uploaded files", urls: "List of addresses", crawl: "Crawl", folder: "Files on the server" };

const path = `/jobs/${encodeURIComponent(byId("job").dataset.id)}`;
const filter = byId("filter");
let meter = null;
let read = { at: -Infinity, counts: "" }; // when the list of items was last read, and the counts then

// --- progress -----------------------------------------------------------------------------------

function facts(job) {
  const end = job.finished_at ?? Date.now() / 1000;
  const took = job.started_at && `${job.finished_at ? "took" : "for"} ${duration(Math.max(0, end - job.started_at))}`;
  const labels = job.labels.length > 0 && `labelled ${job.labels.join(", ")}`;
  return [KINDS[job.kind], `asked ${moment(job.created_at)}`, took, labels].filter(Boolean).join(" · ");
}

function pace(job) {
  const parts = [];
  if (job.rate_per_s) parts.push(rate(job.rate_per_s));
  if (isOpen(job)) parts.push(job.eta_s === null ? (job.listing_done ? "" : "still listing") : `about ${duration(job.eta_s)} left`);
  if (job.pages) parts.push(Object.entries(job.pages).map(([state, pages]) => `${count(pages, "page")} ${state}`).join(", "));
  return parts.filter(Boolean).join(" · ");
}

function percent(counts) {
  return counts.submitted ? Math.floor((100 * (counts.submitted - counts.pending)) / counts.submitted) : 0;
}

function pick(state) {
  filter.value = state;
  readItems();
}

function showProgress(job) {
  if (!meter) {
    meter = outcomeMeter(job.counts, pick);
    byId("progress").append(el("p", { class: "big" }, el("span", { id: "percent" }), el("span", { class: "quiet", id: "pace" })), meter.node);
    byId("progress").hidden = false;
  }
  byId("percent").textContent = `${percent(job.counts)} %`;
  byId("pace").textContent = pace(job);
  meter.update(job.counts);
}

function show(job) {
  document.title = `${isOpen(job) ? `${percent(job.counts)} % · ` : ""}${job.label} · lookalike`;
  byId("label").textContent = job.label || job.id;
  if (byId("state").textContent !== job.state) byId("state").replaceChildren(badge(job.state));
  byId("facts").textContent = facts(job);
  byId("cancel").hidden = !isOpen(job);
  showProgress(job);
  if (job.error) showProblem(byId("problem"), job.error);
  else if (job.trouble && isOpen(job)) showProblem(byId("problem"), job.trouble, "warn");
  else clear(byId("problem"));
}

// --- items --------------------------------------------------------------------------------------

function itemRow(item) {
  return el(
    "li",
    {},
    badge(item.state),
    el("span", { class: "grow" }, sourceNode(item.source), item.problem && reason(item)),
    item.image_id && el("a", { href: searchPath(item.image_id) }, "search with it"),
  );
}

function reason(item) {
  const tries = item.attempts > 1 ? ` (${count(item.attempts, "attempt")})` : "";
  return el("span", { class: "reason" }, el("b", {}, item.problem.message), " ", item.problem.remedy, el("code", {}, item.problem.code), tries);
}

async function readItems(after = null) {
  byId("items-section").hidden = false;
  try {
    const page = await get(`${path}/items${query({ state: filter.value, limit: PAGE, after })}`);
    if (after === null) clear(byId("items"));
    byId("items").append(...page.items.map(itemRow));
    byId("no-items").hidden = byId("items").childElementCount > 0;
    byId("more").hidden = page.next === null;
    byId("more").onclick = () => readItems(page.next);
  } catch (error) {
    showProblem(byId("problem"), error);
  }
}

// Whoever reads, points at or is about to click something is not disturbed by a new list.
function itemsAreStale(job) {
  const list = byId("items");
  const counts = JSON.stringify(job.counts);
  if (counts === read.counts) return false;
  const busy = list.childElementCount > PAGE || list.matches(":hover, :focus-within");
  if (isOpen(job) && (busy || performance.now() - read.at < ITEMS_EVERY_MS)) return false;
  read = { at: performance.now(), counts };
  return true;
}

// --- life ---------------------------------------------------------------------------------------

async function cancel() {
  byId("cancel").disabled = true;
  try {
    show(await post(`${path}/cancel`, {}));
  } catch (error) {
    showProblem(byId("problem"), error);
  } finally {
    byId("cancel").disabled = false;
  }
}

async function watch() {
  const onTrouble = (error) => showProblem(byId("problem"), { message: error.message, remedy: "It is tried again by itself." });
  try {
    for await (const job of follow(path, { wait: WAIT_S, atOnce: true, onTrouble })) {
      show(job);
      if (itemsAreStale(job)) await readItems();
    }
  } catch (error) {
    byId("label").textContent = "No such job";
    showProblem(byId("problem"), error);
  }
}

byId("cancel").addEventListener("click", cancel);
filter.addEventListener("change", () => readItems());
watch();
