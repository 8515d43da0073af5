// Follows something that changes on the server until it is finished.

import { get, query } from "./api.js";

const PAUSE_MS = 400;
const RETRY_MS = 2000;
const OPEN_STATES = new Set(["queued", "running"]);

export const isOpen = (thing) => OPEN_STATES.has(thing.state);

export function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

// Yields each state that is heard of. The server may answer at once when too many wait already,
// so there is always a pause between two questions. Who knows nothing yet asks "atOnce" first.
export async function* follow(path, { wait, atOnce = false, params = {}, signal, onTrouble }) {
  for (let first = atOnce; ; first = false) {
    let thing;
    try {
      thing = await get(path + query({ ...params, wait: first ? null : wait }), signal);
    } catch (error) {
      if (signal?.aborted) return;
      if (error.status !== 0 && error.status !== 503) throw error;
      onTrouble?.(error);
      await pause(RETRY_MS, signal);
      if (signal?.aborted) return;
      continue;
    }
    if (signal?.aborted) return;
    yield thing;
    if (!isOpen(thing)) return;
    if (!first) await pause(PAUSE_MS, signal);
    if (signal?.aborted) return;
  }
}
