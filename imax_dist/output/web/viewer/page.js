"use strict";
// A contact sheet and a deep-zoom viewer of the posters in #data. No network: all files lie beside the page.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const posters = data.posters;
  const get = (id) => document.getElementById(id);
  const [sheet, dialog, facts, slider, divider] = ["sheet", "viewer", "facts", "slider", "divider"].map(get);
  let shown = posters;
  let open = null;
  let viewer = null;
  let images = { left: null, right: null };

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
    if (!shown.length) sheet.append(element("p", { className: "nothing", textContent: "No poster fits the search." }));
    const counts = {};
    for (const poster of posters) counts[poster.state] = (counts[poster.state] || 0) + 1;
    const parts = Object.entries(counts).map(([name, count]) => count + " " + name);
    get("summary").textContent = (shown.length < posters.length ? shown.length + " of " : "") + posters.length +
      (posters.length === 1 ? " poster: " : " posters: ") + parts.join(", ");
  }

  // ---- viewer
  function source(layer) {
    if (!layer.tiles) return { type: "image", url: layer.url, buildPyramid: false };
    const { Format, Overlap, TileSize, Size } = layer.tiles;
    const xmlns = "http://schemas.microsoft.com/deepzoom/2008";
    return { Image: { xmlns, Url: layer.url, Format, Overlap: String(Overlap), TileSize: String(TileSize),
      Size: { Width: String(Size.Width), Height: String(Size.Height) } } };
  }

  function show(poster) {
    open = poster;
    get("name").textContent = poster.id;
    describe(poster);
    if (!dialog.open) dialog.showModal();
    document.title = poster.id + " – " + data.title;
    if (viewer) viewer.destroy();
    images = { left: null, right: null };
    const options = poster.layers.map((layer, n) => element("option", { value: n, textContent: layer.label }));
    get("left").replaceChildren(...options);
    get("right").replaceChildren(...options.map((option) => option.cloneNode(true)));
    const several = poster.layers.length > 1;
    get("compare").hidden = divider.hidden = !several;
    viewer = OpenSeadragon({ element: get("zoom"), drawer: "canvas", showNavigationControl: false,
      crossOriginPolicy: false, maxZoomPixelRatio: 8, minZoomImageRatio: 0.6, visibilityRatio: 0.5,
      animationTime: 0.4, gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true } });
    viewer.addHandler("canvas-key", (event) => { event.preventDefaultAction = true; });
    for (const event of ["animation", "open", "resize", "update-viewport"]) viewer.addHandler(event, cut);
    get("right").value = 0;
    get("left").value = several ? 1 : 0;
    if (poster.layers.length) {
      put("right", true);
      if (several) put("left", false);
    }
  }

  function put(side, first) {
    const layer = open.layers[Number(get(side).value)];
    const before = images[side];
    images[side] = null;
    const here = viewer;
    viewer.addTiledImage({ tileSource: source(layer), x: layer.x, y: layer.y, width: layer.width,
      index: side === "left" && !first ? undefined : 0,
      success: ({ item }) => {
        if (here !== viewer) return;
        if (before) viewer.world.removeItem(before);
        images[side] = item;
        if (first) viewer.viewport.goHome(true);
        dialog.dataset.ready = String(viewer.world.getItemCount());
        cut();
      } });
  }

  // The left picture lies over the right one and is cut off at the divider.
  function cut() {
    const left = images.left;
    if (!left || divider.hidden || !viewer) return;
    const box = get("zoom").getBoundingClientRect();
    const at = box.width * slider.value / 1000;
    divider.style.left = at + "px";
    const edge = left.viewerElementToImageCoordinates(new OpenSeadragon.Point(at, 0)).x;
    const size = left.getContentSize();
    const width = Math.min(Math.max(edge, 0), size.x);
    const clip = left.getClip();
    if (clip && Math.abs(clip.width - width) < 0.01) return;
    left.setOpacity(width > 0 ? 1 : 0);
    left.setClip(new OpenSeadragon.Rect(0, 0, Math.max(width, 1), size.y));
  }

  function describe(poster) {
    const pairs = [["State", poster.state], ["Size", poster.size && poster.size + " px"], ["Seed", poster.seed],
      ["Model", poster.model], ["Preset", poster.preset], ["Paper", poster.paper], ["Time", poster.time],
      ["Finished", poster.finished]];
    const list = element("dl");
    for (const [name, value] of pairs) {
      if (value === undefined || value === null || value === "") continue;
      list.append(element("dt", { textContent: name }), element("dd", { textContent: value }));
    }
    facts.replaceChildren(element("h2", { textContent: poster.prompt || poster.id }), list);
    if (poster.message) facts.append(element("p", { className: "wrong", textContent: poster.message }));
    if (poster.command) facts.append(command(poster.command));
    for (const file of poster.files) {
      facts.append(element("p", {}, element("a", { href: file.href, textContent: file.name }), " " + file.size));
    }
    if (poster.recipe) {
      const text = element("iframe", { src: poster.recipe, loading: "lazy", title: "Recipe" });
      facts.append(element("details", {}, element("summary", { textContent: "Recipe" }), text));
    }
  }

  function command(text) {
    const button = element("button", { type: "button", textContent: "Copy", title: "Copy the command that renders it again (y)", id: "copy" });
    button.addEventListener("click", async () => {
      button.textContent = (await copy(text)) ? "Copied" : "Select it by hand";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    return element("div", { className: "command" }, element("code", { textContent: text }), button);
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const field = element("textarea", { value: text });
      dialog.append(field);
      field.select();
      const worked = document.execCommand("copy");
      field.remove();
      return worked;
    }
  }

  // ---- moving about
  const goTo = (poster) => { if (poster) location.hash = encodeURIComponent(poster.id); };
  function step(by) {
    const at = shown.indexOf(open);
    goTo(shown[(at + by + shown.length) % shown.length]);
  }
  const zoomBy = (factor) => viewer && viewer.viewport && viewer.viewport.zoomBy(factor);
  const whole = () => viewer && viewer.viewport && viewer.viewport.goHome();
  function real() {
    const image = images.right;
    if (image) viewer.viewport.zoomTo(image.imageToViewportZoom(1 / window.devicePixelRatio));
  }
  function leave() { history.replaceState(null, "", location.pathname + location.search); route(); }
  function toggleFacts() {
    facts.hidden = !facts.hidden;
    get("about").setAttribute("aria-expanded", String(!facts.hidden));
  }
  function route() {
    const id = decodeURIComponent(location.hash.slice(1));
    const poster = posters.find((p) => p.id === id);
    if (poster) { show(poster); return; }
    const last = open;
    if (dialog.open) dialog.close();
    if (viewer) { viewer.destroy(); viewer = null; }
    open = null;
    delete dialog.dataset.ready;
    document.title = data.title;
    if (last) { const back = [...sheet.children].find((c) => c.dataset.id === last.id); if (back) back.focus(); }
  }

  const keys = { Escape: leave, ArrowLeft: () => step(-1), ArrowRight: () => step(1), "+": () => zoomBy(1.5), "=": () => zoomBy(1.5),
    "-": () => zoomBy(1 / 1.5), 0: whole, 1: real, i: toggleFacts, y: () => get("copy") && get("copy").click(),
    "[": () => slide(-50), "]": () => slide(50) };
  function slide(by) { slider.value = Number(slider.value) + by; cut(); }

  document.addEventListener("keydown", (event) => {
    if (!open || event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.key !== "Escape") return;
    const action = keys[event.key];
    if (action) { event.preventDefault(); action(); }
  });
  dialog.addEventListener("cancel", (event) => { event.preventDefault(); leave(); });
  for (const [id, action] of Object.entries({ close: leave, previous: () => step(-1), next: () => step(1),
    out: () => zoomBy(1 / 1.5), in: () => zoomBy(1.5), home: whole, real, about: toggleFacts })) get(id).addEventListener("click", action);
  slider.addEventListener("input", cut);
  for (const side of ["left", "right"]) get(side).addEventListener("change", () => put(side, false));
  get("search").addEventListener("input", list);
  get("state").addEventListener("change", list);
  window.addEventListener("hashchange", route);

  get("title").textContent = document.title = data.title;
  for (const state of [...new Set(posters.map((p) => p.state))]) get("state").append(element("option", { value: state, textContent: state }));
  if (window.innerWidth <= 700) toggleFacts();
  list();
  route();
})();
