// The table of structures, the warnings, and what the page says of model and images. Strings are only ever set as text.
"use strict";

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

class Words {
  constructor(texts, language) {
    this.texts = texts;
    this.language = language;
  }

  of(key, values = {}) {
    const text = this.texts[this.language][key] ?? "";
    return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
  }

  number(value, digits = 0) {
    return value.toLocaleString(this.language, {
      minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: false,
    });
  }

  structure(one) {
    return this.texts[this.language][`structure_${one.name}`] ?? titled(one.name);
  }

  said(text) { // what the program wrote in English, in this language where its form is known
    if (this.language === "en") return text;
    if (text.includes("; ")) return text.split("; ").map((part) => this.said(part)).join("; ");
    for (const [key, pattern] of Object.entries(KNOWN)) {
      const found = pattern.exec(text);
      if (!found) continue;
      const { structure: name, ...values } = found.groups ?? {};
      return this.of(key, name ? { ...values, structure: this.structure({ name }) } : values);
    }
    return text;
  }
}

const KNOWN = {
  reason_border: /^it touches the border of the field of view \((?<share>\d+) % of its surface\): its volume is a lower bound$/,
  reason_border_little: /^it touches the border of the field of view \(less than 1 % of its surface\): its volume is a lower bound$/,
  reason_absent: /^the model finds none of it$/,
  reason_spacing: /^the spacing is unknown, and so is the volume$/,
  reason_members: /^the models, or the views of one model, disagree \(mean pairwise Dice (?<dice>[\d.]+)\)$/,
  reason_blood: /^its mean of (?<hu>-?\d+) HU is not that of blood$/,
  reason_no_chamber: /^there is no (?<structure>\w+)$/,
  reason_untouched: /^they do not touch$/,
  reason_slice: /^a single slice shows no valve$/,
  reason_large_voxels: /^voxels of (?<mm>[\d.]+) mm are too large to show a valve$/,
  reason_coarse: /^voxels of up to (?<mm>[\d.]+) mm make its area wrong by up to about 10 %$/,
  reason_open: /^the contact is open: the two part in (?<found>\d+) of (?<all>\d+) directions only$/,
  reason_few: /^the two chambers part in (?<found>\d+) of (?<all>\d+) directions only$/,
  reason_gap: /^the chambers lie (?<mm>[\d.]+) mm apart$/,
  reason_valve_border: /^a chamber touches the border of the field of view at the valve$/,
};

function titled(name) {
  const words = name.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function drawTable(content, words, scene, chosen) {
  const table = document.getElementById("structures");
  table.querySelectorAll("tbody").forEach((body) => body.remove());
  content.structures.forEach((one, index) => {
    const measured = content.measurements.structures[one.name];
    const isShown = !scene.hidden.has(one.label);
    const name = words.structure(one);
    const isThere = one.centre_mm !== null;
    const box = make("input", {
      type: "checkbox", "aria-label": words.of("show_structure", { structure: name }), "data-structure": one.label,
      disabled: !isThere, onchange: (event) => chosen.show(one.label, event.target.checked),
    });
    box.checked = isShown && isThere;
    const swatch = make("span", { class: "swatch", text: index < 9 ? index + 1 : "", "aria-hidden": "true" });
    swatch.style.background = `rgb(${one.rgb.join(",")})`;
    swatch.style.color = 0.299 * one.rgb[0] + 0.587 * one.rgb[1] + 0.114 * one.rgb[2] > 110 ? "#000" : "#fff";
    const button = make("button", {
      type: "button", class: "name", disabled: !isThere, title: isThere ? words.of("go_to") : false,
      onclick: () => chosen.goTo(one),
    }, swatch, make("span", { text: name }));
    const range = measured.normal_range_ml;
    const row = make("tr", {},
      make("td", {}, box), make("td", {}, button), volumeCell(measured, words),
      make("td", { class: "number", text: range ? `${words.number(range[0])}–${words.number(range[1])}` : "–" }),
      huCell(measured, words),
      make("td", { class: `status ${measured.status}`, text: `${MARKS[measured.status] ?? ""} ${words.of(`status_${measured.status}`)}` }));
    const body = make("tbody", { class: isShown || !isThere ? "structure" : "structure off" }, row);
    const notes = notesOf(measured, words);
    if (notes.length) {
      body.append(make("tr", { class: "more" }, make("td"), make("td", { colspan: 5 }, ...notes)));
    }
    table.append(body);
  });
  const all = document.getElementById("all");
  all.checked = scene.hidden.size === 0;
  all.indeterminate = scene.hidden.size > 0 && scene.hidden.size < content.structures.length;
}

const MARKS = { measured: "✓", partial: "◐", absent: "○", refused: "✕", uncertain: "≈" };

function volumeCell(measured, words) {
  const volume = measured.volume_ml;
  if (volume === null) return make("td", { class: "number", text: "–" });
  const text = (measured.status === "partial" ? "≥ " : "") + words.number(volume, 1);
  if (measured.within_normal_range !== false) return make("td", { class: "number", text });
  const isLow = volume < measured.normal_range_ml[0];
  const label = words.of(isLow ? "below_range" : "above_range");
  return make("td", { class: "number outside", title: label }, `${isLow ? "▼" : "▲"} ${text}`);
}

function huCell(measured, words) {
  if (measured.mean_hu === null) return make("td", { class: "number", text: "–" });
  const spread = measured.sd_hu === null ? false : `${words.number(measured.mean_hu)} ± ${words.number(measured.sd_hu)} HU`;
  return make("td", { class: "number", text: words.number(measured.mean_hu), title: spread });
}

function notesOf(measured, words) {
  const facts = [];
  if (measured.confidence !== null) facts.push(words.of("confidence", { share: words.number(measured.confidence, 2) }));
  if (measured.agreement !== null) facts.push(words.of("agreement", { dice: words.number(measured.agreement, 2) }));
  if (measured.within_normal_range === false) {
    facts.push(words.of(measured.volume_ml < measured.normal_range_ml[0] ? "below_range" : "above_range"));
  }
  if (measured.labels_withheld) facts.push(words.of("withheld"));
  const notes = facts.length ? [make("p", { text: facts.join(" · ") })] : [];
  if (measured.reason) notes.unshift(make("p", { text: sentence(words.said(measured.reason)), class: measured.status }));
  return notes;
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

function drawWarnings(content, words) {
  const section = document.getElementById("warnings");
  const wasOpen = section.querySelector("details")?.open;
  section.replaceChildren();
  const warnings = content.measurements.warnings;
  if (!warnings.length) return;
  const title = words.of(warnings.length === 1 ? "one_warning" : "many_warnings", { count: warnings.length });
  const summary = make("summary", {}, make("b", { text: `⚠ ${title}` }), make("span", { text: warnings[0], lang: "en" }));
  const list = make("ul", { lang: "en" }, ...warnings.map((text) => make("li", { text })));
  const details = make("details", {}, summary, list);
  details.open = Boolean(wasOpen);
  section.append(details);
}

const UNITS = { cm2: "cm²", mm: "mm", degrees: "°" }; // by the end of a quantity's name
const DIGITS = { degrees: 0, eccentricity: 2 }; // 1 for the others

function drawValves(content, words, hidden, chosen) {
  const section = document.getElementById("valves");
  section.hidden = content.label_set !== "heart";
  const rows = ["mitral", "tricuspid"].flatMap((name) => valveRows(name, content, words, hidden, chosen));
  const offset = content.measurements.septal_offset_mm;
  if (offset) rows.push(quantityRow("septal_offset_mm", offset, words));
  section.querySelector("tbody").replaceChildren(...rows);
}

function valveRows(name, content, words, hidden, chosen) {
  const measured = content.measurements[`${name}_valve`];
  const drawn = content.valves.find((one) => one.name === name);
  const status = measured?.status ?? "refused";
  const reason = measured ? measured.reason : content.measurements[`${name}_valve_reason`];
  const text = words.of(`valve_${name}`);
  const box = make("input", {
    type: "checkbox", "aria-label": words.of("show_valve", { valve: text }), "data-valve": name, disabled: !drawn,
    onchange: (event) => chosen.showValve(name, event.target.checked),
  });
  box.checked = Boolean(drawn) && !hidden.has(name);
  const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
  if (drawn) swatch.style.background = `rgb(${drawn.rgb.join(",")})`;
  const button = make("button", {
    type: "button", class: "name", disabled: !drawn, title: drawn ? words.of("go_to") : false,
    onclick: () => chosen.goTo(drawn),
  }, swatch, make("span", { text }));
  const rows = [make("tr", { class: "head" }, make("td", {}, box), make("td", {}, button),
    make("td", { class: `status number ${status}`, colspan: 2, text: `${MARKS[status]} ${words.of(`status_${status}`)}` }))];
  if (reason) rows.push(make("tr", { class: "more" }, make("td"), make("td", { colspan: 3, text: sentence(words.said(reason)) })));
  return [...rows, ...Object.entries(measured?.quantities ?? {}).map(([key, one]) => quantityRow(key, one, words))];
}

function quantityRow(key, { value, low, high }, words) {
  const end = key.split("_").at(-1);
  const number = (one) => words.number(one, DIGITS[end] ?? 1);
  const name = words.of(`quantity_${key}`) || titled(key);
  return make("tr", {}, make("td"), make("td", { text: name }),
    make("td", { class: "number", text: `${number(value)} ${UNITS[end] ?? ""}`.trim() }),
    make("td", { class: "number", text: low === null ? "–" : `${number(low)}–${number(high)}` }));
}

function drawAbout(content, words) {
  const { input } = content.measurements;
  const { factors, step, spacing_mm: spacing, shape_voxels: shape, sides_known: sides } = content.images;
  const lines = [words.of("source", { shape: input.shape_voxels.join(" × ") })
    + (input.spacing_mm ? ` · ${input.spacing_mm.map((mm) => words.number(mm, 2)).join(" × ")} mm` : "")];
  if (Math.max(...factors) > 1) {
    lines.push(words.of("averaged", {
      block: factors.join(" × "), shape: shape.join(" × "),
      spacing: input.spacing_mm ? `${spacing.map((mm) => words.number(mm, 2)).join(" × ")} mm` : "–",
    }));
  }
  if (step > 1) lines.push(words.of("rounded", { step, unit: input.intensity === "HU" ? "HU" : "" }));
  if (Math.max(...factors) === 1 && step === 1) lines.push(words.of("exact"));
  if (!input.spacing_mm) lines.push(words.of("no_spacing"));
  if (input.oblique_degrees > 1) lines.push(words.of("oblique", { degrees: words.number(input.oblique_degrees) }));
  lines.push(words.of(sides ? "convention" : "no_sides"));
  lines.push(words.of("smoothed"));
  const [, ...model] = content.statement;
  document.getElementById("about").replaceChildren(
    make("p", { class: "key", text: words.of("research_long") }), ...lines.map((text) => make("p", { text })),
    ...model.map((text) => make("p", { text, lang: "en" })), make("p", { text: words.of("drawn_by", { viewer: content.viewer }) }));
  document.getElementById("licence").textContent = content.licence;
}
