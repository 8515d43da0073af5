// A bar made of parts, with its legend: time by stage, or items by outcome.

import { el } from "./dom.js";

// parts: [{ name, value, text, kind }]
export function bar(parts, { label, total }) {
  const track = el("div", { class: "bar", role: "img" });
  track.append(...parts.map((part) => el("span", { class: `piece ${part.kind}` })));
  updateBar(track, parts, { label, total });
  return track;
}

// In place, so that the pieces grow instead of jumping.
export function updateBar(track, parts, { label, total }) {
  const sum = total ?? parts.reduce((all, part) => all + part.value, 0);
  track.setAttribute("aria-label", label);
  parts.forEach((part, index) => {
    const piece = track.children[index];
    piece.hidden = part.value <= 0;
    piece.title = `${part.name}: ${part.text}`;
    piece.style.flexGrow = sum > 0 ? part.value / sum : 0;
  });
}

export function legend(parts) {
  return el(
    "ul",
    { class: "legend" },
    parts.map((part) => el("li", {}, el("span", { class: `dot ${part.kind}` }), `${part.name} `, el("b", {}, part.text))),
  );
}
