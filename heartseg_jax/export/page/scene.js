// Slices and surfaces: what NiiVue draws and how it is asked to. Nothing here knows the page's words.
"use strict";

const PLANES = ["axial", "coronal", "sagittal"];
const ALONG = { axial: 2, coronal: 1, sagittal: 0 }; // axis of (right-left, posterior-anterior, inferior-superior)
const SIDES = { front: [180, 5], left: [90, 5], back: [0, 5], right: [270, 5] }; // azimuth, elevation in degrees
const WINDOWS = { // width, level in HU
  heart: [800, 200], soft: [400, 40], lung: [1500, -600], bone: [1800, 400],
};

async function unpacked(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

function taken(id) { // the text of a script element, which is removed: it is as large as the images
  const element = document.getElementById(id);
  const text = element.textContent;
  element.remove();
  return text;
}

class Scene {
  constructor(content, onPlace, onWindow) {
    this.content = content;
    this.hidden = new Set();
    this.opacity = 0.5; // at first
    this.marks = new Marks(content.valves);
    this.view = "all";
    this.isHU = content.measurements.input.intensity === "HU";
    const options = {
      logLevel: "error", backColor: [0, 0, 0, 1], loadingText: "", dragAndDropEnabled: false,
      viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "",
    };
    this.slices = new niivue.Niivue({
      ...options, isRadiologicalConvention: true, crosshairColor: [0.42, 0.71, 1, 0.75], crosshairWidth: 0.35,
      crosshairWidthUnit: "percent", crosshairGap: 6, dragMode: niivue.DRAG_MODE.windowing,
      isOrientationTextVisible: content.images.sides_known, fontColor: [0.95, 0.95, 0.95, 1], fontMinPx: 15,
      fontSizeScaling: 0.3, multiplanarShowRender: niivue.SHOW_RENDER.NEVER, showAllOrientationMarkers: true,
    });
    this.turning = new niivue.Niivue({
      ...options, sliceType: niivue.SLICE_TYPE.RENDER, isOrientCube: content.images.sides_known, show3Dcrosshair: false,
      isOrientationTextVisible: content.images.sides_known, fontColor: [0.95, 0.95, 0.95, 1],
    });
    this.slices.onLocationChange = ({ values }) => onPlace({ values, mm: this.place() });
    this.slices.onIntensityChange = () => onWindow(this.window());
  }

  async load(canvases, images, labels, meshes) {
    await this.slices.attachToCanvas(canvases.slices, false);
    await this.turning.attachToCanvas(canvases.surfaces);
    Object.assign(this.marks, { canvas: canvases.marks, through: canvases.through });
    after(this.slices, () => this.marks.draw(this.slices));
    after(this.turning, () => this.marks.drawThrough(this.turning));
    const { cal_min, cal_max } = this.isHU ? limits(WINDOWS.heart) : { cal_min: 0, cal_max: 255 };
    const grey = [cal_min, cal_max, true, 0.02, false];
    this.slices.addVolume(await niivue.NVImage.new(images, "images.nii", "gray", 1, null, ...grey));
    const overlay = await niivue.NVImage.new(labels, "labels.nii", "", this.opacity, null, 0, 255);
    overlay.setColormapLabel(this.colours());
    this.slices.addVolume(overlay);
    const valves = this.content.valves.map(({ name, rgb }) => ({ label: name, rgb }));
    for (const { label, rgb } of [...this.content.structures, ...valves]) {
      if (!meshes[label]) continue;
      const colour = new Uint8Array([...rgb, 255]);
      const mesh = await niivue.NVMesh.readMesh(meshes[label], `${label}.mz3`, this.turning.gl, 1, colour);
      mesh.label = label;
      this.turning.addMesh(mesh);
    }
    this.turn("front");
    this.arrange(this.view);
  }

  colours() {
    const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [""] };
    for (const { label, rgb, short } of this.content.structures) {
      table.R.push(rgb[0]); table.G.push(rgb[1]); table.B.push(rgb[2]);
      table.A.push(this.hidden.has(label) ? 0 : 255); table.I.push(label); table.labels.push(short);
    }
    return table;
  }

  show(label, isShown) {
    if (isShown) this.hidden.delete(label); else this.hidden.add(label);
    this.refresh();
  }

  showAll(isShown) {
    this.hidden = new Set(isShown ? [] : this.content.structures.map((one) => one.label));
    this.refresh();
  }

  showValve(name, isShown) {
    if (isShown) this.marks.hidden.delete(name); else this.marks.hidden.add(name);
    this.slices.drawScene();
    this.drawMeshes();
  }

  refresh() {
    this.slices.volumes[1].setColormapLabel(this.colours());
    this.redraw(1);
    this.drawMeshes();
  }

  drawMeshes() {
    for (const mesh of this.turning.meshes) mesh.visible = !this.hidden.has(mesh.label) && !this.marks.hidden.has(mesh.label);
    this.turning.drawScene();
  }

  redraw(layer) { // one of them: NiiVue's updateGLVolume takes twice as long
    this.slices.refreshColormaps();
    this.slices.refreshLayers(this.slices.volumes[layer], layer);
    this.slices.drawScene();
  }

  setOpacity(share) {
    this.slices.volumes[1].opacity = share;
    this.redraw(1);
  }

  setOutline(isOutline) {
    this.slices.setAtlasOutline(isOutline ? 1 : 0);
  }

  window() {
    const { cal_min, cal_max } = this.slices.volumes[0];
    return [Math.round(cal_max - cal_min), Math.round((cal_max + cal_min) / 2)];
  }

  setWindow(width, level) {
    Object.assign(this.slices.volumes[0], limits([width, level]));
    this.redraw(0);
  }

  fullRange() {
    const { global_min, global_max } = this.slices.volumes[0];
    return [global_max - global_min, (global_max + global_min) / 2];
  }

  turn(side) {
    this.turning.setRenderAzimuthElevation(...SIDES[side]);
  }

  turnBy(azimuth, elevation) {
    const { renderAzimuth, renderElevation } = this.turning.scene;
    this.turning.setRenderAzimuthElevation(renderAzimuth + azimuth, renderElevation + elevation);
  }

  count(plane) {
    return this.slices.volumes[0].dimsRAS[1 + ALONG[plane]];
  }

  number(plane) { // from 1, towards Left, Anterior or Superior
    return this.slices.frac2vox(this.slices.scene.crosshairPos)[ALONG[plane]] + 1;
  }

  scrollTo(plane, number) {
    const by = [0, 0, 0];
    by[ALONG[plane]] = Math.min(Math.max(number, 1), this.count(plane)) - this.number(plane);
    this.slices.moveCrosshairInVox(...by);
  }

  goTo(mm) { // towards Right, Anterior, Superior; `true`: of an oblique volume too
    this.slices.scene.crosshairPos = this.slices.mm2frac(mm, 0, true);
    this.slices.moveCrosshairInVox(0, 0, 0);
  }

  place() { // the crosshair's, in mm towards Right, Anterior, Superior
    return [...this.slices.frac2mm(this.slices.scene.crosshairPos, 0, true)].slice(0, 3);
  }

  zoom(factor) { // the crosshair stays where it is: NiiVue enlarges around the origin, which may lie outside the scan
    const [x, y, z, now] = this.slices.scene.pan2Dxyzmm;
    const next = Math.min(Math.max(now * factor, 1), 10);
    const mm = this.slices.frac2mm(this.slices.scene.crosshairPos);
    const pan = next === 1 ? [0, 0, 0] : [x, y, z].map((moved, k) => moved + (now - next) * mm[k]);
    this.slices.setPan2Dxyzmm([...pan, next]);
  }

  arrange(view) { // 'all', a plane, or 'surfaces'; returns the place of each panel as shares of the stage
    this.view = view;
    const type = niivue.SLICE_TYPE;
    const corners = { axial: [0, 0], coronal: [0.5, 0], sagittal: [0, 0.5], surfaces: [0.5, 0.5] };
    const places = {};
    for (const [name, corner] of Object.entries(corners)) {
      if (view === "all") places[name] = [...corner, 0.5, 0.5];
      else if (view === name) places[name] = [0, 0, 1, 1];
    }
    const types = { axial: type.AXIAL, coronal: type.CORONAL, sagittal: type.SAGITTAL };
    const tiles = PLANES.filter((plane) => places[plane])
      .map((plane) => ({ sliceType: types[plane], position: places[plane] }));
    if (tiles.length) this.slices.setCustomLayout(tiles);
    return places;
  }
}

function after(viewer, draw) { // NiiVue draws wherever anything has changed; then this is drawn too
  const drawScene = viewer.drawScene.bind(viewer);
  viewer.drawScene = (...given) => {
    const drawn = drawScene(...given);
    draw();
    return drawn;
  };
}

function limits([width, level]) {
  return { cal_min: level - width / 2, cal_max: level + width / 2 };
}
