// Building of elements. Data only ever becomes text or attributes, never markup.

export const byId = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value === "boolean") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const clear = (element) => element.replaceChildren();

// tone: "bad" for what went wrong, "warn" for what is doubtful, "plain" for what was wanted.
export function showProblem(where, problem, tone = "bad") {
  where.replaceChildren(el("div", { class: `problem tone-${tone}` }, el("p", {}, el("strong", {}, problem.message)), problem.remedy && el("p", {}, problem.remedy)));
}

export const badge = (state) => el("span", { class: `badge ${state}` }, state);

export function isPage(source) {
  try {
    return ["http:", "https:"].includes(new URL(source).protocol);
  } catch {
    return false;
  }
}

// Addresses from outside become links only when they lead to a page; the rest is shown as text.
export function sourceNode(source) {
  if (!isPage(source)) return el("span", { class: "path" }, source);
  return el("a", { class: "path", href: source, target: "_blank", rel: "noopener noreferrer nofollow" }, source);
}

export function onFilesDropped(accept, mark) {
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  let depth = 0;
  const enter = (step) => (event) => {
    if (!carriesFiles(event)) return;
    depth += step;
    mark.classList.toggle("over", depth > 0);
  };
  document.addEventListener("dragenter", enter(1));
  document.addEventListener("dragleave", enter(-1));
  document.addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    depth = 0;
    mark.classList.remove("over");
    const { files, folders } = dropped(event.dataTransfer);
    accept(files, folders);
  });
}

// A dropped folder looks like a file that cannot be read; of it only the name is of use.
function dropped(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const isFolder = (item) => Boolean(item.webkitGetAsEntry?.()?.isDirectory);
  return {
    files: items.filter((item) => !isFolder(item)).map((item) => item.getAsFile()),
    folders: items.filter(isFolder).map((item) => item.getAsFile()?.name ?? "a folder"),
  };
}
