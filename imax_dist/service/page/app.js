// The page: sign in, order, follow the queue, look at what is done.
import { ask, get } from "./api.js";
import { setUpForm } from "./form.js";
import { Queue, facts } from "./queue.js";

const SOON_MS = 1000, LATER_MS = 5000, PAGE = 60;
let shown = PAGE;
let timer = 0;
const queue = new Queue((id) => { location.hash = id; });
const viewer = window.makePosterViewer({ facts, step, leave });

async function enter() {
  try {
    const session = await ask("GET", "/session");
    get("enter").hidden = true;
    get("main").hidden = false;
    get("leave").hidden = !session.tokens;
    if (!get("model").options.length) setUpForm(session, refresh);
    await refresh();
    await route();
  } catch (error) {
    if (error.status !== 401) { get("summary").textContent = error.message; setTimeout(enter, LATER_MS); return; }
    get("main").hidden = true;
    get("leave").hidden = true;
    get("enter").hidden = false;
    get("token").focus();
  }
}

get("enter").addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = get("enter").querySelector(".wrong");
  try {
    await ask("POST", "/session", { token: get("token").value });
    said.textContent = get("token").value = "";
    await enter();
  } catch (error) {
    said.textContent = error.message;
  }
});
get("leave").addEventListener("click", async () => { await ask("DELETE", "/session"); location.reload(); });

async function refresh() {
  clearTimeout(timer);
  let moving = false;
  try {
    const state = get("state").value;
    const query = "limit=" + Math.min(shown, 200) + (state ? "&state=" + state : "");
    const [page, all] = await Promise.all([ask("GET", "/v1/images/jobs?" + query), ask("GET", "/v1/queue")]);
    queue.show(page.data);
    get("more").hidden = page.next === null || shown >= 200;
    const counts = Object.entries(all.states).map(([name, count]) => count + " " + name);
    get("summary").textContent = counts.join(", ") || "nothing yet";
    moving = Boolean(all.states.queued || all.states.running);
  } catch (error) {
    get("summary").textContent = error.message;
    if (error.status === 401) { enter(); return; }
  }
  timer = setTimeout(refresh, moving && !document.hidden ? SOON_MS : LATER_MS);
}

// ---- the viewer
const done = () => queue.jobs.filter((job) => job.state === "done");
function step(by) {
  const ids = done().map((job) => job.id);
  const at = ids.indexOf(location.hash.slice(1));
  if (ids.length) location.hash = ids[(at + by + ids.length) % ids.length];
}
function leave() {
  const last = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  route();
  const card = [...document.querySelectorAll(".job")].find((node) => node.dataset.id === last);
  if (card) card.querySelector(".frame").focus();
}
async function route() {
  const id = location.hash.slice(1);
  if (!id) { viewer.close(); document.title = "Posters"; return; }
  try {
    const path = "/v1/images/jobs/" + encodeURIComponent(id);
    const [job, { layers }] = await Promise.all([ask("GET", path), ask("GET", path + "/layers")]);
    if (location.hash.slice(1) !== id) return;
    viewer.show({ id: job.request.prompt, layers, job });
    document.title = job.request.prompt + " – Posters";
  } catch (error) {
    get("summary").textContent = error.message;
    history.replaceState(null, "", location.pathname);
  }
}

window.addEventListener("hashchange", route);
document.addEventListener("changed", refresh);
document.addEventListener("visibilitychange", () => { if (!document.hidden && !get("main").hidden) refresh(); });
get("state").addEventListener("change", refresh);
get("more").addEventListener("click", () => { shown += PAGE; refresh(); });
enter();
