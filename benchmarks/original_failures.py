"""The original's black mask, made again: each suspected fault in a bare training loop, and what this project answers.

python benchmarks/original_failures.py DATASET runs/original_failures [--steps=1500]

The bare loop is what such projects have: the image divided by 255, Adam at 1e-3, the mean cross-entropy of integer
labels, argmax, accuracy. Nothing in it looks for faults. Then the same fault is given to this project's own command.
Writes `table.md`, `results.json` and `masks.png`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import optax

import main as command
from heartseg_jax.anatomy import HEART, IGNORED
from heartseg_jax.config import load
from heartseg_jax.data.dataset.records import digest
from heartseg_jax.data.dataset.write import Dataset, DatasetWriter, read_dataset
from heartseg_jax.data.examples import SliceStore
from heartseg_jax.evaluation import metrics
from heartseg_jax.figures import drawing
from heartseg_jax.interop.encoder import load_encoder
from heartseg_jax.models.unet import ConvBlock, Encoder, UNet
from heartseg_jax.preprocess.contract import input_spec

SIZE = 64  # pixels; four times 16, so that the encoder's bottom, 4 x 4 x 256, is an image of 64 x 64 again
WIDTH = 16
BATCH = 4
NORM = {False: "none", True: "encoder"}
SPLITS = ("train", "validation", "test")
GREYS = np.array([0, 255, 76, 29, 226, 150, 53, 179, 172], np.uint8)
"""What the masks' colours become where a mask is read as a grey picture (0.299 R + 0.587 G + 0.114 B)."""


class Slices(NamedTuple):
    """Slices of one split: `images` [N, 64, 64, 3] float32, as the network gets them, and `labels` [N, 64, 64]."""

    images: np.ndarray
    labels: np.ndarray


class Fault(NamedTuple):
    """One fault.

    `train` and `predict` change what the loop learns from and what it is asked about afterwards; `targets` makes of
    labels what its cross-entropy gets. With `brain` the network is the transfer network, the brain encoder frozen in
    it; otherwise the original's shallow one from random weights. `stored` makes (images, labels) uint8 [N, 64, 64] of
    a dataset with this fault, or is None where this project has no place for it.
    """

    name: str
    train: Callable[[np.ndarray], np.ndarray] = lambda x: x
    predict: Callable[[np.ndarray], np.ndarray] = lambda x: x
    targets: Callable[[np.ndarray], np.ndarray] = lambda y: y
    channels: int = HEART.num_classes
    one_hot: bool = False
    brain: bool = False
    stored: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None


def features_as_image(images: np.ndarray) -> np.ndarray:
    """Return the brain encoder's deepest features flattened and cut into rows: [N, 64, 64, 3] of the same shape."""
    encoder = load_encoder(Path("brain16"))
    variables = {"params": encoder.params, "batch_stats": encoder.batch_stats}
    run = jax.jit(
        lambda x: Encoder(WIDTH, 5, functools.partial(ConvBlock, norm=True)).apply(variables, x, train=False)[-1]
    )
    bottom = np.concatenate([np.asarray(run(images[i : i + BATCH])) for i in range(0, len(images), BATCH)])
    return np.repeat(bottom.reshape(len(images), SIZE, SIZE, 1), 3, axis=-1)


def features_in_8_bits(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the same as pictures that a dataset can hold, the brightest pixel 255."""
    features = features_as_image(np.repeat(images[..., None] / np.float32(255), 3, axis=-1))[..., 0]
    return np.round(255 * features / features.max()).astype(np.uint8), labels


FAULTS = (
    Fault("none (the loop as it should be)", stored=lambda x, y: (x, y)),
    Fault(
        "flattened features for an image",
        train=features_as_image,
        predict=features_as_image,
        stored=features_in_8_bits,
    ),
    Fault("label 8 and a head of 8 channels", channels=8, stored=lambda x, y: (x, np.where(y > 0, y + 1, 0))),
    Fault("label 8 and 8 channels, one-hot", channels=8, one_hot=True),
    Fault("masks read as grey levels", targets=lambda y: GREYS[y], stored=lambda x, y: (x, GREYS[y])),
    Fault("masks divided by 255 too", targets=lambda y: y // 255, stored=lambda x, y: (x, y // 255)),
    Fault(
        "images divided by 255 twice",
        train=lambda x: x / 255,
        predict=lambda x: x / 255,
        stored=lambda x, y: (x // 255, y),
    ),
    Fault("images never divided", train=lambda x: x * 255, predict=lambda x: x * 255),
    Fault("trained on 0 to 1, asked with 0 to 255", predict=lambda x: x * 255),
    Fault("trained on 0 to 255, asked with 0 to 1", train=lambda x: x * 255),
    Fault("trained on 0 to 1, divided twice when asked", predict=lambda x: x / 255),
    Fault("brain encoder, no fault", brain=True),
    Fault("brain encoder, images never divided", train=lambda x: x * 255, predict=lambda x: x * 255, brain=True),
    Fault("brain encoder, divided twice", train=lambda x: x / 255, predict=lambda x: x / 255, brain=True),
    Fault("brain encoder, trained on 0 to 1, asked with 0 to 255", predict=lambda x: x * 255, brain=True),
    Fault("brain encoder, trained on 0 to 1, divided twice when asked", predict=lambda x: x / 255, brain=True),
)


def slices_of(dataset: Dataset) -> dict[str, Slices]:
    """Return the dataset's slices on the network's grid, images from 0 to 1 by division only."""
    _, config = load.load("configs/scratch.py", {"data.size": str(SIZE), "data.mm_per_pixel": "0"})
    spec = input_spec(config.data, dataset.intensity)
    found = {}
    for split in SPLITS:
        store = SliceStore(dataset, split, spec)
        stored = store.gather(np.arange(len(store)), np.ones(len(store), np.float32))
        images = stored.image[..., 0].astype(np.float32) / 255
        labels = np.where(stored.label == IGNORED, 0, stored.label)
        found[split] = Slices(np.repeat(images[..., None], 3, axis=-1), labels)
    return found


def bare_loop(fault: Fault, slices: dict[str, Slices], steps: int) -> dict[str, Any]:
    """Train as the original did, with one fault, and return the scores and the predicted labels by split."""
    model = UNet(width=WIDTH, levels=5 if fault.brain else 3, num_classes=fault.channels, norm=NORM[fault.brain])
    images, labels = fault.train(slices["train"].images), fault.targets(slices["train"].labels).astype(np.int32)
    params = jax.jit(model.init, static_argnums=2)(jax.random.key(0), images[:1], False)["params"]
    tx = optax.adam(1e-3)
    frozen: dict[str, Any] = {}
    statistics: dict[str, Any] = {}
    if fault.brain:
        encoder = load_encoder(Path("brain16"))
        frozen, statistics = {"encoder": encoder.params}, {"encoder": encoder.batch_stats}
        params = {name: group for name, group in params.items() if name not in frozen}

    def logits_of(params: Any, image: jax.Array) -> Any:
        return model.apply({"params": {**params, **frozen}, "batch_stats": statistics}, image, False)

    def loss(params: Any, image: jax.Array, label: jax.Array) -> jax.Array:
        logits = logits_of(params, image)
        if fault.one_hot:
            return optax.softmax_cross_entropy(logits, jax.nn.one_hot(label, fault.channels)).mean()
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

    @jax.jit
    def step(params: Any, state: Any, image: jax.Array, label: jax.Array) -> tuple[Any, Any, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(params, image, label)
        updates, state = tx.update(gradient, state)
        return optax.apply_updates(params, updates), state, value

    state, value = tx.init(params), jnp.nan
    for number in range(steps):
        chosen = np.random.default_rng([0, number]).choice(len(images), BATCH, replace=False)
        params, state, value = step(params, state, images[chosen], labels[chosen])

    run = jax.jit(lambda x: logits_of(params, x).argmax(-1))
    found: dict[str, Any] = {"loss": float(value)}
    for split in ("train", "test"):
        asked = fault.predict(slices[split].images)
        predicted = np.stack([np.asarray(run(image[None]))[0] for image in asked]).astype(np.uint8)
        truth = slices[split].labels
        counts = metrics.confusion(truth, predicted, HEART, HEART.all_known)
        dice = [value for value in metrics.dice_from_counts(counts)[1:] if value is not None]
        seen = fault.targets(truth)
        found[split] = {
            # What such a loop prints: against the labels that it was given.
            "accuracy_it_prints": float((predicted == seen).mean()),
            "accuracy": metrics.pixel_accuracy(counts),
            "dice": sum(dice) / len(dice),
            "marked": float((predicted > 0).mean()),
            "truly": float((truth > 0).mean()),
        }
        found[f"{split}_labels"] = predicted
    return found


def write(dataset: Dataset, slices: dict[str, Slices], fault: Fault, path: Path) -> None:
    """Write a dataset with the fault; values that the writer would refuse are put in behind its back."""
    assert fault.stored is not None
    with DatasetWriter(
        path, intensity="uint8", height=SIZE, width=SIZE, label_set=HEART, source={"kind": "benchmark"}
    ) as writer:
        for split in SPLITS:
            images, labels = _stored(fault, slices[split])
            writer.add(split, images, np.minimum(labels, HEART.num_classes - 1), names=_names(images), split=split)
    index = json.loads((path / "dataset.json").read_text())
    for split in SPLITS:
        labels = _stored(fault, slices[split])[1]
        np.save(path / f"{split}.labels.npy", labels)
        for patient in (entry for entry in index["patients"] if entry["id"] == split):
            patient["sha256"]["labels"] = digest(labels)
    (path / "dataset.json").write_text(json.dumps(index))


def _stored(fault: Fault, slices: Slices) -> tuple[np.ndarray, np.ndarray]:
    assert fault.stored is not None
    images = np.round(slices.images[..., 0] * 255).astype(np.uint8)
    changed, labels = fault.stored(images, slices.labels)
    return changed.astype(np.uint8), labels.astype(np.uint8)


def _names(images: np.ndarray) -> list[str]:
    return [f"slice{number}" for number in range(len(images))]


def ours(fault: Fault, dataset: Dataset, slices: dict[str, Slices], folder: Path, steps: int) -> str:
    """Return what this project's own command says of a dataset with the fault: exit status and first line."""
    if fault.stored is None:
        return "no such setting"
    write(dataset, slices, fault, folder / "data")
    epochs = -(-steps // -(-len(slices["train"].images) // BATCH))
    words = {
        "data.path": folder / "data",
        "data.size": SIZE,
        "model.width": WIDTH,
        "train.epochs": epochs,
        "train.learning_rate": 3e-3,
        "log.evaluate_every_epochs": max(epochs // 8, 1),
        "log.figures": "false",
    }
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        flags = [f"--config.{field}={value}" for field, value in words.items()]
        status = command.main(["--config=configs/scratch.py", f"--workdir={folder / 'run'}", *flags])
    if status == 0:
        summary = json.loads((folder / "run" / "evaluation" / "summary.json").read_text())
        return f"trains: test Dice {summary['mean_dice']:.2f}"
    line = next(row for row in said.getvalue().splitlines() if " guard: " in row or row.startswith("error: "))
    return f"exit {status}: {line.removeprefix('error: ')}"


def draw(shown: list[tuple[str, np.ndarray, np.ndarray]], path: Path, title: str) -> None:
    """Draw (fault, image [H, W] from 0 to 1, labels [H, W]) in a grid of five columns; a black mask is named."""
    rows = -(-len(shown) // 5)
    with drawing.canvas(path, 10.0, 2.45 * rows + 0.5) as figure:
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        for axes in figure.subplots(rows, 5, squeeze=False).flat:
            drawing.picture_axes(axes)
        for axes, (name, image, labels) in zip(figure.axes, shown, strict=False):
            drawing.show_image(axes, image)
            drawing.show_labels(axes, labels, drawing.Palette(HEART, "display"))
            axes.set_title(textwrap.fill(name, 24), fontsize=8, loc="left")
            if not labels.any():
                axes.set_xlabel("black: no pixel is marked", fontsize=8, color="#B00000")


def main(argv: list[str]) -> None:
    """Run every fault in the bare loop and in this project, and write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    asked = parser.parse_args(argv)
    dataset = read_dataset(asked.dataset)
    if dataset.intensity != "uint8":
        parser.error("the original read 8-bit pictures; give a dataset of such")
    asked.output.mkdir(parents=True)
    slices = slices_of(dataset)
    rows = [
        "| fault | accuracy printed | accuracy | Dice, trained slices | marked there / truly | Dice, unseen patient | "
        "marked there / truly | this project |",
        "|---|---|---|---|---|---|---|---|",
    ]
    at = int(np.argmax((slices["train"].labels > 0).sum(axis=(1, 2))))
    image = slices["train"].images[at, ..., 0]
    shown, results = [("truth", image, slices["train"].labels[at])], {}
    for number, fault in enumerate(FAULTS):
        found = bare_loop(fault, slices, asked.steps)
        answer = ours(fault, dataset, slices, asked.output / f"fault{number}", asked.steps)
        train, test = found["train"], found["test"]
        results[fault.name] = {"loss": found["loss"], "train": train, "test": test, "this_project": answer}
        cells = [fault.name, f"{train['accuracy_it_prints']:.3f}", f"{train['accuracy']:.3f}"]
        for split in (train, test):
            cells += [f"{split['dice']:.2f}", f"{100 * split['marked']:.1f} % / {100 * split['truly']:.1f} %"]
        rows.append(f"| {' | '.join([*cells, answer])} |")
        print(rows[-1], flush=True)
        shown.append((fault.name, image, found["train_labels"][at]))
    (asked.output / "table.md").write_text("\n".join(rows) + "\n")
    (asked.output / "results.json").write_text(json.dumps(results, indent=1))
    title = f"A training slice as a loop without guards marks it after {asked.steps} steps, by fault"
    draw(shown, asked.output / "masks.png", title)


if __name__ == "__main__":
    main(sys.argv[1:])
