// The page: its language, keys and controls. `review` is for tests and for whoever opens the console.
"use strict";

const content = JSON.parse(document.getElementById("content").textContent);
const words = new Words(JSON.parse(document.getElementById("texts").textContent), content.language);
const at = (id) => document.getElementById(id);
const panels = { axial: at("axial"), coronal: at("coronal"), sagittal: at("sagittal"), surfaces: at("turning") };
const review = { content, ready: false, scene: null, active: "axial", preset: null, place: null };
let said = null; // timer of the place that is read out

const chosen = {
  show(label, isShown) {
    review.scene.show(label, isShown);
    draw();
  },
  showValve(name, isShown) {
    review.scene.showValve(name, isShown);
    draw();
  },
  goTo(one) {
    review.scene.goTo(one.centre_mm);
    if (review.scene.view === "surfaces") arrange("all");
  },
};

function draw() {
  document.documentElement.lang = words.language;
  document.title = `heartseg_jax · ${words.of("title")}`;
  for (const one of document.querySelectorAll("[data-text]")) one.textContent = words.of(one.dataset.text);
  for (const one of document.querySelectorAll("[data-label]")) {
    one.setAttribute("aria-label", words.of(one.dataset.label));
    if (["ABBR", "TH", "INPUT"].includes(one.tagName)) one.title = words.of(one.dataset.label);
  }
  for (const one of document.querySelectorAll("[data-language]")) {
    one.setAttribute("aria-pressed", one.dataset.language === words.language);
  }
  drawWarnings(content, words);
  drawTable(content, words, review.scene ?? { hidden: new Set() }, chosen);
  drawValves(content, words, review.scene?.marks.hidden ?? new Set(), chosen);
  drawAbout(content, words);
  drawPresets();
  drawHelp();
  drawPanels();
}

function drawPresets() {
  const names = review.scene?.isHU ? [...Object.keys(WINDOWS), "full"] : ["full"];
  at("preset").replaceChildren(...[...names, "own"].map((name) => {
    const option = make("option", { value: name, text: words.of(`window_${name}`), hidden: name === "own" });
    option.selected = name === review.preset;
    return option;
  }));
}

function drawHelp() {
  const rows = ["views", "scroll", "jump", "turn", "structures", "all", "valves", "window", "opacity", "outline", "enlarge", "zoom", "mouse", "language"]
    .map((key) => make("tr", {}, make("td", {}, ...words.of(`keys_${key}`).split(" ").flatMap(
      (part) => [/^(o|or|a|–)$/.test(part) && key !== "views" ? part : make("kbd", { text: part }), " "])),
    make("td", { text: words.of(`help_${key}`) })));
  at("help").querySelector("tbody").replaceChildren(...rows);
}

function drawPanels() {
  for (const [name, panel] of Object.entries(panels)) {
    const title = panel.querySelector("h2");
    const text = words.of(name);
    if (name === "surfaces" || !review.ready) title.textContent = text;
    else {
      const number = `${review.scene.number(name)} / ${review.scene.count(name)}`;
      title.replaceChildren(text, make("small", { text: number }));
    }
    panel.setAttribute("aria-label", words.of(name === "surfaces" ? "panel_surfaces" : "panel_slices", { view: title.textContent }));
    panel.classList.toggle("active", name === review.active);
  }
}

function drawPlace() {
  const place = review.place;
  if (!place) return;
  const label = Math.round(place.values[1]?.value ?? 0);
  const one = content.structures.find((structure) => structure.label === label);
  const value = words.number(place.values[0].value);
  const parts = [make("b", { text: one ? words.structure(one) : words.of("background") }),
    ` · ${value}${review.scene.isHU ? " HU" : ""}`];
  if (content.measurements.input.spacing_mm) {
    const [x, y, z] = place.mm;
    const [side, depth, height] = [x < 0 ? "L" : "R", y < 0 ? "P" : "A", z < 0 ? "I" : "S"];
    parts.push(` · ${side} ${words.number(Math.abs(x), 1)}  ${depth} ${words.number(Math.abs(y), 1)}  ${height} ${words.number(Math.abs(z), 1)} mm`);
  }
  clearTimeout(said);
  said = setTimeout(() => at("place").replaceChildren(...parts), 60);
}

function arrange(view) {
  const places = review.scene.arrange(view);
  for (const [name, panel] of Object.entries(panels)) {
    panel.hidden = !places[name];
    if (places[name]) lay(panel, places[name]);
  }
  at("surfaces-holder").hidden = !places.surfaces;
  at("slices-holder").hidden = view === "surfaces";
  if (places.surfaces) lay(at("surfaces-holder"), places.surfaces);
  for (const one of at("views").children) one.setAttribute("aria-pressed", one.dataset.view === view);
  if (!places[review.active]) activate(Object.keys(places)[0]);
  review.scene.slices.resizeListener();
  review.scene.turning.resizeListener();
}

function lay(element, place) {
  [element.style.left, element.style.top, element.style.width, element.style.height] = place.map((share) => `${100 * share}%`);
}

function activate(name, isFocused = false) {
  review.active = name;
  drawPanels();
  if (isFocused) panels[name].focus();
}

function setPreset(name) {
  review.preset = name;
  review.scene.setWindow(...(WINDOWS[name] ?? review.scene.fullRange()));
  drawWindow(review.scene.window());
}

function drawWindow([width, level]) {
  at("width").value = width;
  at("level").value = level;
  at("preset").value = review.preset;
}

function setOpacity(percent) {
  at("opacity").value = Math.min(Math.max(percent, 0), 100);
  review.scene.setOpacity(at("opacity").value / 100);
}

function setLanguage(language) {
  words.language = language;
  draw();
  letter();
  drawPlace();
}

function letter() { // the letters beside each valve's plane, in the slices
  for (const { name } of content.valves) review.scene.marks.letters[name] = words.of(`letters_${name}`);
  review.scene.slices.drawScene();
}

function toggleValves() {
  const isShown = review.scene.marks.hidden.size > 0;
  for (const { name } of content.valves) review.scene.showValve(name, isShown);
  draw();
}

function onKey(event) {
  if (!review.ready || event.ctrlKey || event.altKey || event.metaKey || at("help").open) return;
  const { tagName, type } = event.target;
  const isTyping = tagName === "SELECT" || (tagName === "INPUT" && type !== "checkbox");
  const isMoving = /^(Arrow|Page|Home|End)/.test(event.key);
  if (isTyping || (isMoving && event.target.closest("aside, header, #warnings"))) return;
  const action = isMoving ? moving(event.key) : KEYS[event.key.toLowerCase()] ?? digit(event.key);
  if (!action) return;
  event.preventDefault();
  event.stopPropagation();
  action();
}

function moving(key) {
  const { scene, active } = review;
  if (active === "surfaces") {
    const turns = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, 10], ArrowDown: [0, -10] };
    return turns[key] && (() => scene.turnBy(...turns[key]));
  }
  const now = scene.number(active);
  const target = {
    ArrowUp: now + 1, ArrowRight: now + 1, ArrowDown: now - 1, ArrowLeft: now - 1, PageUp: now + 10,
    PageDown: now - 10, Home: 1, End: scene.count(active),
  }[key];
  return () => scene.scrollTo(active, target);
}

const KEYS = {
  a: () => view("axial"), c: () => view("coronal"), s: () => view("sagittal"), d: () => view("surfaces"),
  f: () => arrange(review.scene.view === "all" ? review.active : "all"),
  w: () => {
    const names = [...at("preset").options].map((option) => option.value).filter((name) => name !== "own");
    setPreset(names[(names.indexOf(review.preset) + 1) % names.length]);
  },
  o: () => at("outline").click(),
  v: () => toggleValves(),
  l: () => setLanguage(words.language === "en" ? "es" : "en"),
  0: () => { review.scene.showAll(review.scene.hidden.size > 0); draw(); },
  "[": () => setOpacity(Number(at("opacity").value) - 10),
  "]": () => setOpacity(Number(at("opacity").value) + 10),
  "+": () => review.scene.zoom(1.25),
  "-": () => review.scene.zoom(0.8),
  "?": () => at("help").showModal(),
};

function view(name) {
  if (review.scene.view !== "all") arrange(name);
  activate(name, true);
}

function digit(key) {
  const one = /^[1-9]$/.test(key) ? content.structures[key - 1] : null;
  return one && one.centre_mm !== null && (() => chosen.show(one.label, review.scene.hidden.has(one.label)));
}

function under(event) { // which panel the pointer is in
  for (const [name, panel] of Object.entries(panels)) {
    const box = panel.getBoundingClientRect();
    const isIn = event.clientX >= box.left && event.clientX < box.right && event.clientY >= box.top && event.clientY < box.bottom;
    if (!panel.hidden && isIn) return name;
  }
  return null;
}

function connect() {
  document.addEventListener("keydown", onKey, true);
  for (const [name, panel] of Object.entries(panels)) panel.addEventListener("focus", () => activate(name));
  at("stage").addEventListener("pointerdown", (event) => {
    const name = under(event);
    if (name && !event.target.closest("button")) activate(name, true);
  }, true);
  at("stage").addEventListener("dblclick", (event) => {
    const name = under(event);
    if (name) arrange(review.scene.view === "all" ? name : "all");
  });
  for (const one of at("views").children) one.addEventListener("click", () => arrange(one.dataset.view));
  for (const one of document.querySelectorAll("[data-side]")) one.addEventListener("click", () => review.scene.turn(one.dataset.side));
  for (const one of document.querySelectorAll("[data-language]")) one.addEventListener("click", () => setLanguage(one.dataset.language));
  at("all").addEventListener("change", (event) => { review.scene.showAll(event.target.checked); draw(); });
  at("preset").addEventListener("change", (event) => setPreset(event.target.value));
  for (const id of ["width", "level"]) {
    at(id).addEventListener("change", () => {
      review.preset = "own";
      review.scene.setWindow(Math.max(Number(at("width").value), 1), Number(at("level").value));
      drawWindow(review.scene.window());
    });
  }
  at("opacity").addEventListener("input", (event) => setOpacity(Number(event.target.value)));
  at("outline").addEventListener("change", (event) => review.scene.setOutline(event.target.checked));
  at("help-button").addEventListener("click", () => at("help").showModal());
}

async function start() {
  draw();
  const places = (place) => { review.place = place; drawPlace(); if (review.ready) drawPanels(); };
  const windows = (found) => { review.preset = "own"; drawWindow(found); };
  review.scene = new Scene(content, places, windows);
  const meshes = {};
  for (const [label, text] of Object.entries(JSON.parse(taken("meshes")))) meshes[label] = await unpacked(text);
  const [images, labels] = [await unpacked(taken("image-data")), await unpacked(taken("label-data"))];
  await review.scene.load({ slices: at("slices"), surfaces: at("surfaces"), marks: at("marks"), through: at("through") }, images, labels, meshes);
  review.ready = true;
  connect();
  draw();
  arrange("all");
  letter();
  review.preset = review.scene.isHU ? "heart" : "full"; // as the images are loaded
  drawWindow(review.scene.window());
  at("opacity").value = 100 * review.scene.opacity;
  const first = content.structures.find((one) => one.centre_mm !== null);
  if (first) review.scene.goTo(content.structures.find((one) => one.name === "left_ventricle" && one.centre_mm)?.centre_mm ?? first.centre_mm);
  at("loading").hidden = true;
  document.body.dataset.ready = "true";
}

start().catch((error) => {
  const isDrawable = Boolean(document.createElement("canvas").getContext("webgl2"));
  at("loading").textContent = words.of(isDrawable ? "failed" : "no_webgl", { error: error.message });
  at("loading").className = "failure";
  document.body.dataset.ready = "failed";
  console.error(error);
});
