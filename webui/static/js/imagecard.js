// An image in a grid.

import { el, sourceNode } from "./dom.js";
import { shortName } from "./format.js";

export const searchPath = (id) => `/?${new URLSearchParams({ image: id })}`;

export function describe(image) {
  return image.sources.length ? shortName(image.sources[0]) : image.id;
}

export function thumbnail(image, alt = describe(image)) {
  const picture = el("img", { src: image.thumbnail_url, alt, loading: "lazy", decoding: "async" });
  picture.addEventListener("error", () => picture.classList.add("missing"), { once: true });
  return picture;
}

export const thumbnailOf = (id) => thumbnail({ thumbnail_url: `/api/v1/images/${encodeURIComponent(id)}/thumbnail` }, "");

export function labelLine({ labels }) {
  return labels.length > 0 && el("div", { class: "labels" }, labels.map((label) => el("span", { class: "tag" }, label)));
}

export function sourceLine(image) {
  const [first, ...others] = image.sources;
  if (!first) return null;
  const node = sourceNode(first);
  node.title = image.sources.join("\n");
  node.textContent = shortName(first);
  return others.length ? el("span", { class: "sources" }, node, ` +${others.length}`) : node;
}

export function originalLink(image) {
  const title = `${image.format}, ${image.width_px} × ${image.height_px} pixels`;
  return el("a", { href: image.original_url, target: "_blank", rel: "noopener", title }, "original");
}
