// The page: sign in, order, follow the queue, look at what is done.
import { ask, get, moment } from "./api.js";
import { setUpForm } from "./form.js";
import { Queue, facts } from "./queue.js";

const SOON_MS = 1000, LATER_MS = 5000, PAGE = 60;
let timer = 0;
let next = null;
let turning = false;
const queue = new Queue(look);
const viewer = window.makePosterViewer({ facts, step, leave });

async function enter() {
  try {
    const session = await ask("GET", "/session");
    get("enter").hidden = true;
    get("main").hidden = false;
    get("leave").hidden = !session.tokens;
    if (!get("model").options.length) setUpForm(session, () => (where().after ? go({ state: where().state }) : refresh()));
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

// ---- which jobs: state and the cursor of a page of older ones stand in the address
const where = () => {
  const query = new URLSearchParams(location.search);
  return { state: query.get("state") || "", after: query.get("after") || "" };
};
const passed = () => (history.state && history.state.passed) || [];  // cursors of the pages before this one

function go(place, before = []) {
  const query = new URLSearchParams(Object.entries(place).filter(([, value]) => value)).toString();
  history.pushState({ passed: before }, "", location.pathname + (query ? "?" + query : ""));
  return refresh();
}

async function turn(place, before) {
  if (turning) return;
  turning = true;
  get("main").setAttribute("aria-busy", "true");
  await go(place, before);
  get("main").removeAttribute("aria-busy");
  turning = false;
  get("sheet-of-jobs").scrollIntoView();
  for (const name of ["older", "newer"]) if (document.activeElement === document.body && !get(name).hidden) get(name).focus({ preventScroll: true });
}

function look(id) {
  history.pushState(history.state, "", location.search + "#" + id);
  route();
}

async function refresh() {
  clearTimeout(timer);
  let moving = false;
  const asked = location.search;
  const { state, after } = where();
  get("state").value = state;
  const query = new URLSearchParams({ limit: PAGE, ...(state && { state }), ...(after && { after }) });
  try {
    const [page, all] = await Promise.all([ask("GET", "/v1/images/jobs?" + query), ask("GET", "/v1/queue")]);
    if (location.search !== asked) return;
    queue.show(page.data);
    next = page.next;
    get("older").hidden = next === null;
    get("newer").hidden = !after;
    get("span").textContent = after || next !== null ? span(page.data) : "";
    const counts = Object.entries(all.states).map(([name, count]) => count.toLocaleString("en") + " " + name);
    get("summary").textContent = counts.join(", ") || "nothing yet";
    moving = Boolean(all.states.queued || all.states.running);
  } catch (error) {
    get("summary").textContent = error.message;
    if (error.status === 401) { enter(); return; }
  }
  timer = setTimeout(refresh, moving && !document.hidden ? SOON_MS : LATER_MS);
}

function span(jobs) {
  const [newest, oldest] = [jobs[0], jobs[jobs.length - 1]].map((job) => job ? moment(job.created) : "");
  return newest === oldest ? newest : oldest + " to " + newest;
}

// ---- the viewer
const done = () => queue.jobs.filter((job) => job.state === "done");
function step(by) {
  const ids = done().map((job) => job.id);
  const at = ids.indexOf(location.hash.slice(1));
  if (ids.length) look(ids[(at + by + ids.length) % ids.length]);
}
function leave() {
  const last = location.hash.slice(1);
  history.replaceState(history.state, "", location.pathname + location.search);
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
    history.replaceState(history.state, "", location.pathname + location.search);
  }
}

window.addEventListener("hashchange", route);
document.addEventListener("changed", refresh);
document.addEventListener("visibilitychange", () => { if (!document.hidden && !get("main").hidden) refresh(); });
window.addEventListener("popstate", () => { if (!get("main").hidden) refresh(); });
get("state").addEventListener("change", () => go({ state: get("state").value }));
get("older").addEventListener("click", () => turn({ ...where(), after: String(next) }, [...passed(), where().after]));
get("newer").addEventListener("click", () => turn({ ...where(), after: passed().at(-1) || "" }, passed().slice(0, -1)));
enter();
