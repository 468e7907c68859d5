// The order form: fields of a job from what was filled in.
import { ask, duration, get } from "./api.js";

export function setUpForm(session, ordered) {
  const models = session.models.length ? session.models : ["embedded"];
  for (const name of models) get("model").append(new Option(name, name));
  for (const radio of document.querySelectorAll("input[name=by]")) {
    radio.addEventListener("change", () => {
      get("pixels").hidden = byPaper();
      get("paper").hidden = !byPaper();
    });
  }
  get("strength").addEventListener("input", () => { document.querySelector("output[for=strength]").value = get("strength").value; });
  get("picture").addEventListener("change", () => { checkPicture(session); });
  for (const name of ["picture", "model", "edit"]) get(name).addEventListener("change", () => { offer(session); });
  offer(session);
  get("order").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) get("order").requestSubmit();
  });
  get("order").addEventListener("submit", async (event) => {
    event.preventDefault();
    get("make").disabled = true;
    try {
      await order(session, ordered);
    } catch (error) {
      say(error.message, true);
    } finally {
      get("make").disabled = false;
    }
  });
}

const byPaper = () => document.querySelector("input[name=by]:checked").value === "paper";

// an editor changes the picture by words, unless it is only to be enlarged
const canEdit = (session) => Boolean(get("picture").files[0]) && session.editors.includes(get("model").value);
const edits = (session) => canEdit(session) && get("edit").checked;

function offer(session) {
  get("edit-row").hidden = !canEdit(session);
  get("strength-row").hidden = !(get("picture").files[0] && session.strength) || edits(session);
}

function checkPicture(session) {
  const file = get("picture").files[0];
  const tooLarge = file && file.size > session.upload_mib * 2 ** 20;
  get("picture").setCustomValidity(tooLarge ? "The picture is larger than " + session.upload_mib + " MiB." : "");
  get("picture").reportValidity();
}

function fields(session) {
  const made = { prompt: get("prompt").value, model: get("model").value, seed: Number(get("seed").value) };
  if (byPaper()) {
    made.paper = get("paper-name").value;
    made.dpi = Number(get("dpi").value);
    if (Number(get("bleed").value) > 0) made.bleed = get("bleed").value + "mm";
    if (get("landscape").checked) made.landscape = true;
  } else {
    made.size = get("width").value + "x" + get("height").value;
  }
  const output = {};
  for (const kind of ["pdf", "tif"]) if (get(kind).checked) output[kind] = {};
  if (Object.keys(output).length) made.output = output;
  if (get("approval").checked) made.approval = true;
  if (Number(get("count").value) > 1) made.count = Number(get("count").value);
  return made;
}

async function order(session, ordered) {
  const job = fields(session);
  const file = get("picture").files[0];
  if (file) {
    say("Sending the picture …");
    job.guide = (await ask("POST", "/v1/uploads", file, "application/octet-stream")).id;
    if (edits(session)) job.edit = true;
    else if (session.strength) job.strength = Number(get("strength").value);
  }
  const made = await ask("POST", "/v1/batches", JSON.stringify(job) + "\n", "application/x-ndjson");
  const takes = made.planned_seconds ? ", about " + duration(made.planned_seconds) + " of work" : "";
  say((made.jobs.length === 1 ? "Queued" : made.jobs.length + " posters queued") + takes + ".");
  ordered();
}

export function say(text, wrong = false) {
  get("said").textContent = text;
  get("said").className = wrong ? "wrong" : "";
}
