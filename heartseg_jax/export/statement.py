"""What each output of a study says of itself: research use only, by which model, and with which warnings."""

from __future__ import annotations

from heartseg_jax import __version__
from heartseg_jax.inference.study import Prediction
from heartseg_jax.measure.json_form import PROGRAM, RESEARCH_USE
from heartseg_jax.measure.results import Measurements


def model_texts(prediction: Prediction) -> list[str]:
    """Return a line per model: the digests of its checkpoint and config. No path: it may name anyone."""
    return [
        f"checkpoint sha256:{model.checkpoint_sha256[:16]} step {model.step}, config sha256:{model.config_sha256[:16]}"
        for model in prediction.models
    ]


def statement(prediction: Prediction, measurements: Measurements) -> list[str]:
    """Return the lines that every exporter writes: the research-use line, program and models, and the warnings."""
    return [
        f"{RESEARCH_USE}.",
        f"{PROGRAM} {__version__}",
        *model_texts(prediction),
        *(f"Warning: {text}" for text in measurements.warnings),
    ]
