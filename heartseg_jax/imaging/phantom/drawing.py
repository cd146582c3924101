"""From a phantom patient to tissue and labels on a grid: chambers, walls, vessels, chest. No HU here."""

from __future__ import annotations

import numpy as np

from heartseg_jax.imaging.phantom.anatomy import Patient, Valve
from heartseg_jax.imaging.phantom.contrast import ID
from heartseg_jax.imaging.phantom.shapes import Slab, unite
from heartseg_jax.imaging.phantom.vessels import MIDLINE, Tube

IGNORED = 255
STUMP_MM, NOBODY_MM = 14.0, 14.0
"""Length of a pulmonary vein that belongs to the atrium, and of the ignored zone beyond it."""

POOLS = ("lv", "la", "rv", "ra", "aorta", "pa", "svc", "ivc", "left_svc")
LABEL = np.array([3, 2, 5, 4, 1, 7, 8, 8, 8], np.uint8)
BLOOD = np.array(
    [ID[n] for n in ("blood_lv", "blood_la", "blood_rv", "blood_ra", "blood_aa", "blood_pa")]
    + [ID["superior_cava"], ID["inferior_cava"], ID["superior_cava"]],
    np.uint8,
)
VALVES = {"mitral": ("la", "lv"), "tricuspid": ("ra", "rv"), "aortic": ("lv", "aorta"), "pulmonary": ("rv", "pa")}


def _pools(slab: Slab, patient: Patient) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """Distances (reference mm, negative inside) of the nine pools, of some parts, and the aorta's progress."""
    blobs, tubes, valves = patient.blobs, patient.tubes, patient.valves
    d = {name: slab.full() for name in POOLS}
    part = {}
    whole = tuple(slice(0, n) for n in slab.shape)

    def blob(field, name, blend=0.0):
        slab.add_ellipsoid(field, blobs[name].centre, blobs[name].axes, blobs[name].radii, blend=blend)

    def tube(field, name, margin=14.0, blend=0.0, progress=None):
        slab.add_tube(field, tubes[name].points, tubes[name].radii, margin, blend, progress)

    mitral = valves["mitral"]
    upstream = slab.along(whole, mitral.centre, mitral.flow)
    blob(d["lv"], "lv")
    np.maximum(d["lv"], -upstream, out=d["lv"])
    # Thick muscle around the cavity, but only thin tissue where the atrium and the great vessels sit on the base.
    muscle = d["lv"] - np.where(upstream < 1, np.float32(2.5), np.float32(patient.left_wall))
    part["left_muscle"] = d["lv"] - np.float32(patient.left_wall) + np.maximum(-upstream - 2, 0) * 3
    tube(d["lv"], "lvot", blend=5)

    blob(d["rv"], "rv")
    blob(d["rv"], "rv_inlet", 8)
    tube(d["rv"], "conus", blend=8)
    blob(d["ra"], "ra")
    part["ra_appendage"] = slab.full()
    tube(part["ra_appendage"], "ra_appendage")
    unite(d["ra"], part["ra_appendage"], 6)
    blob(d["la"], "la")
    blob(d["la"], "la_floor", 8)
    part["la_appendage"] = slab.full()
    tube(part["la_appendage"], "la_appendage")
    unite(d["la"], part["la_appendage"], 4)
    part["veins"], part["vein_way"] = slab.full(), slab.full(0)
    for name in tubes:
        if name.startswith("lung_vein_"):
            tube(part["veins"], name, 10, progress=part["vein_way"])
    unite(d["la"], part["veins"], 4)

    progress = slab.full(0)
    tube(d["aorta"], "aorta", progress=progress)
    tube(d["pa"], "trunk")
    tube(d["pa"], "right_pulmonary", blend=3)
    tube(d["svc"], "svc")
    tube(d["ivc"], "ivc")
    if "left_svc" in tubes:
        tube(d["left_svc"], "left_svc")

    for name, (before, after) in VALVES.items():
        valve, reach = valves[name], 34.0 if name in ("mitral", "tricuspid") else 22.0
        slab.cut(d[after], valve.centre, valve.flow, reach, 18.0)
        slab.cut(d[before], valve.centre, -valve.flow, reach, 18.0)
    for name in ("la", "ra", "rv", "aorta", "pa", "svc", "ivc", "left_svc"):
        np.maximum(d[name], -muscle, out=d[name])
    for name in ("svc", "ivc"):
        np.maximum(d[name], -d["ra"], out=d[name])
    return d, part, progress


def _walls(patient: Patient) -> np.ndarray:
    """Thickness in reference mm of what lies between two touching pools, `[9, 9]`."""
    wall = np.full((len(POOLS), len(POOLS)), 3.0, np.float32)
    index = {name: i for i, name in enumerate(POOLS)}
    for a, b, thickness in (
        ("la", "ra", patient.septum),
        ("rv", "ra", 4.5),
        ("la", "lv", 3.0),
        ("svc", "ra", 0.0),
        ("ivc", "ra", 0.0),
        ("rv", "lv", 5.0),
        ("svc", "ivc", 0.0),
    ):
        wall[index[a], index[b]] = wall[index[b], index[a]] = thickness
    return wall


def _blood(slab: Slab, patient: Patient, d, part, progress, tissue, label) -> np.ndarray:
    """Write blood, labels and leaflets; returns the distance to the nearest pool."""
    first, second = d[POOLS[0]].copy(), slab.full()
    who, other = np.zeros(slab.shape, np.uint8), np.zeros(slab.shape, np.uint8)
    for i, name in enumerate(POOLS[1:], 1):
        if name == "left_svc" and "left_svc" not in patient.tubes:
            continue
        field = d[name]
        closer = field < first
        runner = (field < second) & ~closer
        other = np.where(closer, who, np.where(runner, np.uint8(i), other))
        second = np.where(closer, first, np.minimum(second, field))
        who[closer] = i
        np.minimum(first, field, out=first)
    inside = first < 0
    gap = _walls(patient)[who[inside], other[inside]]
    filled = inside.copy()
    filled[inside] = second[inside] - first[inside] > gap
    label[filled] = LABEL[who[filled]]
    tissue[filled] = BLOOD[who[filled]]
    tissue[inside & ~filled] = ID["vessel_wall"]

    beyond = filled & (who == POOLS.index("aorta")) & (progress > np.float32(patient.arch_middle))
    label[beyond], tissue[beyond] = 6, ID["blood_da"]

    atrium = filled & (label == 2)
    vein = atrium & (part["veins"] < 1)
    way = part["vein_way"]
    tissue[vein & (way > 3)] = ID["pulmonary_vein"]
    label[vein & (way > 6)] = IGNORED
    tissue[atrium & (part["la_appendage"] < 0)] = ID["left_appendage"]
    tissue[filled & (label == 4) & (part["ra_appendage"] < 0)] = ID["right_appendage"]

    # Papillary muscles look like muscle, and count as cavity, as is the custom in measuring ventricles.
    papillary = slab.full()
    for name in ("papillary_front", "papillary_back"):
        blob = patient.blobs[name]
        slab.add_ellipsoid(papillary, blob.centre, blob.axes, blob.radii, margin=2)
    tissue[(papillary < 0) & (label == 3)] = ID["myocardium"]

    for name, (before, after) in VALVES.items():
        _valve(slab, patient.valves[name], before, after, tissue, label)
    return first


def _valve(slab: Slab, valve: Valve, before: str, after: str, tissue, label) -> None:
    """Open the orifice between two pools, and hang thin leaflets in it, bulging with the flow."""
    depth = 5.0
    box = slab.box(valve.centre, valve.centre, valve.radius + valve.tent + depth)
    if box is None:
        return
    axial = slab.along(box, valve.centre, valve.flow)
    x, y, z = slab.offsets(box, valve.centre)
    radial2 = (x * x + y * y + z * z - axial * axial) * np.float32(1 / valve.radius**2)
    sheet = axial - np.float32(valve.tent) * (1 - radial2)
    hole = (radial2 < 1) & (axial > -depth) & (axial < depth)
    up, down = POOLS.index(before), POOLS.index(after)
    for mask, pool in ((hole & (sheet < 0), up), (hole & (sheet >= 0), down)):
        label[box][mask], tissue[box][mask] = LABEL[pool], BLOOD[pool]
    leaf = hole & (np.abs(sheet) < 0.7)
    tissue[box][leaf] = ID["left_leaflet" if after in ("lv", "aorta") else "right_leaflet"]


def _tube_distance(slab: Slab, tube: Tube, margin: float = 8.0) -> np.ndarray:
    field = slab.full()
    slab.add_tube(field, tube.points, tube.radii, margin)
    return field


def _chest(slab: Slab, patient: Patient, mediastinum: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """Write body, lungs, diaphragm, bones; returns where the lungs are."""
    c, f = patient.chest, np.float32
    x, y, z = slab.x - f(c["x"]), slab.y - f(c["y"]), slab.z

    def oval(half_x, half_y, shift=0.0):
        px, py = x * (1 / half_x), (y - f(shift)) * (1 / half_y)
        px, py = px * px, py * py
        return np.sqrt(np.sqrt(px * px + py * py + f(1.5) * px * py))

    taper = 1 - f(0.22) * np.square(np.maximum(z - 40, 0) * f(1 / 90))
    cage = (oval(c["half_x"] * taper, c["half_y"] * taper) - 1) * f(c["half_y"])
    skin = (oval(f(c["half_x"] + 24 + c["fat"]), f(c["half_y"] + 17 + 0.5 * c["fat"]), 9.0) - 1) * f(c["half_y"])
    tissue[skin < 0] = ID["fat"]
    back = (np.abs(x) < 62) & (y > 66) & (skin < -f(0.35 * c["fat"] + 3))
    tissue[((cage < 17) & (skin < -3)) | back] = ID["muscle"]
    inside = cage < 0
    tissue[inside] = ID["fat"]
    # A rib runs down, outwards and forwards, so a slice cuts each as a slanting oval.
    rib = (z - 0.55 * y + 0.45 * np.abs(x)) * f(1 / 25.0) + f(c["rib_phase"])
    rib = np.abs(rib - np.rint(rib)) * 25
    in_ring = (cage > 2) & (cage < 10.5) & (rib < 6.5) & (y > -80)
    tissue[in_ring] = ID["cortical_bone"]
    tissue[in_ring & (cage > 4) & (cage < 8.5) & (rib < 4.5)] = ID["spongy_bone"]

    dome_x = np.where(x < 0, x + 62, x - 66)
    dome = np.where(x < 0, f(c["right_dome"]), f(c["left_dome"])) - dome_x * dome_x * f(0.0032)
    dome -= np.square(y + 24) * f(0.0040)
    spine = np.sqrt(np.square(x * f(1 / 20)) + np.square((slab.y - 87) * f(1 / 16)))
    lung = inside & (cage < -2) & (mediastinum > 0) & (spine > 1.25) & (z > dome)
    below = inside & (z < dome - 3) & (slab.y < 92)
    tissue[inside & (z <= dome) & (z >= dome - 3)] = ID["muscle"]
    tissue[below] = ID["abdomen"]
    tissue[below & (x < 28 - 0.4 * (z - dome))] = ID["liver"]
    bubble = (
        np.square((x - 60) * f(1 / 30))
        + np.square((y + 30) * f(1 / 25))
        + np.square((z - c["left_dome"] + 24) * f(1 / 14))
    )
    tissue[below & (bubble < 1)] = ID["airway"]
    tissue[lung] = ID["lung"]

    disc = (z - 0.15 * y) * f(1 / 25.0) + f(c["disc_phase"])
    disc = np.abs(disc - np.rint(disc)) * 25
    behind = slab.y - 112
    canal = np.sqrt(x * x + behind * behind)
    arch = (canal < 13) & (canal > 8) | (np.abs(x) < 4) & (behind > 8) & (behind < 34) & (disc > 5)
    arch |= (np.abs(x) < 34) & (np.abs(behind + 1 - np.abs(x) * f(0.3)) < 4.5) & (disc > 7) & (canal > 8)
    tissue[spine < 1] = ID["cortical_bone"]
    tissue[spine < 0.9] = ID["spongy_bone"]
    tissue[(spine < 1) & (disc < 3)] = ID["disc"]
    tissue[arch] = ID["spongy_bone"]
    tissue[canal <= 8] = ID["muscle"]
    front = (slab.y - f(c["y"]) + f(c["half_y"]) + 5) * f(1 / 5.5)
    sternum = np.square(x * f(1 / 18)) + np.square(front)
    tissue[(sternum < 1) & (z > -15)] = ID["cortical_bone"]
    tissue[(sternum < 0.5) & (z > -15)] = ID["spongy_bone"]

    bed = slab.y - f(c["y"] + c["half_y"] + 26 + 0.5 * c["fat"] + c["table_y"]) + np.square(x) * f(0.0009)
    tissue[(np.abs(bed) < 2.0) | (np.abs(bed - 28) < 1.5)] = ID["table"]
    return lung


def draw(slab: Slab, patient: Patient, lung_vessels) -> tuple[np.ndarray, np.ndarray]:
    """Tissue and labels `[z, y, x]` uint8 of one slab."""
    tubes = patient.tubes
    d, part, progress = _pools(slab, patient)
    heart = np.minimum(np.minimum(d["lv"] - np.float32(patient.left_wall - 2), d["la"]), np.minimum(d["rv"], d["ra"]))
    vessels = np.minimum(np.minimum(d["aorta"], d["pa"]), np.minimum(d["svc"], np.minimum(d["ivc"], d["left_svc"])))
    oesophagus = _tube_distance(slab, tubes["oesophagus"])
    airway = slab.full()
    for name in ("trachea", "right_bronchus", "left_bronchus"):
        slab.add_tube(airway, tubes[name].points, tubes[name].radii, 8.0)
    arteries, veins = slab.full(), _tube_distance(slab, tubes["azygos"])
    for name, vessel in tubes.items():
        if name.startswith(("artery_", "vein_")):
            slab.add_tube(arteries if name.startswith("artery_") else veins, vessel.points, vessel.radii)

    core = np.minimum(np.minimum(oesophagus, airway - 1), np.minimum(arteries, veins)) - 4
    lean = np.where(slab.y < -30, np.clip(20 - slab.z, 0, 40) * np.float32(0.3), np.float32(0))
    strip = np.abs(slab.x - np.float32(MIDLINE) - lean) - np.where(
        slab.y < -30, 5 + np.clip(30 - slab.z, 0, 60) * np.float32(0.45), np.float32(13)
    )
    strip = np.where(slab.y < -30, strip, np.maximum(strip, -(slab.y + 30)))
    mediastinum = np.minimum(heart - np.float32(patient.fat), np.minimum(vessels - 4, core))
    unite(mediastinum, strip, 10)

    tissue = np.zeros(slab.shape, np.uint8)
    label = np.zeros(slab.shape, np.uint8)
    lung = _chest(slab, patient, mediastinum, tissue)
    for tube, artery in lung_vessels:
        slab.paint_tube(tissue, lung, tube.points, tube.radii, ID["lung_artery" if artery else "pulmonary_vein"])
    tissue[(heart < np.float32(patient.fat)) & (tissue != ID["air"]) & (tissue != ID["lung"])] = ID["fat"]

    tissue[oesophagus < 0] = ID["oesophagus"]
    tissue[airway < 1.6] = ID["vessel_wall"]
    tissue[airway < 0] = ID["airway"]
    tissue[np.minimum(arteries, veins) < 1] = ID["vessel_wall"]
    tissue[arteries < 0] = ID["small_artery"]
    tissue[veins < 0] = ID["small_vein"]
    tissue[vessels < 1.5] = ID["vessel_wall"]
    tissue[np.minimum(d["la"], d["ra"]) < 1.8] = ID["vessel_wall"]
    tissue[(d["rv"] < np.float32(patient.right_wall)) | (part["left_muscle"] < 0)] = ID["myocardium"]
    coronary = _tube_distance(slab, tubes["right_coronary"], 3.0)
    tissue[coronary < 0] = ID["small_artery"]
    _blood(slab, patient, d, part, progress, tissue, label)
    return tissue, label
