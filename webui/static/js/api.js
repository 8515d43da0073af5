// Calls of the JSON API. Whatever goes wrong arrives as one kind of error.

const PREFIX = "/api/v1";

export class ApiError extends Error {
  constructor({ code, message, remedy, status }) {
    super(message);
    this.code = code;
    this.remedy = remedy;
    this.status = status;
  }
}

function unreachable() {
  return new ApiError({
    code: "unreachable",
    message: "The server cannot be reached.",
    remedy: "Check that it still runs and that you are connected to it, then try again.",
    status: 0,
  });
}

function failure(status, text) {
  try {
    return new ApiError(JSON.parse(text).error);
  } catch {
    return new ApiError({
      code: "unreadable",
      message: `The server answered with status ${status} and no explanation.`,
      remedy: "If there is a proxy in between, its log may say why.",
      status,
    });
  }
}

async function call(method, path, { body, signal } = {}) {
  const headers = { Accept: "application/json" };
  if (typeof body === "string") headers["Content-Type"] = "application/json";
  let response, text;
  try {
    response = await fetch(PREFIX + path, { method, headers, body, signal });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
  if (!response.ok) throw failure(response.status, text);
  return text ? JSON.parse(text) : null;
}

export const get = (path, signal) => call("GET", path, { signal });
export const post = (path, value, signal) =>
  call("POST", path, { body: value instanceof FormData ? value : JSON.stringify(value), signal });
export const remove = (path, signal) => call("DELETE", path, { signal });

export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

// fetch does not tell how much of a body has been sent; XMLHttpRequest does.
export function upload(path, form, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", PREFIX + path);
    request.setRequestHeader("Accept", "application/json");
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onerror = () => reject(unreachable());
    request.onload = () =>
      request.status < 400 ? resolve(JSON.parse(request.responseText)) : reject(failure(request.status, request.responseText));
    request.send(form);
  });
}
