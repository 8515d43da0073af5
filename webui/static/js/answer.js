// What the search page shows of one search.

import { get } from "./api.js";
import { el, sourceNode } from "./dom.js";
import { count, milliseconds, number } from "./format.js";
import { describe, labelLine, originalLink, searchPath, sourceLine, thumbnail, thumbnailOf } from "./imagecard.js";

const MOST_ALIKE = 30;
const FINISHED = new Set(["done", "partial"]);

export const hasAnswer = (search) => FINISHED.has(search.state);

export function stateText(search) {
  if (search.state === "queued") return search.position ? `${count(search.position, "search", "searches")} ahead` : "next in line";
  if (!hasAnswer(search)) return "";
  const took = milliseconds((search.finished_at - search.created_at) * 1000);
  return `${count(search.total, "hit")} in ${took}`;
}

export function queryNode(query, image) {
  return el("figure", {}, image, el("figcaption", {}, el("span", { class: "quiet" }, "Searched with"), queryName(query)));
}

function queryName({ kind, label }) {
  if (kind === "url") return sourceNode(label);
  return kind === "image" ? storedName(label) : el("span", { class: "path" }, label);
}

// The id until the name is known; for good if the image has been deleted since.
function storedName(id) {
  const node = el("span", { class: "path", title: `Stored image ${id}` }, `stored image ${id.slice(0, 8)}…`);
  const named = (image) => (node.textContent = describe(image));
  get(`/images/${encodeURIComponent(id)}`).then(named, () => {});
  return node;
}

export function preview(source, whenLoaded = () => {}) {
  const image = el("img", { src: source, alt: "The image that was searched with" });
  image.addEventListener("load", whenLoaded, { once: true });
  image.addEventListener("error", () => (whenLoaded(), image.remove()), { once: true });
  return image;
}

export function filePreview(file) {
  const source = URL.createObjectURL(file);
  return preview(source, () => URL.revokeObjectURL(source));
}

// What is to be said about an answer that is not a plain one.
export function remarkOn(search) {
  if (search.error) return { ...search.error, tone: "bad" };
  if (search.state === "partial") {
    const why = search.report?.problem;
    return {
      tone: "warn",
      message: "This answer is incomplete: a part of the collection is missing from it.",
      remedy: why ? `${why.message} ${why.remedy}` : "Search again; if it stays so, look at the workers.",
    };
  }
  if (search.state === "expired") {
    return { tone: "plain", message: "The result of this search is no longer kept.", remedy: "Search again with the same image." };
  }
  if (search.state === "cancelled") return { tone: "plain", message: "This search was cancelled." };
  if (search.total > 0) return null;
  if (isNarrowed(search)) return { tone: "plain", message: "Nothing was found that fits the options.", remedy: "Ask for less under “More options”." };
  return { tone: "plain", message: "Nothing was found.", remedy: "The collection may be empty: add images on the jobs page." };
}

export const isNarrowed = ({ max_distance, labels, source, since, until }) =>
  max_distance !== null || labels.length > 0 || source !== "" || since !== null || until !== null;

// The pictures are read when they are looked at.
function alike({ duplicates }) {
  if (!duplicates.length) return null;
  const link = (id, index) => el("a", { href: searchPath(id), "aria-label": `Search with near-duplicate ${index + 1}` }, thumbnailOf(id));
  return el("details", { class: "alike" }, el("summary", {}, count(duplicates.length, "near-duplicate")), el("div", {}, duplicates.slice(0, MOST_ALIKE).map(link)));
}

export function hitCard(hit, onSearch) {
  const title = `distance ${hit.distance.toFixed(4)}, ${count(hit.hamming, "bit")} of the code differ`;
  const link = { class: "shot", href: searchPath(hit.id), title: "Search with this one", "aria-label": `Search with ${describe(hit)}` };
  const rank = el("span", { class: "sr" }, `Hit ${number(hit.rank)}, distance `);
  return el(
    "li",
    { class: "card" },
    el("a", { ...link, onclick: (event) => onSearch(event, hit.id) }, thumbnail(hit, "")),
    el("div", { class: "under" }, el("span", { class: "distance", title }, rank, hit.distance.toFixed(3)), originalLink(hit)),
    el("div", { class: "under quiet" }, sourceLine(hit)),
    labelLine(hit),
    alike(hit),
  );
}
