// Annulus and plane of each valve, where they cut the slices that are shown, and the annulus through the surfaces that
// cover it: drawn over NiiVue's own pictures.
"use strict";

const NEAR = 0.5; // voxels: what lies nearer to the middle of a slice is in it

class Marks {
  constructor(valves) {
    this.valves = valves;
    this.canvas = null; // over the slices
    this.through = null; // over the 3D view
    this.hidden = new Set();
    this.letters = {}; // of each valve, in the page's language
    this.shown = {}; // for tests: how many crossings of each valve each plane has
  }

  draw(viewer) { // after NiiVue has drawn: its tiles say where millimetres lie on the canvas
    const { pen, scale } = cleared(this.canvas, viewer.gl.canvas);
    this.shown = {};
    if (!viewer.volumes.length) return;
    for (const tile of viewer.screenSlices) {
      if (tile.axCorSag > 2) continue;
      const [left, top, across, down] = tile.leftTopWidthHeight;
      pen.save();
      pen.beginPath();
      pen.rect(Math.min(left, left + across), top, Math.abs(across), down);
      pen.clip();
      for (const valve of this.valves) {
        if (!this.hidden.has(valve.name)) this.drawValve(pen, valve, new Tile(viewer, tile), scale);
      }
      pen.restore();
    }
  }

  drawThrough(viewer) {
    const { pen, scale } = cleared(this.through, viewer.gl.canvas);
    if (!viewer.meshes.length) return;
    const { width, height } = viewer.gl.canvas;
    const { renderAzimuth, renderElevation } = viewer.scene;
    const [matrix] = viewer.calculateMvpMatrix(null, undefined, renderAzimuth, renderElevation);
    for (const { name, rgb, curve_mm: curve } of this.valves) {
      if (this.hidden.has(name)) continue;
      const points = curve.map(([x, y, z]) => {
        const [across, up, , depth] = [0, 1, 2, 3].map(
          (row) => matrix[row] * x + matrix[4 + row] * y + matrix[8 + row] * z + matrix[12 + row]);
        return [(1 + across / depth) * width / 2, (1 - up / depth) * height / 2];
      });
      stroke(pen, [[...points, points[0]]], `rgb(${rgb.join(",")})`, 1.2 * scale, [2 * scale, 5 * scale]);
    }
  }

  drawValve(pen, valve, tile, scale) {
    const colour = `rgb(${valve.rgb.join(",")})`;
    const line = crossings(valve.square_mm.map((mm) => tile.at(mm)));
    const curve = valve.curve_mm.map((mm) => tile.at(mm));
    const points = crossings(curve);
    this.shown[tile.plane] = { ...this.shown[tile.plane], [valve.name]: points.length };
    if (line.length === 2) {
      stroke(pen, [line], colour, 1.5 * scale, [6 * scale, 5 * scale]);
      const [end] = [...line].sort((a, b) => a[1] - b[1]);
      write(pen, this.letters[valve.name] ?? "", [end[0] + 4 * scale, end[1] - 4 * scale], colour, 12 * scale);
    }
    // The part of the annulus that runs within the slice.
    const parts = curve.map((from, index) => within(from, curve[(index + 1) % curve.length])).filter(Boolean);
    stroke(pen, parts, colour, 2 * scale);
    for (const [x, y] of points) dot(pen, x, y, colour, 4 * scale);
  }
}

function cleared(canvas, { width, height, clientWidth }) { // as large as NiiVue's, with its pixels per pixel of the page
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, width, height);
  return { pen, scale: width / (clientWidth || width) };
}

class Tile { // where points of the patient lie in one of NiiVue's slices
  constructor(viewer, tile) {
    this.viewer = viewer;
    this.tile = tile;
    this.axis = 2 - tile.axCorSag; // of (right-left, posterior-anterior, inferior-superior)
    this.plane = ["axial", "coronal", "sagittal"][tile.axCorSag];
    this.flat = [[0, 1], [0, 2], [1, 2]][tile.axCorSag];
    this.slice = viewer.frac2vox(viewer.scene.crosshairPos)[this.axis];
  }

  at(mm) { // x and y in pixels of the canvas, and how many voxels a place lies off the slice
    const { leftTopMM, fovMM, leftTopWidthHeight: [left, top, across, down] } = this.tile;
    const share = this.viewer.mm2frac(mm, 0, true);
    const drawn = this.viewer.frac2mm(share);
    const [x, y] = this.flat.map((axis, k) => (drawn[axis] - leftTopMM[k]) / fovMM[k]);
    const voxels = this.viewer.volumes[0].dimsRAS[1 + this.axis];
    return [left + x * across, top + (1 - y) * down, share[this.axis] * voxels - 0.5 - this.slice];
  }
}

function crossings(points) { // where a closed line passes through the middle of the slice
  const found = [];
  points.forEach((from, index) => {
    const to = points[(index + 1) % points.length];
    if ((from[2] < 0) !== (to[2] < 0)) found.push(between(from, to, from[2] / (from[2] - to[2])));
  });
  return found;
}

function within(from, to) { // the part of a line that lies in the slice
  if (Math.max(Math.abs(from[2]), Math.abs(to[2])) <= NEAR) return [from, to];
  const cuts = [-NEAR, NEAR].map((limit) => (limit - from[2]) / (to[2] - from[2])).sort((a, b) => a - b);
  const [start, end] = [Math.max(cuts[0], 0), Math.min(cuts[1], 1)];
  return start < end ? [between(from, to, start), between(from, to, end)] : null;
}

function between(from, to, share) {
  return from.map((value, k) => value + share * (to[k] - value));
}

function stroke(pen, lines, colour, width, dashes = []) { // dark beside them, so that they are seen on bright contrast
  for (const [style, wide] of [["rgba(0,0,0,0.75)", width * 2], [colour, width]]) {
    pen.beginPath();
    for (const points of lines) points.forEach(([x, y], index) => (index ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    Object.assign(pen, { strokeStyle: style, lineWidth: wide, lineCap: "round" });
    pen.setLineDash(dashes);
    pen.stroke();
  }
}

function dot(pen, x, y, colour, radius) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  Object.assign(pen, { fillStyle: colour, strokeStyle: "rgba(0,0,0,0.85)", lineWidth: radius / 2 });
  pen.setLineDash([]);
  pen.fill();
  pen.stroke();
}

function write(pen, text, [x, y], colour, size) {
  Object.assign(pen, { font: `600 ${size}px system-ui, sans-serif`, fillStyle: colour, strokeStyle: "#000", lineWidth: size / 5 });
  pen.setLineDash([]);
  pen.strokeText(text, x, y);
  pen.fillText(text, x, y);
}
