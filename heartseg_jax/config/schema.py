"""Every field of a config, declared once: default, meaning, unit, range and choices."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from heartseg_jax.anatomy import LABEL_SETS
from heartseg_jax.config import channels
from heartseg_jax.config.words import closer_of, grid_of, shares_of
from heartseg_jax.errors import UserError

LARGE = 2**31 - 1
"""Upper limits are far beyond any sensible value: a typing error must not fill the memory or overflow."""


class Field(NamedTuple):
    """One field.

    Attributes:
      name: with dots, as after --config.
      default: its type is the field's; the members of a tuple give their number and types, an empty one takes words.
      meaning: one sentence without a full stop.
      unit: what a number counts or measures.
      least, most: the smallest and the largest value that is accepted, of each member of a tuple.
      above, below: limits that are not accepted themselves.
      choices: the words that are accepted.
    """

    name: str
    default: Any
    meaning: str
    unit: str = ""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: Collection[str] = ()

    @property
    def range(self) -> str:
        """What is accepted, in words; '' where any value of the type is."""
        if self.choices:
            return ", ".join(self.choices)
        if self.least is not None and self.most is not None:
            return f"{self.least:.10g} to {self.most:.10g}"
        low = f"at least {self.least:g}" if self.least is not None else ""
        low = f"above {self.above:g}" if self.above is not None else low
        high = f"at most {self.most:.10g}" if self.most is not None else ""
        high = f"below {self.below:g}" if self.below is not None else high
        return ", ".join(part for part in (low, high) if part)

    def check(self, value: Any) -> None:
        """Raise a UserError where the value has another type than the default, or is not accepted."""
        self._check_type(value, self.default)
        if self.choices and value not in self.choices:
            raise UserError(f"{self.name} must be one of {', '.join(self.choices)}, not '{value}'")
        for one in value if isinstance(value, tuple) else (value,):
            if (
                (self.least is not None and one < self.least)
                or (self.above is not None and one <= self.above)
                or (self.most is not None and one > self.most)
                or (self.below is not None and one >= self.below)
            ):
                raise UserError(f"{self.name} must be {self.range}, not {value}")

    def _check_type(self, value: Any, like: Any) -> None:
        if isinstance(like, tuple):
            if not isinstance(value, tuple) or (like and len(value) != len(like)):
                wanted = f"{len(like)} values such as {like}" if like else "a tuple of words"
                raise UserError(f"{self.name} needs {wanted}, not {value!r}")
            for member, expected in zip(value, like or ("",) * len(value), strict=True):
                self._check_type(member, expected)
        elif type(value) is not type(like) and not (isinstance(like, float) and type(value) is int):
            raise UserError(f"{self.name} needs a value of type {type(like).__name__} such as {like!r}, not {value!r}")
        elif isinstance(like, float) and not math.isfinite(value):
            raise UserError(f"{self.name} needs a finite number, not {value}")


POLICIES = "stop warn off"


def _choice(name: str, choices: str, meaning: str) -> Field:
    """Return a field of words; the first is the default."""
    words = tuple(choices.split())
    return Field(name, words[0], meaning, choices=words)


TABLE: tuple[Field, ...] = (
    Field("seed", 0, "every random choice of a run follows from this number", least=0, most=2**32 - 1),
    Field(
        "data.path",
        "",
        "dataset folder made by `prepare`, or several with commas between them (docs/data.md); empty: phantom "
        "patients, made by the run",
    ),
    Field(
        "data.shares",
        (),
        "how often the slices of each dataset of data.path are shown, relative to each other, such as '0.5,0.3,0.2'; "
        "empty: every slice once per epoch",
    ),
    Field("data.task", "heart", "the label set of the dataset", choices=LABEL_SETS),
    Field("data.test_patients", (), "ids of the test patients, instead of the dataset's own split"),
    Field("data.validation_patients", (), "ids, only together with data.test_patients; all other patients train"),
    Field("data.size", 512, "the network sees images of size x size", "pixels", least=8, most=4096),
    Field("data.detail", 1, "training slices are kept this many times larger, for closer views", least=1, most=8),
    Field(
        "data.closer",
        (),
        "shares of the side that what the first look found fills in closer looks, such as '0.5,0.7'; empty: none",
    ),
    Field("data.across_mm", 0.0, "a volume's probabilities are averaged across slices so far", "mm", least=0, most=50),
    Field("data.mm_per_pixel", 0.0, "0: the longer side of a slice is scaled to data.size", "mm", least=0, most=50),
    Field("data.batch_size", 4, "slices per step, over all devices", "slices", least=1, most=4096),
    Field(
        "data.channels",
        "repeat",
        "'repeat': one slice three times; 'adjacent': slices z-1, z, z+1; or a list of OFFSET or OFFSET:LOW..HIGH "
        "(a window in HU), such as '0:-200..600,0:-100..300,1'",
    ),
    _choice("data.normalise", "window percentile", "'percentile': each slice by its own data.percentiles"),
    Field("data.window_hu", (-200.0, 600.0), "the values that become 0 and 1", "HU", least=-1e5, most=1e5),
    Field("data.percentiles", (1.0, 99.0), "for 8-bit images of unknown window", "percent", least=0, most=100),
    _choice(
        "data.augment",
        "default none as_original randomised heart heart_flow",
        "of the training slices; only 'as_original' flips",
    ),
    Field("data.threads", 2, "threads that load slices while the device computes", "threads", least=1, most=256),
    Field("data.cache_gb", 2.0, "resampled slices kept in memory; 0: every slice is read again", "GB", least=0),
    _choice("data.resident", "auto on off", "all slices are kept on the device; 'auto': where they fit beside a step"),
    Field("data.phantom.train", 24, "used only while data.path is empty", "patients", least=1, most=100_000),
    Field("data.phantom.validation", 3, "used only while data.path is empty", "patients", least=0, most=100_000),
    Field("data.phantom.test", 6, "used only while data.path is empty", "patients", least=0, most=100_000),
    Field("data.phantom.seed", 0, "seed of the phantoms, independent of the run's", least=0, most=2**32 - 1),
    Field("data.phantom.shape", (32, 80, 80), "z, y, x", "voxels", least=1, most=2**20),
    Field("data.phantom.spacing_mm", (4.5, 3.0, 3.0), "z, y, x", "mm", least=0.05, most=50),
    Field("data.phantom.randomised_contrast", False, "tissue brightness at random (configs/synthetic.py)"),
    _choice("model.architecture", "unet", "the network: a name of models/registry.py"),
    Field("model.width", 64, "filters of the first level; doubled at each level", "filters", least=1, most=4096),
    Field("model.levels", 3, "resolutions, the bottom included", "levels", least=2, most=12),
    Field("model.fold", 1, "squares of this many pixels a side become channels: faster", "pixels", least=1, most=8),
    Field("model.num_classes", 0, "derived from data.task; no other number is accepted", "classes", least=0),
    _choice("model.norm", "none batch encoder", "BatchNorm; 'encoder': in the encoder only, as in the brain model"),
    Field("model.batch_norm_momentum", 0.9, "share of the old running statistics kept per step", above=0, below=1),
    Field("model.dropout", 0.0, "rate between the two convolutions of a decoder level", least=0, below=1),
    _choice("model.dtype", "float32 bfloat16", "of the computation; parameters and loss stay float32"),
    Field(
        "pretrained.path", "", "initial weights: 'brain16' (included), a Keras file, a run or a package; empty: random"
    ),
    _choice("pretrained.load", "encoder all", "'all' needs a run or a package of the same network"),
    Field(
        "pretrained.recalibrate_batches", 0, "to measure BatchNorm on again; 0: not", "batches", least=0, most=10_000
    ),
    _choice(
        "transfer.schedule",
        "none frozen full lp_ft staged surgical custom",
        "which parts learn when (docs/transfer.md)",
    ),
    Field("transfer.phases", (), "phases of 'custom', each 'LENGTH:GROUP[*RATE]+...', such as '2:decoder+head'"),
    Field("transfer.encoder_multiplier", 1.0, "times the learning rate, in encoder stages", least=0, most=1000),
    Field("transfer.rewarm_steps", 20, "linear rise after each thaw", "steps", least=0, most=LARGE),
    Field("transfer.control", False, "also train a control: the same with a frozen encoder of random weights"),
    Field("train.epochs", 75, "passes over the training slices", "epochs", least=1, most=1_000_000),
    Field("train.steps", 0, "length of the run; 0: train.epochs decides", "steps", least=0, most=LARGE),
    Field("train.learning_rate", 1e-3, "peak of the schedule", above=0, most=1e6),
    _choice("train.schedule", "cosine constant", "after the warm-up: 'cosine' falls to 1 % of the peak"),
    Field("train.warmup_steps", 50, "linear rise from 0; at most a tenth of the run", "steps", least=0, most=LARGE),
    _choice("train.optimizer", "adamw muon", "'muon': of kernels, with 'adamw' for the rest; fewer steps, large rates"),
    Field("train.weight_decay", 0.0, "AdamW's or Muon's, of kernels only", least=0),
    Field("train.clip_norm", 1.0, "largest global norm of the gradient; 0: not clipped", least=0),
    Field(
        "train.ema_decay", 0.0, "of the weights' moving average, which is then what is used; 0: none", least=0, below=1
    ),
    Field("train.dice_weight", 1.0, "weight of the batch Dice in the loss", least=0),
    Field("train.cross_entropy_weight", 1.0, "weight of the cross-entropy in the loss", least=0),
    Field("lab.arms", (), "names of the arms that `lab` compares; empty: all"),
    Field("lab.seeds", 2, "runs of each arm on each fold", "runs", least=1, most=1000),
    Field("lab.splits", (), "'patient' (each left out in turn), 'slice' (folds of random slices); empty: both"),
    Field("lab.train_patients", (), "numbers of training patients, such as '2'; '0': all others; empty: only that"),
    Field("lab.learning_rates", (), "tried on an inner patient, by every arm; empty: train.learning_rate, no trial"),
    Field("lab.looks", 6, "evaluations during a run, for its learning curve", least=1, most=10_000),
    Field("lab.synthetic_run", "", "run on phantoms from which the arm synthetic_full starts"),
    Field(
        "lab.heart_run", "", "run or package from which the arm heart_v1 starts, trained without the dataset's patients"
    ),
    _choice(
        "lab.replicas",
        "auto vmap one",
        "'vmap': folds in one program, three times slower on a CPU; 'one', 'auto': one after the other",
    ),
    Field("lab.workers", 0, "processes; 0: one per core of a CPU, else one", least=0, most=256),
    Field("lab.budget_only", False, "print the estimated cost and stop"),
    Field(
        "benchmark.configs",
        (),
        "config files that `benchmark` measures, such as 'configs/quickstart.py,configs/transfer.py:full'; empty: the "
        "config itself",
    ),
    _choice("benchmark.work", "both train infer", "training steps, predictions, or both"),
    Field("benchmark.sizes", (), "of images, such as '128,256'; empty: each config's data.size"),
    Field("benchmark.batches", (), "slices per step, such as '4,16'; empty: each config's data.batch_size"),
    Field("benchmark.dtypes", (), "such as 'float32,bfloat16'; empty: each config's model.dtype"),
    Field("benchmark.seconds", 2.0, "for which steps are timed", "s", above=0, most=3600),
    Field("benchmark.steps", 6, "timed at least, however long they take", "steps", least=2, most=1_000_000),
    Field("checkpoint.every_steps", 200, "between checkpoints; the last step always has one", "steps", least=1),
    Field("checkpoint.keep", 2, "newest checkpoints that are kept", "checkpoints", least=1),
    Field("log.every_steps", 20, "between lines of metrics.jsonl", "steps", least=1),
    Field("log.evaluate_every_epochs", 1, "between evaluations on the validation patients", "epochs", least=1),
    Field(
        "log.evaluate_every_steps", 0, "and at least this far apart; 0: for at most a tenth of a run", "steps", least=0
    ),
    Field("log.figures", True, "draw the figures"),
    _choice("log.colours", "display masks", "of figures: colour-blind-safe, or those of the mask files"),
    Field("postprocess.on", True, "predict removes far islands and fills holes"),
    Field(
        "postprocess.island_share",
        0.05,
        "an island of a structure is small below this share of its largest part",
        least=0,
        most=1,
    ),
    Field("postprocess.island_mm", 10.0, "a small island farther than this from it is removed", "mm", least=0),
    Field("postprocess.fill_holes", True, "background that one structure encloses becomes part of it"),
    Field("postprocess.leave", (), "names of structures that are left as they are"),
    _choice("guards.non_finite", POLICIES, "the loss is NaN or infinite"),
    _choice("guards.divergence", POLICIES, "the loss stays far above its start"),
    Field("guards.divergence_factor", 10.0, "how far: this many times the first loss", least=1),
    Field("guards.divergence_steps", 10, "how long: this many steps in a row", "steps", least=1),
    _choice("guards.collapse", POLICIES, "almost only background is predicted"),
    Field("guards.collapse_share", 0.02, "predicted foreground below this share of the true foreground"),
    Field("guards.collapse_evaluations", 4, "how long: this many evaluations in a row", "evaluations", least=1),
    _choice("guards.frozen", POLICIES, "what a phase freezes has changed, or what it trains has not"),
    _choice("guards.missing_labels", POLICIES, "a structure that the sources label is in no training slice"),
    _choice("guards.images", POLICIES, "images are constant, or outside the range of their unit"),
    _choice("guards.labels", POLICIES, "label values are neither of the label set nor 255"),
)
FIELDS: dict[str, Field] = {field.name: field for field in TABLE}

MOST_PHANTOM_VOXELS = 2**30


def defaults() -> ConfigDict:
    """Return a config in which every field has its default."""
    config = ConfigDict()
    for field in TABLE:
        *groups, leaf = field.name.split(".")
        owner = config
        for group in groups:
            if group not in owner:
                owner[group] = ConfigDict()
            owner = owner[group]
        owner[leaf] = field.default
    return config


def check_together(values: Mapping[str, Any]) -> None:
    """Raise a UserError for the first rule that `values`, dotted field -> value, break."""
    classes = LABEL_SETS[values["data.task"]].num_classes
    if values["model.num_classes"] not in (0, classes):
        raise UserError(
            f"model.num_classes must be {classes} for data.task={values['data.task']}, "
            f"not {values['model.num_classes']}; leave it out"
        )
    if values["model.norm"] == "none" and (values["pretrained.path"] or values["pretrained.recalibrate_batches"]):
        raise UserError(
            "model.norm=none has no BatchNorm, which pretrained.path and pretrained.recalibrate_batches need; "
            "give --config.model.norm=encoder"
        )
    if values["data.detail"] > 1:
        for field in ("pretrained.recalibrate_batches", "transfer.control"):
            if values[field]:
                raise UserError(
                    f"{field} measures slices as they are stored, and data.detail stores larger ones; give "
                    "--config.data.detail=1"
                )
    if values["pretrained.load"] == "all" and not values["pretrained.path"]:
        raise UserError("pretrained.load=all needs --config.pretrained.path=RUN")
    if values["train.dice_weight"] + values["train.cross_entropy_weight"] <= 0:
        raise UserError("train.dice_weight and train.cross_entropy_weight are both 0: nothing would be learned")
    if values["transfer.schedule"] == "custom" and not values["transfer.phases"]:
        raise UserError("transfer.schedule=custom needs transfer.phases, such as 1:decoder+head,2:all")
    channels.parse(values["data.channels"], None)
    closer_of(values["data.closer"])
    for axis, field in (("sizes", "data.size"), ("batches", "data.batch_size"), ("dtypes", "model.dtype")):
        for one in grid_of(f"benchmark.{axis}", values[f"benchmark.{axis}"], like=FIELDS[field].default):
            FIELDS[field]._replace(name=f"benchmark.{axis}").check(one)
    if shares_of(values["data.shares"]) and not values["data.path"]:
        raise UserError("data.shares is only used with --config.data.path=A,B")
    for field in ("data.window_hu", "data.percentiles"):
        low, high = values[field]
        if not low < high:
            raise UserError(f"{field} needs a lower and a higher value, not {values[field]}")
    low, high = values["data.window_hu"]
    if high - low < 1:
        raise UserError(f"data.window_hu must be at least 1 HU wide, not {values['data.window_hu']}")
    if 0 < values["data.mm_per_pixel"] < 0.05:
        raise UserError(f"data.mm_per_pixel must be 0 or at least 0.05 mm, not {values['data.mm_per_pixel']}")
    multiple = values["model.fold"] * 2 ** (values["model.levels"] - 1)
    if values["data.size"] % multiple:
        folded = f" and model.fold={values['model.fold']}" if values["model.fold"] > 1 else ""
        raise UserError(
            f"data.size must be a multiple of {multiple} for model.levels={values['model.levels']}{folded}, "
            f"not {values['data.size']}"
        )
    if values["data.validation_patients"] and not values["data.test_patients"]:
        raise UserError("data.validation_patients is read only together with data.test_patients")
    shape = values["data.phantom.shape"]
    if not values["data.path"] and math.prod(shape) > MOST_PHANTOM_VOXELS:
        raise UserError(f"data.phantom.shape must hold at most {MOST_PHANTOM_VOXELS} voxels, not {shape}")
