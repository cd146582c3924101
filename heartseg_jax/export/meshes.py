"""Surfaces as STL and PLY, a file per structure, and all of them with their colours in one glTF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from heartseg_jax.export.registry import Options
from heartseg_jax.export.statement import statement
from heartseg_jax.export.surfaces import Surface, surfaces
from heartseg_jax.files import write_text, writing
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.results import Measurements

STL_HEADER_BYTES = 80
TO_GLTF = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]) / 1000
"""From LPS in mm to glTF in metres: x to the patient's left, y up (superior), z to the front (anterior)."""
COORDINATES = "coordinates of STL and PLY: mm in the patient, DICOM's LPS (x to the left, y posterior, z superior)"
SCENE_COORDINATES = "coordinates of heart.glb: metres, x to the patient's left, y superior, z anterior"


def write_meshes(prediction: Prediction, measurements: Measurements, folder: Path, options: Options) -> None:
    """Write `meshes/NAME.stl` and `.ply` of each structure that is there, `meshes/heart.glb` and `meshes/README.txt`.

    STL has no place for the whole statement: its header has the first line, and README.txt all of it.
    """
    place = folder / "meshes"
    lines = statement(prediction, measurements)
    set_name, found = prediction.contract.label_set.name, surfaces(prediction)
    scene = trimesh.Scene()
    for structure in prediction.contract.label_set.foreground:
        if structure.name not in found:
            continue
        surface = found[structure.name]
        _write(place / f"{structure.name}.stl", stl_bytes(surface, f"{lines[0]} {structure.name}, LPS, mm"))
        _write(place / f"{structure.name}.ply", ply_bytes(surface, structure.display_rgb, [*lines, COORDINATES]))
        colour = [*(part / 255 for part in structure.display_rgb), 1.0]
        material = trimesh.visual.material.PBRMaterial(
            name=structure.name, baseColorFactor=colour, metallicFactor=0.0, roughnessFactor=0.6
        )
        mesh = trimesh.Trimesh(surface.vertices_mm @ TO_GLTF.T, surface.faces, process=False)
        mesh.visual = trimesh.visual.TextureVisuals(material=material)
        scene.add_geometry(mesh, node_name=structure.name, geom_name=structure.name)
    if found:
        _write(place / f"{set_name}.glb", glb_bytes(scene, [*lines, SCENE_COORDINATES]))
    none = [] if found else ["No structure is there to be drawn."]
    write_text(place / "README.txt", "\n".join([*lines, *none, COORDINATES, SCENE_COORDINATES]) + "\n")


def stl_bytes(surface: Surface, title: str) -> bytes:
    """Return a surface as binary STL; `title` is cut to the header's 80 bytes."""
    content = bytes(trimesh.exchange.stl.export_stl(_mesh(surface)))
    head = title.encode("ascii", "replace")[:STL_HEADER_BYTES]  # never begins with 'solid', which would mean text
    return head.ljust(STL_HEADER_BYTES) + content[STL_HEADER_BYTES:]


def ply_bytes(surface: Surface, rgb: tuple[int, int, int], comments: list[str]) -> bytes:
    """Return a surface as binary PLY, each vertex in a colour, with comments."""
    mesh = _mesh(surface)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.tile([*rgb, 255], (len(mesh.vertices), 1)))
    content = bytes(trimesh.exchange.ply.export_ply(mesh, vertex_normal=False))
    first, kind, rest = content.split(b"\n", 2)
    said = [f"comment {line}".encode("ascii", "backslashreplace") for line in comments]
    return b"\n".join([first, kind, *said, rest])


def glb_bytes(scene: trimesh.Scene, lines: list[str]) -> bytes:
    """Return a scene as binary glTF; what is said of it is in its asset."""

    def say(tree: dict[str, Any]) -> None:
        tree["asset"] |= {"copyright": lines[0], "extras": {"statement": lines}}

    content: bytes = trimesh.exchange.gltf.export_glb(scene, include_normals=True, tree_postprocessor=say)
    return content


def _mesh(surface: Surface) -> trimesh.Trimesh:
    return trimesh.Trimesh(surface.vertices_mm, surface.faces, process=False)


def _write(path: Path, content: bytes) -> None:
    with writing(path) as partial:
        partial.write_bytes(content)
