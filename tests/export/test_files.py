"""Label maps, surfaces and pictures: read back by independent libraries, every voxel at its place."""

import dataclasses
import json
import struct

import nibabel
import nrrd
import numpy as np
import pytest
import trimesh
from matplotlib.axes import Axes
from PIL import Image

from heartseg_jax.anatomy import HEART
from heartseg_jax.errors import UserError
from heartseg_jax.export import meshes, nifti, png, preview, seg_nrrd
from heartseg_jax.export.registry import EXPORTERS, Options, default_exporters, exporters_for
from heartseg_jax.export.statement import statement
from heartseg_jax.export.surfaces import surface_of, surfaces
from heartseg_jax.imaging.intake import Intake
from heartseg_jax.imaging.masks.palette import read_mask
from heartseg_jax.imaging.volume import Frame, Volume
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.results import MEASURED, Measurements, StructureMeasurement
from heartseg_jax.preprocess.contract import Contract
from tests.export.studies import GEOMETRIES, MODEL, ORIGIN, WARNING, phantom
from tests.preprocess.specs import spec

ROWS = tuple(StructureMeasurement(s.name, s.label, MEASURED, voxels=1, volume_ml=1.0) for s in HEART.foreground)
MEASUREMENTS = Measurements(ROWS, (WARNING,))


def prediction(labels, volume, kind="nifti", **intake):
    contract = Contract(spec(size=16), "heart", "/data/ds", "abc", 5)
    return Prediction(labels, None, Intake(kind, volume, **intake), contract, (MODEL,), ())


def phantom_in(geometry):
    hu, labels = phantom()
    return prediction(labels, Volume(hu, geometry.spacing_mm, ORIGIN, geometry.direction))


def lps_of(volume, z, y, x):
    """Where a voxel lies, worked out from the geometry's definition."""
    return volume.origin_mm + sum(volume.direction[:, k] * volume.spacing_mm[k] * n for k, n in enumerate((z, y, x)))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_label_maps_come_back_at_their_places(name, tmp_path):
    given = phantom_in(GEOMETRIES[name])
    nifti.write_labels(given, MEASUREMENTS, tmp_path, Options())
    seg_nrrd.write_seg_nrrd(given, MEASUREMENTS, tmp_path, Options())
    image = nibabel.load(tmp_path / "labels.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), given.labels)
    data, header = nrrd.read(str(tmp_path / "labels.seg.nrrd"))
    assert np.array_equal(data.transpose(2, 1, 0), given.labels)
    assert header["space"] == "left-posterior-superior"
    for place in ((0, 0, 0), (13, 44, 42), (3, 17, 5)):
        expected, (z, y, x) = lps_of(given.volume, *place), place
        np.testing.assert_allclose((image.affine @ [x, y, z, 1])[:3] * [-1, -1, 1], expected, atol=1e-3)
        found = header["space origin"] + np.array([x, y, z]) @ header["space directions"]
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_slicer_finds_names_colours_codes_and_extents(tmp_path):
    labels = np.zeros((5, 6, 7), np.uint8)
    labels[1:3, 2:5, 3:7] = 3
    labels[4, 0, 0] = 8
    given = prediction(labels, Volume(np.zeros(labels.shape, np.int16), (2.0, 1.0, 1.0)))
    seg_nrrd.write_seg_nrrd(given, MEASUREMENTS, tmp_path, Options())
    header = nrrd.read_header(str(tmp_path / "labels.seg.nrrd"))
    assert header["Segment0_Name"] == "left_ventricle"
    assert header["Segment0_LabelValue"] == "3"
    assert header["Segment0_Extent"] == "3 6 2 4 1 2"  # first and last voxel along x, y, z
    assert header["Segment1_Name"] == "vena_cava"
    assert header["Segment1_Extent"] == "0 0 0 0 4 4"
    assert not [name for name in header if name.startswith("Segment2")]
    colour = [round(255 * float(part)) for part in header["Segment0_Color"].split()]
    assert tuple(colour) == HEART.structures[3].display_rgb
    assert "SCT^87878005^Left ventricle" in header["Segment0_Tags"]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.5, 1.5, 1.5), (0.6, 0.5, 0.5), (3.0, 0.8, 0.8)])
def test_a_smoothed_surface_is_closed_and_keeps_its_volume(spacing):
    sizes = [int(50 / mm) | 1 for mm in spacing]
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(sizes, spacing, strict=True)]
    radius = 20.0
    mask = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")) < radius**2
    vertices, faces = surface_of(mask, spacing)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(mask.sum() * np.prod(spacing), rel=0.02)
    distance = np.linalg.norm(vertices - [axis[-1] for axis in axes], axis=1)
    assert np.abs(distance - radius).max() < max(spacing)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.7, 0.7), (0.5, 0.35, 0.35)])
def test_small_structures_keep_their_volume_too(spacing):
    """Smoothing takes 3 to 5 % from a sphere of 8 mm, the size of an appendage; it is given back."""
    axes = [np.arange(-round(11 / mm), round(11 / mm) + 1) * mm for mm in spacing]
    mask = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")) < 8.0**2
    mesh = trimesh.Trimesh(*surface_of(mask, spacing), process=False)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(mask.sum() * np.prod(spacing), rel=0.002)


@pytest.mark.parametrize("name", ["axial-3mm", "oblique30-1mm", "negated-3mm"])
def test_a_surface_lies_where_its_voxels_lie(name):
    """A block at the border of the field of view: its surface is closed there, and turned outwards."""
    geometry = GEOMETRIES[name]
    labels = np.zeros((20, 30, 40), np.uint8)
    labels[0:12, 5:25, 8:32] = 4
    volume = Volume(np.zeros(labels.shape, np.int16), geometry.spacing_mm, ORIGIN, geometry.direction)
    found = surfaces(prediction(labels, volume))
    assert list(found) == ["right_atrium"]
    mesh = trimesh.Trimesh(found["right_atrium"].vertices_mm, found["right_atrium"].faces, process=False)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(12 * 20 * 24 * np.prod(geometry.spacing_mm), rel=0.03)
    np.testing.assert_allclose(mesh.center_mass, lps_of(volume, 5.5, 14.5, 19.5), atol=0.2)
    # Along the axes of the block it reaches from the outer face of the first voxel to that of the last.
    along = (mesh.vertices - ORIGIN) @ geometry.direction / geometry.spacing_mm
    np.testing.assert_allclose(along.min(axis=0), [-0.5, 4.5, 7.5], atol=0.35)
    np.testing.assert_allclose(along.max(axis=0), [11.5, 24.5, 31.5], atol=0.35)


def test_a_structure_of_one_voxel_has_a_surface():
    mask = np.zeros((3, 3, 3), bool)
    mask[1, 1, 1] = True
    for spacing in ((1.0, 1.0, 1.0), (0.4, 0.4, 0.4)):
        vertices, faces = surface_of(mask, spacing)
        assert len(faces) > 0
        np.testing.assert_allclose(vertices.mean(axis=0), spacing, atol=0.6)
        assert np.abs(vertices - spacing).max() < 1.0, "what is thinner than a block is not blown up"


def test_meshes_are_written_with_colours_and_axes(tmp_path):
    labels = np.zeros((20, 30, 40), np.uint8)
    labels[2:12, 5:25, 8:32] = 4
    given = prediction(labels, Volume(np.zeros(labels.shape, np.int16), (1.0, 1.0, 1.0), (10.0, 20.0, 30.0)))
    meshes.write_meshes(given, MEASUREMENTS, tmp_path, Options())
    stl = trimesh.load(tmp_path / "meshes" / "right_atrium.stl")
    np.testing.assert_allclose(stl.bounds, [[17.5, 24.5, 31.5], [41.5, 44.5, 41.5]], atol=0.35)  # x, y, z in LPS
    ply = trimesh.load(tmp_path / "meshes" / "right_atrium.ply")
    assert tuple(ply.visual.vertex_colors[0][:3]) == HEART.structures[4].display_rgb
    scene = trimesh.load(tmp_path / "meshes" / "heart.glb")
    assert list(scene.geometry) == ["right_atrium"]
    # Metres: x to the left, y up (superior), z to the front.
    np.testing.assert_allclose(1000 * scene.bounds, [[17.5, 31.5, -44.5], [41.5, 41.5, -24.5]], atol=0.35)
    tree = json.loads(glb_json(tmp_path / "meshes" / "heart.glb"))
    assert tree["asset"]["extras"]["statement"][:-1] == statement(given, MEASUREMENTS)


def glb_json(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<I", content[12:16])
    return content[20 : 20 + length]


def test_masks_are_named_by_their_slices_in_the_masks_colours(tmp_path):
    hu, labels = phantom()
    pictures = (np.clip(hu, 0, 255)).astype(np.uint8)
    names = tuple(f"case_{z}.jpg" for z in range(len(labels)))
    given = prediction(labels, Volume(pictures, (1.0, 1.0, 1.0)), "pictures", spacing_known=False, names=names)
    png.write_masks(given, MEASUREMENTS, tmp_path, Options())
    for z, plane in enumerate(labels):
        assert np.array_equal(read_mask(tmp_path / "masks" / f"case_{z}.png").labels, plane)
    assert WARNING in Image.open(tmp_path / "masks" / "case_3.png").text["Comment"]
    twice = dataclasses.replace(given, intake=dataclasses.replace(given.intake, names=("a.jpg", "a.png", *names[2:])))
    with pytest.raises(UserError, match="png"):
        png.write_masks(twice, MEASUREMENTS, tmp_path / "twice", Options())


def test_masks_of_a_dicom_study_are_named_by_instance():
    labels = np.zeros((2, 4, 4), np.uint8)
    volume = Volume(np.zeros(labels.shape, np.int16), (1.0, 1.0, 1.0), frames=(Frame("1.2.3", 1), Frame("1.2.4", 1)))
    assert png.names_of(prediction(labels, volume, "dicom").intake) == ["1.2.3", "1.2.4"]
    enhanced = dataclasses.replace(volume, frames=(Frame("1.2.3", 1), Frame("1.2.3", 2)))
    with pytest.raises(UserError, match="png"):
        png.names_of(prediction(labels, enhanced, "dicom").intake)
    assert png.names_of(prediction(labels, dataclasses.replace(volume, frames=())).intake) == ["0001", "0002"]


def test_the_preview_shows_every_structure_in_its_colour(tmp_path):
    given = phantom_in(GEOMETRIES["negated-3mm"])
    preview.write_preview(given, MEASUREMENTS, tmp_path, Options())
    picture = np.asarray(Image.open(tmp_path / "preview.png").convert("RGB"))
    assert picture.shape[1] >= 1200
    for structure in HEART.foreground:
        assert (picture == structure.display_rgb).all(axis=-1).sum() > 100, structure.name
    empty = dataclasses.replace(given, labels=np.zeros_like(given.labels))
    preview.write_preview(empty, MEASUREMENTS, tmp_path / "empty", Options())
    assert (tmp_path / "empty" / "preview.png").is_file()


@pytest.mark.parametrize("name", ["nifti", "seg_nrrd", "meshes", "png"])
def test_every_file_says_what_it_is_and_what_holds_for_it(name, tmp_path):
    EXPORTERS[name].write(phantom_in(GEOMETRIES["axial-3mm"]), MEASUREMENTS, tmp_path, Options())
    for needed in statement(phantom_in(GEOMETRIES["axial-3mm"]), MEASUREMENTS):
        assert any(needed in text_of(path) for path in tmp_path.rglob("*") if path.is_file()), needed
    assert not any("zwicknagl" in text_of(path) for path in tmp_path.rglob("*") if path.is_file())


def text_of(path):
    if path.suffixes[-2:] == [".nii", ".gz"]:
        return b"".join(extension.get_content() for extension in nibabel.load(path).header.extensions).decode()
    if path.suffix == ".png":
        return Image.open(path).text["Comment"]
    return path.read_bytes().decode("latin-1")


def test_an_empty_prediction_is_written_as_one(tmp_path):
    labels = np.zeros((4, 8, 8), np.uint8)
    given = prediction(labels, Volume(np.zeros(labels.shape, np.int16), (1.0, 1.0, 1.0)))
    for name in ("nifti", "seg_nrrd", "meshes"):
        EXPORTERS[name].write(given, MEASUREMENTS, tmp_path, Options())
    assert not np.asarray(nibabel.load(tmp_path / "labels.nii.gz").dataobj).any()
    assert [path.name for path in (tmp_path / "meshes").iterdir()] == ["README.txt"]


def test_what_is_made_without_being_asked_for():
    assert "png" in default_exporters("pictures", False)
    assert "png" not in default_exporters("dicom", True)
    assert "png" in exporters_for("dicom", True)
    assert "meshes" not in exporters_for("pictures", False)
    assert "dicom_seg" not in exporters_for("nifti", True)


@pytest.mark.parametrize(("kind", "letters"), [("nifti", set("RLAPSI")), ("pictures", set())])
def test_the_preview_marks_sides_only_where_they_are_known(tmp_path, monkeypatch, kind, letters):
    marked, real = set(), Axes.text

    def text(axes, x, y, words, *rest, **named):
        marked.add(words)
        return real(axes, x, y, words, *rest, **named)

    monkeypatch.setattr(Axes, "text", text)
    hu, labels = phantom()
    given = prediction(labels, Volume(np.clip(hu, 0, 255).astype(np.uint8), (1.0, 1.0, 1.0)), kind)
    preview.write_preview(given, MEASUREMENTS, tmp_path, Options())
    assert marked & set("RLAPSI") == letters
