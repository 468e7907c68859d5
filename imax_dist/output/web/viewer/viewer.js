"use strict";
// A deep-zoom viewer in a dialog: two layers of a poster under a slider. Used by the page of `imax view` and by
// that of `imax serve`. makePosterViewer({ facts, step, leave }) -> { show, close, focusable, element, copy }
window.makePosterViewer = ({ facts: factsOf, step, leave }) => {
  const made = document.createElement("div");
  made.innerHTML = `
<dialog id="viewer" aria-label="Poster">
  <div class="bar">
    <button id="close" title="Back (Esc)" aria-label="Back">&#x2715;</button>
    <button id="previous" title="Previous (left arrow)" aria-label="Previous poster">&#x2190;</button>
    <button id="next" title="Next (right arrow)" aria-label="Next poster">&#x2192;</button>
    <strong id="name"></strong>
    <span class="space"></span>
    <button id="out" title="Zoom out (-)" aria-label="Zoom out">&#x2212;</button>
    <button id="home" title="Whole picture (0)" aria-label="Whole picture">&#x2922;</button>
    <button id="in" title="Zoom in (+)" aria-label="Zoom in">+</button>
    <button id="real" title="One picture pixel is one screen pixel (1)" aria-label="Pixel for pixel">1:1</button>
    <button id="about" title="Recipe (i)" aria-label="Recipe" aria-expanded="true">i</button>
  </div>
  <div class="stage">
    <div class="picture">
      <div id="zoom"></div>
      <div id="divider" hidden></div>
      <div id="compare" hidden>
        <select id="left" aria-label="Left picture"></select>
        <input id="slider" type="range" min="0" max="1000" value="500" aria-label="Before and after">
        <select id="right" aria-label="Right picture"></select>
      </div>
    </div>
    <aside id="facts"></aside>
  </div>
</dialog>`;
  document.body.append(made.firstElementChild);
  // OpenSeadragon adds a style element unless it finds one of this name, and a strict policy forbids it: this one is
  // no style to the browser, and its rule stands in page.css.
  const instead = document.createElementNS("urn:imax:none", "style");
  instead.setAttribute("data-openseadragon-mobile-css", "true");
  document.head.append(instead);
  const get = (id) => document.getElementById(id);
  const [dialog, facts, slider, divider] = ["viewer", "facts", "slider", "divider"].map(get);
  let open = null;
  let viewer = null;
  let images = { left: null, right: null };

  function element(name, properties = {}, ...children) {
    const node = Object.assign(document.createElement(name), properties);
    node.append(...children);
    return node;
  }

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
    facts.replaceChildren(...factsOf(poster, element));
    if (!dialog.open) dialog.showModal();
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

  function close() {
    if (dialog.open) dialog.close();
    if (viewer) { viewer.destroy(); viewer = null; }
    open = null;
    delete dialog.dataset.ready;
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
  const zoomBy = (factor) => viewer && viewer.viewport && viewer.viewport.zoomBy(factor);
  const whole = () => viewer && viewer.viewport && viewer.viewport.goHome();
  function real() {
    const image = images.right;
    if (image) viewer.viewport.zoomTo(image.imageToViewportZoom(1 / window.devicePixelRatio));
  }
  function toggleFacts() {
    facts.hidden = !facts.hidden;
    get("about").setAttribute("aria-expanded", String(!facts.hidden));
  }
  function slide(by) { slider.value = Number(slider.value) + by; cut(); }
  const keys = { Escape: leave, ArrowLeft: () => step(-1), ArrowRight: () => step(1), "+": () => zoomBy(1.5), "=": () => zoomBy(1.5),
    "-": () => zoomBy(1 / 1.5), 0: whole, 1: real, i: toggleFacts, y: () => get("copy") && get("copy").click(),
    "[": () => slide(-50), "]": () => slide(50) };

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
  if (window.innerWidth <= 700) toggleFacts();
  return { show, close, copy };
};
