// The jobs page: start a job, see all of them.

import { get, post, query, upload } from "./api.js";
import { badge, byId, clear, el, onFilesDropped, showProblem } from "./dom.js";
import { filled, wholeNumber } from "./fields.js";
import { isOpen, pause } from "./follow.js";
import { bytes, count, duration, moment } from "./format.js";
import { outcomeBar } from "./outcomes.js";

const PAGE = 20;
const REFRESH_MS = 1500;
const KINDS = { upload: "files", urls: "addresses", crawl: "crawl", folder: "files on the server" };

const NOTHING_CHOSEN = { message: "No images are chosen.", remedy: "Choose or drop image files; a whole folder has a link of its own." };

const form = byId("new");
let chosen = [];

// --- starting -----------------------------------------------------------------------------------

const kind = () => new FormData(form).get("kind");
const text = (id) => byId(id).value.trim();

const labels = () => text("labels").split(",").map((label) => label.trim()).filter(Boolean);

function showPanel() {
  for (const panel of form.querySelectorAll("[data-panel]")) panel.hidden = panel.dataset.panel !== kind();
  byId("go").hidden = kind() === "folder" && !byId("path"); // the panel says why, and what to do
}

function showChosen() {
  const total = chosen.reduce((sum, file) => sum + file.size, 0);
  byId("chosen").textContent = chosen.length ? `${count(chosen.length, "file")}, ${bytes(total)}` : "Choose images";
}

// Whatever is chosen is sent, also what cannot be an image: the job then says of each file why.
function choose(files, folders = []) {
  clear(byId("problem"));
  chosen = files;
  showChosen();
  form.elements.kind.value = "upload";
  showPanel();
  if (folders.length) showProblem(byId("problem"), leftAside(folders), "warn");
  else if (!chosen.length) showProblem(byId("problem"), NOTHING_CHOSEN);
}

const leftAside = (folders) => ({
  message: `Left aside, because a folder cannot be dropped: ${folders.join(", ")}.`,
  remedy: "Choose it with the link “Choose a whole folder”.",
});

// One request holds a limited number of files and bytes, so a large choice becomes several jobs.
function batches(files) {
  const { maxBytes, maxFiles } = form.dataset;
  const made = [];
  let current = [];
  let size = 0;
  for (const file of files) {
    if (current.length && (current.length >= Number(maxFiles) || size + file.size > Number(maxBytes) * 0.98)) {
      made.push(current);
      [current, size] = [[], 0];
    }
    current.push(file);
    size += file.size;
  }
  return current.length ? [...made, current] : made;
}

async function sendFiles() {
  if (!chosen.length) throw NOTHING_CHOSEN;
  const tooLarge = chosen.find((file) => file.size > Number(form.dataset.maxBytes));
  if (tooLarge) throw { message: `${tooLarge.name} has ${bytes(tooLarge.size)}.`, remedy: `The site takes ${bytes(Number(form.dataset.maxBytes))} at most.` };
  const all = batches(chosen);
  let job;
  for (const [index, files] of all.entries()) {
    const body = new FormData();
    const part = all.length > 1 ? ` (part ${index + 1} of ${all.length})` : "";
    body.append("label", (text("label") || count(chosen.length, "file")) + part);
    for (const label of labels()) body.append("labels", label);
    for (const file of files) body.append("files", file, file.name);
    job = await upload("/jobs", body, (done) => {
      byId("sending").textContent = `Sending ${Math.floor(100 * done)} %${part}`;
    });
  }
  return all.length > 1 ? null : job;
}

function jsonBody() {
  const common = { kind: kind(), labels: labels(), ...(text("label") && { label: text("label") }) };
  if (common.kind === "urls") return { ...common, urls: filled(byId("urls")).split(/\s+/).filter(Boolean) };
  if (common.kind === "folder") return { ...common, path: filled(byId("path")) };
  const limits = { max_depth: wholeNumber(byId("depth")), max_pages: wholeNumber(byId("max-pages")) };
  return { ...common, seed: filled(byId("seed")), ...limits };
}

async function start(event) {
  event.preventDefault();
  clear(byId("problem"));
  const button = form.querySelector("button[type=submit]");
  button.disabled = true;
  try {
    const job = kind() === "upload" ? await sendFiles() : await post("/jobs", jsonBody());
    if (job) {
      location.assign(`/jobs/${encodeURIComponent(job.id)}`);
      return;
    }
    chosen = [];
    showChosen();
    await refresh();
  } catch (error) {
    showProblem(byId("problem"), error);
    error.field?.focus();
  } finally {
    button.disabled = false;
    clear(byId("sending"));
  }
}

// --- listing ------------------------------------------------------------------------------------

function jobRow(job) {
  const eta = isOpen(job) && job.eta_s !== null ? ` · ${duration(job.eta_s)} left` : "";
  const bad = job.counts.rejected + job.counts.failed;
  return el(
    "li",
    {},
    el(
      "a",
      { class: "job", href: `/jobs/${encodeURIComponent(job.id)}` },
      el("span", { class: "name" }, job.label || job.id),
      badge(job.state),
      el("span", { class: "quiet what" }, `${KINDS[job.kind]} · ${moment(job.created_at)} · ${count(job.counts.submitted, "item")}${eta}`, bad > 0 && el("span", { class: "bad" }, ` · ${count(bad, "problem")}`)),
      outcomeBar(job.counts),
    ),
  );
}

let rows = PAGE;
let jobs = [];

function showList() {
  const focused = document.activeElement?.closest("a.job")?.getAttribute("href");
  byId("list").replaceChildren(...jobs.map(jobRow));
  if (focused) byId("list").querySelector(`[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

async function refresh() {
  try {
    const page = await get(`/jobs${query({ limit: rows })}`);
    jobs = page.jobs;
    showList();
    byId("none").hidden = jobs.length > 0;
    byId("more").hidden = page.next === null;
    clear(byId("list-problem"));
  } catch (error) {
    showProblem(byId("list-problem"), error);
  }
}

async function keepFresh() {
  for (;;) {
    if (!document.hidden) await refresh();
    await pause(jobs.some(isOpen) ? REFRESH_MS : 4 * REFRESH_MS);
  }
}

form.addEventListener("submit", start);
for (const radio of form.elements.kind) radio.addEventListener("change", () => (clear(byId("problem")), showPanel()));
for (const id of ["files", "folder-files"]) {
  byId(id).addEventListener("change", (event) => {
    choose([...event.target.files]);
    event.target.value = ""; // so that the same choice can be made again
  });
}
byId("more").addEventListener("click", () => {
  rows += PAGE;
  refresh();
});
onFilesDropped(choose, byId("drop"));
showPanel();
keepFresh();
