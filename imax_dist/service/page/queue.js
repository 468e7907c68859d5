// The queue as cards; one card a job, changed in place so that focus and pictures stay.
import { ask, bytes, duration, element, get } from "./api.js";
import { say } from "./form.js";

const WORDS = { proofed: "proof to approve" };

export class Queue {
  constructor(look) {
    this.look = look;
    this.cards = new Map();
    this.jobs = [];
  }

  show(jobs) {
    this.jobs = jobs;
    const sheet = get("sheet-of-jobs");
    const known = new Set(jobs.map((job) => job.id));
    for (const [id, card] of this.cards) if (!known.has(id)) { card.node.remove(); this.cards.delete(id); }
    jobs.forEach((job, place) => {
      if (!this.cards.has(job.id)) this.cards.set(job.id, this.make(job.id));
      const card = this.cards.get(job.id);
      card.update(job);
      if (sheet.children[place] !== card.node) sheet.insertBefore(card.node, sheet.children[place] || null);
    });
    let nothing = get("nothing");
    if (!jobs.length && !nothing) sheet.append(element("p", { id: "nothing", className: "nothing", textContent: "No poster yet." }));
    if (jobs.length && nothing) nothing.remove();
  }

  make(id) {
    const picture = element("img", { alt: "", decoding: "async", hidden: true });
    const reason = element("span", { className: "reason" });
    const frame = element("button", { className: "frame", type: "button" }, reason, picture);
    const prompt = element("div", { className: "prompt" });
    const line = element("small");
    const bar = element("progress", { max: 1, hidden: true });
    const wrong = element("div", { className: "wrong" });
    const acts = element("div", { className: "acts" });
    const node = element("article", { className: "job" }, frame, element("div", { className: "text" }, prompt, line, bar, wrong, acts));
    node.dataset.id = id;
    frame.addEventListener("click", () => this.look(id));
    let offered = "";
    const update = (job) => {
      node.dataset.state = job.state;
      const url = job.state === "done" ? pictureOf(job) : job.preview;
      if (url && picture.getAttribute("src") !== url) picture.src = url;
      picture.hidden = !url;
      reason.textContent = url ? "" : WORDS[job.state] || job.state;
      frame.disabled = job.state !== "done";
      frame.setAttribute("aria-label", (job.state === "done" ? "Look at: " : "") + job.request.prompt);
      prompt.textContent = job.request.prompt;
      line.replaceChildren(element("span", { className: "state " + job.state, textContent: WORDS[job.state] || job.state }), " · " + describe(job));
      const progress = job.progress;
      bar.hidden = !(progress && progress.steps);
      if (progress && progress.steps) bar.value = progress.step / progress.steps;
      wrong.textContent = job.error ? job.error.message : "";
      const wanted = offers(job);
      if (offered !== wanted.join() ) {
        offered = wanted.join();
        acts.replaceChildren(...wanted.map((act) => button(act, job.id)));
      }
    };
    return { node, update };
  }
}

function pictureOf(job) {
  const shown = ["poster.png", "poster.jpg", "native.png"].map((name) => job.files.find((file) => file.name === name)).filter(Boolean);
  const small = shown.find((file) => file.bytes < 4e6) || shown[shown.length - 1];
  return small ? small.url : null;
}

function describe(job) {
  const request = job.request;
  const size = request.paper ? request.paper + (request.dpi ? " at " + request.dpi + " dpi" : "") : request.size || "";
  const parts = [size, "seed " + (request.seed || 0)];
  if (job.state === "queued") {
    if (job.place) parts.push("place " + job.place);
    if (job.starts_in_seconds > 0) parts.push("starts in about " + duration(job.starts_in_seconds));
    if (job.planned_seconds) parts.push("takes " + duration(job.planned_seconds));
  }
  if (job.progress) {
    if (job.progress.stage) parts.push(job.progress.stage + (job.progress.steps ? " " + job.progress.step + "/" + job.progress.steps : ""));
    if (job.progress.seconds_left > 0) parts.push("about " + duration(job.progress.seconds_left) + " left");
    if (job.cancelling) parts.push("stops after this step");
  }
  if (job.state === "done") parts.push(duration(job.seconds));
  return parts.filter(Boolean).join(" · ");
}

function offers(job) {
  if (job.state === "proofed") return ["approve", "cancel"];
  if (job.state === "queued" || (job.state === "running" && !job.cancelling)) return ["cancel"];
  if (job.state === "failed" || job.state === "cancelled") return ["retry"];
  return [];
}

const LABELS = { approve: "Approve", cancel: "Cancel", retry: "Try again" };

function button(act, id) {
  const made = element("button", { type: "button", textContent: LABELS[act] });
  made.dataset.act = act;
  made.addEventListener("click", async () => {
    made.disabled = true;
    const path = "/v1/images/jobs/" + id;
    try {
      await (act === "cancel" ? ask("DELETE", path) : ask("POST", path + "/" + act));
      document.dispatchEvent(new Event("changed"));
    } catch (error) {
      say(error.message, true);
      made.disabled = false;
    }
  });
  return made;
}

export function facts(poster, make) {
  const { request, files, seconds } = poster.job;
  const list = make("dl");
  const pairs = [["Size", request.size], ["Paper", request.paper], ["Seed", request.seed || 0], ["Model", request.model || "embedded"],
    ["Preset", request.preset], ["Time", duration(seconds)]];
  for (const [name, value] of pairs) {
    if (value !== undefined && value !== "") list.append(make("dt", { textContent: name }), make("dd", { textContent: value }));
  }
  const links = files.map((file) => make("p", {}, make("a", { href: file.url, download: file.name, textContent: file.name }), " " + bytes(file.bytes)));
  return [make("h2", { textContent: request.prompt }), list, ...links];
}
