"""What each output of a study says of itself: research use only, by which model, and with which warnings."""

from __future__ import annotations

from heartseg_jax import __version__
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.json_form import PROGRAM, RESEARCH_USE
from heartseg_jax.measure.results import Measurements
from heartseg_jax.preprocess.learned import in_words


def model_texts(prediction: Prediction) -> list[str]:
    """Return a line per model: its package, the digests of its checkpoint and config. No path: it may name anyone."""
    return [
        (f"{model.package} version {model.version} sha256:{model.package_sha256[:16]}, " if model.package else "")
        + f"checkpoint sha256:{model.checkpoint_sha256[:16]} step {model.step}, "
        + f"config sha256:{model.config_sha256[:16]}"
        for model in prediction.models
    ]


def taught_texts(prediction: Prediction) -> list[str]:
    """Return the line that says what a package was trained on; none for a run, whose folders may name anyone."""
    records = prediction.contract.learned_from
    if not prediction.models or not records or not all(model.package for model in prediction.models):
        return []
    return [f"trained on {in_words(records)}"]


def statement(prediction: Prediction, measurements: Measurements) -> list[str]:
    """Return the lines that every exporter writes: the research-use line, program and models, and the warnings."""
    return [
        f"{RESEARCH_USE}.",
        f"{PROGRAM} {__version__}",
        *model_texts(prediction),
        *taught_texts(prediction),
        *(f"Warning: {text}" for text in measurements.warnings),
    ]
