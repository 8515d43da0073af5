// What runs here: asked once for each page, and shown at its foot.

import { get } from "./api.js";
import { byId, el } from "./dom.js";
import { count } from "./format.js";

function show(status) {
  const parts = [
    `lookalike ${status.version}`,
    count(status.images, "image"),
    `model ${status.bundle}`,
    status.broker === "embedded" ? "workers in this process" : "workers on RabbitMQ",
  ];
  byId("footer").replaceChildren(...parts.map((part) => el("span", {}, part)));
}

export const status = get("/status");

status.then(show, (error) => {
  byId("footer").textContent = error.message;
});
