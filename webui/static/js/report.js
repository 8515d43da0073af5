// How an answer came about, in words and as a bar of its stages.

import { el } from "./dom.js";
import { count, milliseconds, number } from "./format.js";
import { bar, legend } from "./bars.js";

const STAGES = 9; // colours in the style sheet
const LEAST_MS = 0.05;

function completeness(report, narrowed) {
  if (report.complete && narrowed) return "Every image that fits was considered: nothing nearer fits.";
  if (report.complete) return "Every image was considered: nothing nearer exists in the collection.";
  if (report.radius < 0) return "Only the likeliest images were considered. Raise the effort to look further.";
  return (
    `Every image whose code differs in at most ${count(report.radius, "bit")} was considered. ` +
    "Raise the effort to look further."
  );
}

function fact(name, value) {
  return value === undefined || value === null ? [] : [el("dt", {}, name), el("dd", {}, value)];
}

function shards(report) {
  if (report.shards_asked === undefined) return undefined;
  return `${number(report.shards_answered)} of ${number(report.shards_asked)}`;
}

function facts(report) {
  const shown = (value) => (typeof value === "number" ? number(value) : value);
  return el(
    "dl",
    { class: "facts" },
    fact("Buckets probed", shown(report.buckets)),
    fact("Hamming radius", report.radius < 0 ? "none" : shown(report.radius)),
    fact("Candidates", shown(report.candidates)),
    fact("Re-ranked", shown(report.reranked)),
    fact("Near-duplicates folded", report.folded ? shown(report.folded) : null),
    fact("Shards answered", shards(report)),
    fact("Model", report.bundle),
  );
}

// "total" is the whole, and what the probes did happens at the same time inside of "fan_out":
// neither may be added to the stages that follow one another.
const ofProbes = (name) => name.startsWith("probe_");
const words = (name) => name.replace(/^probe_/, "").replaceAll("_", " ");

function stages(timings) {
  const inTurn = Object.entries(timings).filter(([name]) => name !== "total" && !ofProbes(name));
  const sum = inTurn.reduce((all, [, value]) => all + value, 0);
  const rest = (timings.total ?? sum) - sum;
  if (rest > 0) inTurn.push(["other", rest]);
  const seen = inTurn.filter(([, value]) => value >= LEAST_MS);
  return seen.map(([name, value], index) => ({ name: words(name), value, text: milliseconds(value), kind: `stage-${index % STAGES}` }));
}

function times(timings) {
  const parts = stages(timings);
  if (!parts.length) return null;
  const probes = Object.entries(timings).filter(([name]) => ofProbes(name));
  return [
    el("h3", {}, "Time ", el("span", { class: "quiet" }, milliseconds(parts.reduce((sum, part) => sum + part.value, 0)))),
    bar(parts, { label: parts.map((part) => `${part.name} ${part.text}`).join(", ") }),
    legend(parts),
    probes.length > 0 && el("p", { class: "quiet" }, `Inside the probes, added up: ${probes.map(([name, value]) => `${words(name)} ${milliseconds(value)}`).join(", ")}.`),
  ];
}

export function reportNode(report, { narrowed = false } = {}) {
  const open = matchMedia("(min-width: 60rem)").matches;
  return el(
    "details",
    { class: "report", open },
    el("summary", {}, "How this answer came about"),
    el("p", { class: report.complete ? "complete" : "" }, completeness(report, narrowed)),
    facts(report),
    times(report.timings_ms ?? {}),
  );
}
