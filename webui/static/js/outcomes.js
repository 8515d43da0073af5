// A job's items by outcome: what was submitted is always the sum of the outcomes.

import { el } from "./dom.js";
import { number } from "./format.js";
import { bar, updateBar } from "./bars.js";

const OUTCOMES = ["indexed", "duplicate", "rejected", "failed", "cancelled", "pending"];

const partsOf = (counts) =>
  OUTCOMES.map((name) => ({ name, value: counts[name], text: number(counts[name]), kind: `outcome-${name}` }));

function words(counts) {
  const sum = partsOf(counts).map((part) => `${part.text} ${part.name}`);
  return { label: `${number(counts.submitted)} submitted: ${sum.join(", ")}`, total: counts.submitted };
}

export const outcomeBar = (counts) => bar(partsOf(counts), words(counts));

// The bar with its numbers; made once and updated in place, so that a button keeps the focus.
export function outcomeMeter(counts, onPick) {
  const track = outcomeBar(counts);
  const values = OUTCOMES.map(() => el("b", {}));
  const submitted = el("b", {});
  const terms = OUTCOMES.map((name, index) =>
    el(
      "li",
      {},
      el("span", { class: "sign", "aria-hidden": "true" }, index === 0 ? "=" : "+"),
      el("span", { class: `dot outcome-${name}` }),
      values[index],
      " ",
      el("button", { type: "button", class: "link", title: `Show the items that are ${name}`, onclick: () => onPick(name) }, name),
    ),
  );
  const node = el("div", {}, track, el("ul", { class: "legend" }, el("li", {}, submitted, " submitted"), terms));
  const update = (now) => {
    const parts = partsOf(now);
    updateBar(track, parts, words(now));
    submitted.textContent = number(now.submitted);
    parts.forEach((part, index) => (values[index].textContent = part.text));
  };
  update(counts);
  return { node, update };
}
