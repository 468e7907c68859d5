"use strict";
// A contact sheet and a deep-zoom viewer of the posters in #data. No network: all files lie beside the page.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const posters = data.posters;
  const get = (id) => document.getElementById(id);
  const sheet = get("sheet");
  let shown = posters;
  let open = null;

  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  // ---- contact sheet
  function card(poster) {
    const frame = element("div", { className: "frame" });
    if (poster.thumb) frame.append(element("img", { src: poster.thumb, loading: "lazy", decoding: "async", alt: "" }));
    else frame.append(element("span", { className: "reason", textContent: poster.message || poster.state }));
    const state = element("span", { className: "state " + poster.state, textContent: poster.state });
    const rest = [poster.size, "seed " + poster.seed, poster.preset, poster.time].filter(Boolean).join(" · ");
    const text = element("div", { className: "text" },
      element("div", { className: "prompt", textContent: poster.prompt || poster.id }),
      element("small", {}, state, " · " + rest));
    const made = element("button", { className: "card", type: "button" }, frame, text);
    made.dataset.id = poster.id;
    made.addEventListener("click", () => { location.hash = encodeURIComponent(poster.id); });
    return made;
  }

  function list() {
    const words = get("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const state = get("state").value;
    shown = posters.filter((p) => (!state || p.state === state) &&
      words.every((w) => (p.prompt + " " + p.id + " " + p.preset + " " + p.size).toLowerCase().includes(w)));
    sheet.replaceChildren(...shown.map(card));
    if (!shown.length) sheet.append(element("p", { className: "nothing", textContent: "No poster matches the search." }));
    const counts = {};
    for (const poster of posters) counts[poster.state] = (counts[poster.state] || 0) + 1;
    const parts = Object.entries(counts).map(([name, count]) => count + " " + name);
    get("summary").textContent = (shown.length < posters.length ? shown.length + " of " : "") + posters.length +
      (posters.length === 1 ? " poster: " : " posters: ") + parts.join(", ");
  }

  // ---- viewer
  const viewer = makePosterViewer({ facts: describe, step, leave });

  function describe(poster) {
    const pairs = [["State", poster.state], ["Size", poster.size && poster.size + " px"], ["Seed", poster.seed],
      ["Model", poster.model], ["Preset", poster.preset], ["Paper", poster.paper], ["Time", poster.time],
      ["Finished", poster.finished]];
    const list = element("dl");
    for (const [name, value] of pairs) {
      if (value === undefined || value === null || value === "") continue;
      list.append(element("dt", { textContent: name }), element("dd", { textContent: value }));
    }
    const facts = [element("h2", { textContent: poster.prompt || poster.id }), list];
    if (poster.message) facts.push(element("p", { className: "wrong", textContent: poster.message }));
    if (poster.command) facts.push(command(poster.command));
    for (const file of poster.files) {
      facts.push(element("p", {}, element("a", { href: file.href, textContent: file.name }), " " + file.size));
    }
    if (poster.recipe) {
      const text = element("iframe", { src: poster.recipe, loading: "lazy", title: "Recipe" });
      facts.push(element("details", {}, element("summary", { textContent: "Recipe" }), text));
    }
    return facts;
  }

  function command(text) {
    const button = element("button", { type: "button", textContent: "Copy", title: "Copy the command that renders it again (y)", id: "copy" });
    button.addEventListener("click", async () => {
      button.textContent = (await viewer.copy(text)) ? "Copied" : "Select it by hand";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    return element("div", { className: "command" }, element("code", { textContent: text }), button);
  }

  // ---- moving about
  const goTo = (poster) => { if (poster) location.hash = encodeURIComponent(poster.id); };
  function step(by) {
    const at = shown.indexOf(open);
    goTo(shown[(at + by + shown.length) % shown.length]);
  }
  function leave() { history.replaceState(null, "", location.pathname + location.search); route(); }
  function route() {
    const id = decodeURIComponent(location.hash.slice(1));
    const poster = posters.find((p) => p.id === id);
    if (poster) {
      open = poster;
      viewer.show(poster);
      document.title = poster.id + " – " + data.title;
      return;
    }
    const last = open;
    viewer.close();
    open = null;
    document.title = data.title;
    if (last) { const back = [...sheet.children].find((c) => c.dataset.id === last.id); if (back) back.focus(); }
  }

  get("search").addEventListener("input", list);
  get("state").addEventListener("change", list);
  window.addEventListener("hashchange", route);

  get("title").textContent = document.title = data.title;
  for (const state of [...new Set(posters.map((p) => p.state))]) get("state").append(element("option", { value: state, textContent: state }));
  list();
  route();
})();
