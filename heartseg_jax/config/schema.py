"""Which values the fields of a config may have. No JAX here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from heartseg_jax.anatomy import LABEL_SETS
from heartseg_jax.errors import UserError

CHOICES: dict[str, tuple[str, ...]] = {
    "data.channels": ("repeat", "adjacent"),
    "data.task": tuple(LABEL_SETS),
    "data.normalise": ("window", "percentile"),
    "data.augment": ("none", "default", "as_original", "randomised"),
    "model.norm": ("none", "batch", "encoder"),
    "model.dtype": ("float32", "bfloat16"),
    "lab.replicas": ("auto", "vmap", "one"),
    "pretrained.load": ("encoder", "all"),
    "train.schedule": ("cosine", "constant"),
    "transfer.schedule": ("none", "frozen", "full", "lp_ft", "staged", "surgical", "custom"),
    **{
        f"guards.{name}": ("stop", "warn", "off")
        for name in ("non_finite", "divergence", "collapse", "frozen", "missing_labels", "images", "labels")
    },
}

AT_LEAST: dict[str, float] = {
    "seed": 0,
    "data.phantom.seed": 0,
    "data.size": 8,
    "data.mm_per_pixel": 0,
    "data.batch_size": 1,
    "data.threads": 1,
    "data.cache_gb": 0,
    "data.phantom.train": 1,
    "data.phantom.validation": 0,
    "data.phantom.test": 0,
    "model.width": 1,
    "model.levels": 2,
    "lab.seeds": 1,
    "lab.looks": 1,
    "lab.workers": 0,
    "pretrained.recalibrate_batches": 0,
    "transfer.encoder_multiplier": 0,
    "transfer.rewarm_steps": 0,
    "train.epochs": 1,
    "train.steps": 0,
    "train.warmup_steps": 0,
    "train.weight_decay": 0,
    "train.clip_norm": 0,
    "train.dice_weight": 0,
    "train.cross_entropy_weight": 0,
    "checkpoint.every_steps": 1,
    "checkpoint.keep": 1,
    "log.every_steps": 1,
    "log.evaluate_every_epochs": 1,
    "log.evaluate_every_steps": 0,
    "guards.divergence_factor": 1,
    "guards.divergence_steps": 1,
    "guards.collapse_evaluations": 1,
}

AT_MOST: dict[str, float] = {
    "seed": 2**32 - 1,
    "data.phantom.seed": 2**32 - 1,
    "data.size": 4096,
    "data.batch_size": 4096,
    "data.threads": 256,
    "data.mm_per_pixel": 50,
    "data.phantom.train": 100_000,
    "data.phantom.validation": 100_000,
    "data.phantom.test": 100_000,
    "model.width": 4096,
    "model.levels": 12,
    "lab.seeds": 1000,
    "lab.looks": 10_000,
    "lab.workers": 256,
    "pretrained.recalibrate_batches": 10_000,
    "transfer.encoder_multiplier": 1000,
    "transfer.rewarm_steps": 2**31 - 1,
    "train.epochs": 1_000_000,
    "train.steps": 2**31 - 1,
    "train.learning_rate": 1e6,
    "train.warmup_steps": 2**31 - 1,
}
"""Far beyond what is ever meant: a slip of the finger must not fill the memory or overflow."""
MOST_PHANTOM_VOXELS = 2**30


def check(values: Mapping[str, Any]) -> None:
    """Raise a UserError for the first of `values` (dotted field -> value) that cannot be meant."""
    for field, choices in CHOICES.items():
        if field in values and values[field] not in choices:
            raise UserError(f"{field} must be one of {', '.join(choices)}, not '{values[field]}'")
    for field, least in AT_LEAST.items():
        if field in values and values[field] < least:
            raise UserError(f"{field} must be at least {least:g}, not {values[field]}")
    for field, most in AT_MOST.items():
        if field in values and values[field] > most:
            raise UserError(f"{field} must be at most {most}, not {values[field]}")
    if values["train.learning_rate"] <= 0:
        raise UserError(f"train.learning_rate must be above 0, not {values['train.learning_rate']}")
    classes = LABEL_SETS[values["data.task"]].num_classes
    if values["model.num_classes"] != classes:
        raise UserError(f"model.num_classes must be {classes}, background included, not {values['model.num_classes']}")
    if values["model.norm"] == "none" and (values["pretrained.path"] or values["pretrained.recalibrate_batches"]):
        raise UserError(
            "model.norm=none has no BatchNorm, and pretrained.path and pretrained.recalibrate_batches need it; "
            "give --config.model.norm=encoder"
        )
    if values["pretrained.load"] == "all" and not values["pretrained.path"]:
        raise UserError("pretrained.load=all needs --config.pretrained.path=RUN")
    if not 0 <= values["model.dropout"] < 1:
        raise UserError(f"model.dropout must be from 0 to below 1, not {values['model.dropout']}")
    if not 0 < values["model.batch_norm_momentum"] < 1:
        raise UserError(
            f"model.batch_norm_momentum must lie between 0 and 1, not {values['model.batch_norm_momentum']}"
        )
    if values["train.dice_weight"] + values["train.cross_entropy_weight"] <= 0:
        raise UserError("train.dice_weight and train.cross_entropy_weight are both 0: nothing would be learned")
    for field in ("data.window_hu", "data.percentiles"):
        low, high = values[field]
        if not low < high:
            raise UserError(f"{field} needs a lower and a higher value, not {values[field]}")
    low, high = values["data.window_hu"]
    if high - low < 1 or max(-low, high) > 1e5:
        raise UserError(
            f"data.window_hu must be at least 1 HU wide and within 100000 HU, not {values['data.window_hu']}"
        )
    if 0 < values["data.mm_per_pixel"] < 0.05:
        raise UserError(f"data.mm_per_pixel must be 0 or at least 0.05 mm, not {values['data.mm_per_pixel']}")
    low, high = values["data.percentiles"]
    if low < 0 or high > 100:
        raise UserError(f"data.percentiles must lie from 0 to 100, not {values['data.percentiles']}")
    step = 2 ** (values["model.levels"] - 1)
    if values["data.size"] % step:
        raise UserError(
            f"data.size must be a multiple of {step} for model.levels={values['model.levels']}, "
            f"not {values['data.size']}"
        )
    if values["data.validation_patients"] and not values["data.test_patients"]:
        raise UserError("data.validation_patients is read only together with data.test_patients")
    if not values["data.path"]:
        shape, spacing = values["data.phantom.shape"], values["data.phantom.spacing_mm"]
        if min(shape + spacing) <= 0:
            raise UserError("data.phantom.shape and data.phantom.spacing_mm must be positive")
        if math.prod(shape) > MOST_PHANTOM_VOXELS:
            raise UserError(f"data.phantom.shape must hold at most {MOST_PHANTOM_VOXELS} voxels, not {shape}")
        if min(spacing) < 0.05 or max(spacing) > 50:
            raise UserError(f"data.phantom.spacing_mm must lie from 0.05 to 50 mm, not {spacing}")
