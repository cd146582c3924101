"""Makes docs/messages.md: what the command line prints when something is wrong, by running it.

`python -m tests.docs.messages` writes the page again; tests/docs/test_messages.py compares it with the one in docs.
"""

import contextlib
import functools
import io
import math
import os
import shlex
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import main
from heartseg_jax.anatomy import HEART
from heartseg_jax.errors import GuardStop
from heartseg_jax.findings import apply_policy
from heartseg_jax.imaging.masks.palette import labels_to_rgb
from heartseg_jax.inference.predictor import Output
from heartseg_jax.training.guards import Collapse, Divergence, check_labels, check_loss
from tests.dicom_writer import write_series
from tests.tiny import tile_labels, write_tiny

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "messages.md"
INTRODUCTION = """\
# Error messages

What is printed to stderr when something is wrong, word for word. A mistake in the request is one line that names the
thing and the fix, and the exit status is 2. A guard that stops a run prints what was seen, the likely cause and what to
try ([guards.md](guards.md)), and the exit status is 3. A traceback is a bug: please report it.

This page is written by `python -m tests.docs.messages`, which runs these commands; a test compares the two.
"""
TRAIN = "--config=configs/quickstart.py --config.data.size=32 --config.data.path="


def run(command):
    """Run `python main.py COMMAND`; return what it printed to stderr at the end, and the exit status."""
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        status = main.main(shlex.split(command))
    lines = error.getvalue().strip().splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith(("error: ", "stopped by ")))
    return "\n".join(lines[first:]), status


def write_inputs():
    """Write, into the current folder, everything that the commands name."""
    os.symlink(ROOT / "configs", "configs")
    Path("empty").mkdir()
    write_pairs("slices")
    write_pairs("jpeg_masks", lambda mask: np.where(mask > 0, mask - 3, 0).astype(np.uint8))
    write_pairs("grey_masks", lambda mask: (mask[..., 0] // 4).astype(np.uint8))
    write_pairs("unpaired")
    Path("unpaired/masks/p1_2.png").unlink()
    write_pairs("deep", image=lambda image: image.astype(np.uint16) * 256)
    voxels = np.full((12, 32, 32), -1000, np.int16)
    voxels[:, 8:24, 8:24] = np.arange(12)[:, None, None] * 10 + 40
    gap = write_series(Path("study_with_gap"), voxels, (2.0, 0.7, 0.7))
    gap[5].unlink()
    write_series(Path("study_of_mr"), voxels, (2.0, 0.7, 0.7), edit=lambda file, _: setattr(file, "Modality", "MR"))
    Path("photo.keras").write_bytes(b"\x89PNG not a model")
    write_tiny(Path("black_masks"), relabel=np.zeros_like)
    write_tiny(Path("constant_images"), reimage=np.zeros_like)
    write_tiny(Path("changed_labels"))
    labels = np.load("changed_labels/b.labels.npy")
    np.save("changed_labels/b.labels.npy", np.where(labels > 0, labels + 1, 0).astype(np.uint8))


def write_pairs(folder, change=lambda mask: mask, image=lambda image: image):
    """Write three patients with three slices each, as PNG pairs."""
    for kind in ("images", "masks"):
        Path(folder, kind).mkdir(parents=True)
    labels = tile_labels(0)[0]
    for patient in "p1", "p2", "p3":
        for number in 1, 2, 3:
            grey = (labels * 20 + number * 7).astype(np.uint8)
            Image.fromarray(image(grey)).save(f"{folder}/images/{patient}_{number}.png")
            Image.fromarray(change(labels_to_rgb(labels))).save(f"{folder}/masks/{patient}_{number}.png")


COMMANDS = {
    "The command line": (
        "trian --config=configs/quickstart.py",
        "--confg=configs/quickstart.py",
        "evaluate",
        "--config=configs/quikstart.py",
        "--config=configs/quickstart.py --config.train.lerning_rate=0.1",
        "--config=configs/quickstart.py --config.data.size=large",
        "--config=configs/quickstart.py --config.data.size=0",
        "--config=configs/quickstart.py --config.data.channels=rgb",
        "--config=configs/transfer.py:huge",
        "evaluate --workdir=runs/quickstart",
        "inspect --workdir=empty",
    ),
    "Preparing data": (
        "prepare --source=png_pair --input=jpeg_masks --output=data/mine",
        "prepare --source=png_pairs --input=nowhere --output=data/mine",
        "prepare --source=png_pairs --input=jpeg_masks --block=32 --output=data/mine",
        "prepare --source=png_pairs --input=slices --output=data/mine",
        "prepare --source=png_pairs --input=jpeg_masks --output=data/mine",
        "prepare --source=png_pairs --input=grey_masks --output=data/mine",
        "prepare --source=png_pairs --input=unpaired --output=data/mine",
        "prepare --source=png_pairs --input=deep --output=data/mine",
        "prepare --source=nifti_pairs --input=jpeg_masks --output=data/mine",
        "prepare --source=dicom --input=study_with_gap --output=data/mine",
        "check --input=empty",
        "check --input=slices",
        "check --input=study_with_gap",
        "check --input=study_of_mr",
        "convert --input=photo.keras --output=brain_encoder",
    ),
    "Before step 1": (
        f"{TRAIN}changed_labels",
        f"{TRAIN}constant_images",
        f"{TRAIN}black_masks",
    ),
}


def other_guards():
    """The checks of guards that need a run or a foreign dataset, of numbers that these might give."""
    watch = Divergence()
    for loss in [1.5] + 10 * [40.0]:
        watch = watch.feed(loss, 10.0)
    for findings in (
        check_labels("patient b", np.array([0, 1, 9, 9]), HEART),
        check_loss(37, math.nan),
        watch.findings(11, 40.0, 10.0, 10),
        Collapse(4).findings(400, 0.0001, 0.066, 0.934, 4),
    ):
        yield functools.partial(apply_policy, findings, {finding.check: "stop" for finding in findings})
    yield Output(np.full((1, 4, 4, 9), np.nan), finite=False).checked


def page():
    """The page's text. Works in the current folder, which should be empty."""
    write_inputs()
    parts = [INTRODUCTION]
    for title, commands in COMMANDS.items():
        parts.append(f"## {title}\n")
        for command in commands:
            text, status = run(command)
            parts.append(f"`python main.py {command}` (exit {status})\n\n```\n{wrap(text)}\n```\n")
    parts.append("## Other guards\n")
    for check in other_guards():
        try:
            check()
        except GuardStop as stop:
            parts.append(f"```\n{wrap(f'stopped by the {stop}')}\n```\n")
    return "\n".join(parts)


def wrap(text, width=118):
    """Break long lines at blanks; a line that goes on is indented by four."""
    out = []
    for line in text.splitlines():
        while len(line) > width and (cut := line.rfind(" ", 8, width)) > 0:
            out.append(line[:cut])
            line = f"    {line[cut + 1 :]}"
        out.append(line)
    return "\n".join(out)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        made = page()
    PAGE.write_text(made, encoding="utf-8")
