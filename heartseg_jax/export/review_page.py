"""The review page: one HTML file with images, labels, surfaces and measurements, for any browser, without a network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib import resources
from pathlib import Path

from heartseg_jax.export.page.content import as_script, content
from heartseg_jax.export.page.images import packed, shown
from heartseg_jax.export.page.surfaces import packed_surfaces
from heartseg_jax.export.page.valves import packed_tubes
from heartseg_jax.export.page.viewer import in_script, viewer
from heartseg_jax.export.registry import Options
from heartseg_jax.files import write_text
from heartseg_jax.imaging.intake import Intake
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.results import Measurements
from heartseg_jax.measure.volumes import released

PAGE = resources.files("heartseg_jax.export.page")


def write_review(prediction: Prediction, measurements: Measurements, folder: Path, options: Options) -> None:
    """Write `review.html`.

    It holds no name, path or date, and its policy forbids it any connection. Where the spacing is unknown, a voxel
    is shown as a cube.

    Raises:
      UserError: the package that draws it is not installed.
    """
    drawn_by = viewer()
    prediction = released(prediction, measurements)
    images = shown(prediction.volume, prediction.labels)
    said = content(prediction, measurements, images, drawn_by, options.language)
    surfaces = {str(label): mesh for label, mesh in packed_surfaces(prediction).items()}
    surfaces |= packed_tubes(measurements)
    parts = {
        "CONTENT": as_script(said),
        "TEXTS": as_script(texts()),
        "IMAGES": _base64(packed(images.images)),
        "LABELS": _base64(packed(images.labels)),
        "SURFACES": as_script({name: _base64(mesh) for name, mesh in surfaces.items()}),
        "STYLE": _text("page.css"),
        "VIEWER": drawn_by.script,
        "SCRIPT": in_script("\n".join(_text(name) for name in SCRIPTS)),
    }
    parts["POLICY"] = policy(parts["STYLE"], parts["VIEWER"], parts["SCRIPT"])
    parts["TITLE"] = "heartseg_jax"
    parts["LANGUAGE"] = options.language
    write_text(folder / "review.html", filled(_text("page.html"), parts))


def check_review(intake: Intake) -> None:
    """Raise UserError where the package that draws the page is not installed; it can be made of any input."""
    viewer()


SCRIPTS = ("marks.js", "scene.js", "table.js", "page.js")
"""In this order in one script element."""


def texts() -> dict[str, dict[str, str]]:
    """Return the page's own words by language; both have the same keys."""
    found: dict[str, dict[str, str]] = json.loads(_text("texts.json"))
    return found


def policy(style: str, *scripts: str) -> str:
    """Return the page's content security policy: only these scripts and this style run, and nothing is fetched."""
    allowed = " ".join(_digest(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_digest(style)}; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def filled(template: str, parts: dict[str, str]) -> str:
    """Return the template with each `{{NAME}}` replaced by its part; what a part holds is left as it is."""
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda found: parts[found[1]], template)


def _digest(text: str) -> str:
    return f"'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _text(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")
