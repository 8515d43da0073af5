// The collection page: what is there, one image in detail, delete.

import { get, query, remove } from "./api.js";
import { byId, clear, el, showProblem, sourceNode } from "./dom.js";
import { bytes, count, moment } from "./format.js";
import { describe, labelLine, searchPath, thumbnail } from "./imagecard.js";

const PAGE = 60;
const dialog = byId("details");
let total = 0;

function card(image) {
  const open = () => showDetails(image);
  return el(
    "li",
    { class: "card", "data-id": image.id },
    el("button", { type: "button", class: "shot", "aria-label": `Details of ${describe(image)}`, onclick: open }, thumbnail(image, "")),
    el("div", { class: "under" }, el("span", { class: "path", title: image.sources.join("\n") }, describe(image)), el("a", { href: searchPath(image.id) }, "search")),
  );
}

function showCount() {
  byId("count").textContent = count(total, "image");
  byId("empty").hidden = total > 0;
}

async function read(before = null) {
  try {
    const page = await get(`/images${query({ limit: PAGE, before })}`);
    total = page.count;
    showCount();
    byId("images").append(...page.images.map(card));
    byId("more").hidden = page.next === null;
    byId("more").onclick = () => read(page.next);
    clear(byId("problem"));
  } catch (error) {
    showProblem(byId("problem"), error);
  }
}

function facts(image) {
  const rows = [
    ["Size", `${image.width_px} × ${image.height_px} pixels, ${bytes(image.size_bytes)}`],
    ["Format", image.format],
    ["Added", moment(image.added_at)],
    [image.sources.length > 1 ? "Sources" : "Source", image.sources.map((source) => el("div", {}, sourceNode(source)))],
    image.labels.length && ["Labels", labelLine(image)],
    ["Id", el("code", {}, image.id)],
  ];
  return rows.filter(Boolean).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
}

async function showDetails(listed) {
  clear(byId("details-problem"));
  fill(listed);
  dialog.showModal();
  try {
    fill(await get(`/images/${encodeURIComponent(listed.id)}`));
  } catch (error) {
    showProblem(byId("details-problem"), error);
  }
}

function fill(image) {
  byId("details-title").textContent = describe(image);
  byId("details-image").src = image.thumbnail_url;
  byId("details-link").href = image.original_url;
  byId("details-link").title = "Open the original";
  byId("details-link").setAttribute("aria-label", `Open the original of ${describe(image)}`);
  byId("details-facts").replaceChildren(...facts(image));
  offer(image);
}

function offer(image) {
  byId("details-actions").replaceChildren(
    el("a", { class: "button primary", href: searchPath(image.id) }, "Search with this one"),
    el("a", { class: "button", href: image.original_url, target: "_blank", rel: "noopener" }, "Open the original"),
    el("button", { type: "button", class: "danger", onclick: () => confirmDelete(image) }, "Delete"),
  );
}

function confirmDelete(image) {
  const keep = el("button", { type: "button", onclick: () => offer(image) }, "Keep it");
  byId("details-actions").replaceChildren(
    el("p", {}, "Delete this image from the collection? The file that it came from stays where it is."),
    el("button", { type: "button", class: "danger", onclick: () => deleteImage(image) }, "Yes, delete"),
    keep,
  );
  keep.focus();
}

async function deleteImage(image) {
  try {
    await remove(`/images/${encodeURIComponent(image.id)}`);
  } catch (error) {
    showProblem(byId("details-problem"), error);
    offer(image);
    return;
  }
  dialog.close();
  removeCard(image);
  total -= 1;
  showCount();
}

// The focus was on the card that goes; it moves to a neighbour, or to the heading after the last.
function removeCard(image) {
  const gone = byId("images").querySelector(`[data-id="${CSS.escape(image.id)}"]`);
  const neighbour = gone?.nextElementSibling ?? gone?.previousElementSibling;
  gone?.remove();
  (neighbour?.querySelector("button") ?? byId("title")).focus();
}

dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
read();
