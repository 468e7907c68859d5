// Calls of the service from its own page; the token is in a cookie that no script can read.

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function ask(method, path, body, type = "application/json") {
  const sent = { method, credentials: "same-origin", headers: {} };
  if (body !== undefined) {
    sent.headers["Content-Type"] = type;
    sent.body = type === "application/json" ? JSON.stringify(body) : body;
  }
  let answer;
  try {
    answer = await fetch(path, sent);
  } catch {
    throw new Refused(0, "The service does not answer.");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, told.error ? told.error.message : "The answer was " + answer.status + ".");
  return told;
}

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

export const get = (id) => document.getElementById(id);

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 90) return Math.max(1, Math.round(seconds)) + " s";
  if (seconds < 5400) return Math.round(seconds / 60) + " min";
  return (seconds / 3600).toFixed(1) + " h";
}

export function bytes(count) {
  if (count < 1e6) return Math.max(1, Math.round(count / 1e3)) + " kB";
  return (count / 1e6).toFixed(count < 1e7 ? 1 : 0) + " MB";
}

export function moment(text) {
  return new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}
