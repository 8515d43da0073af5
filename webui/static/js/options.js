// What may be asked of a search besides its image, and the part of the form that asks for it.

import { get } from "./api.js";
import { byId, el } from "./dom.js";
import { decimal, wholeNumber } from "./fields.js";
import { count, number } from "./format.js";

const MOST_LABELS = 40; // the most frequent ones
const chosen = new Set(); // labels

const midnight = (day, later = 0) => {
  const [year, month, date] = day.split("-").map(Number);
  return new Date(year, month - 1, date + later).getTime() / 1000;
};

function dayOf(seconds) {
  const at = new Date(seconds * 1000);
  return [at.getFullYear(), at.getMonth() + 1, at.getDate()].map((part) => String(part).padStart(2, "0")).join("-");
}

// Only what was filled in: what is left out asks for nothing.
function conditions() {
  const asked = {
    max_distance: decimal(byId("max-distance")),
    labels: chosen.size ? [...chosen] : null,
    source: byId("source").value.trim() || null,
    since: byId("since").value ? midnight(byId("since").value) : null,
    until: byId("until").value ? midnight(byId("until").value, 1) : null,
    collapse: byId("collapse").checked ? Number(byId("collapse").dataset.distance) : null,
  };
  return Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== null));
}

export const options = () => ({ k: wholeNumber(byId("k")), effort: byId("effort").valueAsNumber, ...conditions() });

// A form has a field several times where JSON has a list.
export function formOf(values) {
  const form = new FormData();
  for (const [name, value] of Object.entries(values)) for (const one of [value].flat()) form.append(name, one);
  return form;
}

// Fills the form with what a search was asked with.
export function showOptions(search) {
  byId("k").value = search.k;
  byId("effort").value = search.effort;
  byId("max-distance").value = search.max_distance ?? "";
  byId("source").value = search.source;
  byId("since").value = search.since === null ? "" : dayOf(search.since);
  byId("until").value = search.until === null ? "" : dayOf(search.until - 1);
  byId("collapse").checked = search.collapse !== null;
  chosen.clear();
  for (const label of search.labels) chosen.add(label);
  for (const box of byId("labels").querySelectorAll("input")) box.checked = chosen.has(box.value);
  showMore();
}

function showMore() {
  showEffort();
  const fields = ["max-distance", "source", "since", "until"].filter((id) => byId(id).value.trim());
  const used = fields.length + (chosen.size > 0) + byId("collapse").checked;
  byId("in-use").textContent = used ? `${number(used)} in use` : "";
}

function showEffort() {
  const input = byId("effort");
  const candidates = JSON.parse(input.dataset.candidates)[input.valueAsNumber - 1];
  byId("effort-value").textContent = input.value;
  byId("effort-help").textContent =
    candidates === null
      ? "Compares every image: the slowest, and sure to find the nearest."
      : `Compares the ${number(candidates)} likeliest images. More effort finds more and takes longer.`;
}

function labelBox({ label, images }) {
  const toggle = (event) => {
    if (event.target.checked) chosen.add(label);
    else chosen.delete(label);
  };
  const box = el("input", { type: "checkbox", value: label, checked: chosen.has(label), onchange: toggle });
  return el("label", { title: count(images, "image") }, box, el("span", {}, label));
}

async function readLabels() {
  const { labels } = await get("/labels").catch(() => ({ labels: [] }));
  byId("labels").append(...labels.slice(0, MOST_LABELS).map(labelBox));
  byId("labels").hidden = labels.length === 0;
}

export function startOptions() {
  byId("ask").addEventListener("input", showMore);
  byId("ask").addEventListener("change", showMore);
  showMore();
  readLabels();
}
