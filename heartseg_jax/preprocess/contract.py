"""What the network sees of a slice, and what a checkpoint states beside its arrays. No JAX, no files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heartseg_jax.anatomy import LABEL_SETS, LabelSet
from heartseg_jax.config.channels import Channels, Window, parse
from heartseg_jax.config.words import closer_of
from heartseg_jax.errors import UserError
from heartseg_jax.findings import REFUSE, WARN, Finding
from heartseg_jax.imaging.volume import AIR_HU
from heartseg_jax.preprocess.learned import Learned, part_of, taught

VERSION = 2
"""1: no version number, `view` with channels 'repeat' or 'adjacent'; 2: `input` with its channels as data."""
UNITS = ("HU", "uint8", "tissue", "any")
"""Of stored values. "tissue": codes that an image is synthesised from; "any": a model trained on several of them."""


@dataclass(frozen=True)
class InputSpec:
    """What the network sees of a slice.

    Attributes:
      intensity: unit of the stored values, one of `UNITS`; 'any' is for the model, not for slices: see `for_intensity`.
      size: pixels; the network sees `size x size`.
      mm_per_pixel: mm, or 0 where the slice's longer side is scaled to `size`.
      channels: for each channel the offset of the slice it shows (0 is the slice itself, 1 the next towards Superior)
        and its window: the stored values that become 0 and 1, or None for the slice's own `percentiles`.
      percentiles: of the pixels brighter than air; they become 0 and 1 where a channel has no window.
      closer: the shares of the image's side that closer looks give to the box around what the first look found; their
        probabilities are averaged. Empty: no closer look.
      across_mm: standard deviation of the Gaussian by which the probabilities of a volume's slices are averaged with
        those of their neighbours, in mm; 0: each slice stands alone.
    """

    intensity: str
    size: int
    mm_per_pixel: float
    channels: Channels
    percentiles: tuple[float, float]
    closer: tuple[float, ...] = ()
    across_mm: float = 0.0

    def __post_init__(self) -> None:
        lengths_mm = (self.mm_per_pixel, self.across_mm)
        numbers = (*lengths_mm, *self.percentiles, *(n for _, window in self.channels for n in window or ()))
        whole = (self.size, *(offset for offset, _ in self.channels))
        if self.intensity not in UNITS:
            raise ValueError(f"intensity must be one of {', '.join(UNITS)}, not {self.intensity!r}")
        if not all(type(number) in (int, float) for number in numbers) or not all(type(n) is int for n in whole):
            raise ValueError("size and offsets must be whole numbers, windows and percentiles numbers")
        if self.size < 1 or not 0 <= self.mm_per_pixel < 1e4 or not 0 <= self.across_mm < 1e2 or not self.channels:
            raise ValueError("size must be at least 1, mm_per_pixel and across_mm from 0, and there must be a channel")
        if not all(type(share) in (int, float) and 0 < share < 1 for share in self.closer):
            raise ValueError("shares of closer looks must be above 0 and below 1")
        if not all(low < high for low, high in (self.percentiles, *(w for _, w in self.channels if w))):
            raise ValueError("windows and percentiles need a lower and a higher value")

    def finer(self, detail: int) -> InputSpec:
        """Return the input with `detail` times as many pixels a side, of the same field of view."""
        return dataclasses.replace(self, size=self.size * detail, mm_per_pixel=self.mm_per_pixel / detail)

    @property
    def fill(self) -> int:
        """The stored value of air: what lies outside of a slice."""
        if self.intensity == "any":
            raise ValueError("the unit of the slices must be chosen, see for_intensity")
        return AIR_HU if self.intensity == "HU" else 0

    @property
    def offsets(self) -> tuple[int, ...]:
        """The offset of each plane of a stored image: one plane where all channels show the same slice."""
        offsets = tuple(offset for offset, _ in self.channels)
        return offsets[:1] if len(set(offsets)) == 1 else offsets

    @property
    def needs_neighbours(self) -> bool:
        """Whether a channel shows another slice than the one that is labelled."""
        return any(offset for offset, _ in self.channels)

    def for_intensity(self, intensity: str) -> tuple[InputSpec, list[Finding]]:
        """Return the input for values of another unit, and the finding that refuses it or warns of it.

        Percentiles adapt to any unit; a fixed window does not. Images synthesised from tissue codes fit any model.
        """
        if intensity == self.intensity:
            return self, []
        if self.intensity == "any" or intensity == "tissue":
            return dataclasses.replace(self, intensity=intensity), []
        text = f"the model was trained on {self.intensity}, the images are {intensity}"
        if any(window for _, window in self.channels):
            fix = "train with --config.data.normalise=percentile to use the model on both"
            return self, [Finding(REFUSE, "intensity", f"{text}, and its window is fixed", fix=fix)]
        found = Finding(WARN, "intensity", f"{text}; they are normalised by their percentiles")
        return dataclasses.replace(self, intensity=intensity), [found]


def input_spec(data: Any, intensity: str) -> InputSpec:
    """Return what a config's `data` group asks for, for data of this intensity unit or of several, such as "HU+uint8".

    8-bit images have no known window, so they are normalised by percentiles whatever `data.normalise` says. A model of
    several units is for any, and so is one of tissue codes, whose images stand for both, unless a window is fixed.

    Raises:
      UserError: the data are of two units and `data.normalise` is a window, or `data.channels` has windows that the
        data cannot be seen through.
    """
    units = intensity.split("+")
    pictures = [unit for unit in units if unit != "tissue"]
    if data.normalise == "window" and len(pictures) > 1:
        raise UserError(
            "one dataset holds HU and another 8-bit images, which have no window in HU; give "
            "--config.data.normalise=percentile"
        )
    window: Window = None
    if data.normalise == "window" and pictures == ["HU"]:
        window = (float(data.window_hu[0]), float(data.window_hu[1]))
    channels = parse(data.channels, window)
    windows = {own for _, own in channels}
    if pictures != ["HU"] and windows != {None}:
        what = "8-bit images" if "uint8" in pictures else "tissue maps"
        raise UserError(
            f"data.channels={data.channels} has windows in HU and the dataset holds {what}; give offsets only, "
            "such as --config.data.channels=repeat"
        )
    if "tissue" in units and len(windows) > 1:
        raise UserError(
            f"data.channels={data.channels} has several windows, and images made from tissue maps have one; give "
            "--config.data.channels=repeat"
        )
    seen = pictures[0] if len(pictures) == 1 and (units == pictures or windows != {None}) else "any"
    (low, high), closer, across = data.percentiles, closer_of(data.closer), float(data.across_mm)
    return InputSpec(seen, data.size, float(data.mm_per_pixel), channels, (float(low), float(high)), closer, across)


@dataclass(frozen=True)
class Contract:
    """What a checkpoint states beside its arrays: how its input is made and what it was trained on.

    Attributes:
      input: what the network sees of a slice.
      task: name of the label set.
      dataset: the dataset folder at the time of training; noted, not compared.
      dataset_identity: digest of what the run learns from.
      per_epoch: steps per epoch.
      phases: for each phase its first step (from 1) and each group's learning-rate multiplier; empty in checkpoints
        from before there were phases, which had one.
      learned_from: the datasets that it has learned from, those of its initial weights included; empty in checkpoints
        from before this was recorded. Noted, not compared: `dataset_identity` covers it.
    """

    input: InputSpec
    task: str
    dataset: str
    dataset_identity: str
    per_epoch: int
    phases: tuple[Mapping[str, Any], ...] = ()
    learned_from: tuple[Learned, ...] = ()

    @property
    def taught(self) -> dict[str, tuple[str, ...]] | None:
        """Of which kinds of images each structure was taught; None where that is not recorded."""
        return taught(self.learned_from, [structure.name for structure in self.label_set.foreground])

    @property
    def merge(self) -> tuple[int, ...]:
        """The label that each channel counts as in a prediction: what was only taught in a union, as that union."""
        labels = {structure.name: structure.label for structure in self.label_set.foreground}
        found = list(self.label_set.all_known)
        for name, head in part_of(self.learned_from, labels).items():
            found[labels[name]] = labels[head]
        return tuple(found)

    @property
    def label_set(self) -> LabelSet:
        """What the network's output channels mean."""
        return LABEL_SETS[self.task]

    def differences(self, other: Contract) -> list[str]:
        """Return the names of the attributes in which a run that goes on must not differ, and does."""
        one_phase = not (self.phases and other.phases) and len(self.phases or other.phases) < 2
        skipped = {"dataset", "learned_from", *(["phases"] if one_phase else [])}
        names = (field.name for field in dataclasses.fields(self) if field.name not in skipped)
        return [name for name in names if getattr(self, name) != getattr(other, name)]

    def to_json(self) -> dict[str, Any]:
        """Return the contract as plain JSON; `from_json` reads it."""
        return {"version": VERSION, **_plain(dataclasses.asdict(self))}

    @classmethod
    def from_json(cls, content: Any, where: str) -> Contract:
        """Return the contract that `to_json` of this version or an earlier one wrote; `where` names its checkpoint.

        Raises:
          UserError: it is of a later version, lacks a key, or holds a value of another type.
        """
        try:
            if not isinstance(content, Mapping):
                raise TypeError(f"{content!r} is not an object")
            version = content.get("version", 1)
            if version not in (1, VERSION):
                raise UserError(f"the contract of {where} is of version {version}; this program reads up to {VERSION}")
            return cls(
                input=_input_of_version_1(content["view"]) if version == 1 else _input(content["input"]),
                # Checkpoints from before there were tasks are of the heart.
                task=_one_of(content.get("task", "heart") if version == 1 else content["task"], LABEL_SETS),
                dataset=_typed(content["dataset"], str),
                dataset_identity=_typed(content["dataset_identity"], str),
                per_epoch=_typed(content["per_epoch"], int),
                phases=tuple(_phase(phase, first=version - 1) for phase in content.get("phases", ())),
                learned_from=tuple(Learned.from_json(one) for one in content.get("learned_from", ())),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise UserError(
                f"{where} does not state what it was trained on (its contract: {reason}); use another checkpoint"
            ) from error


def _input(content: Mapping[str, Any]) -> InputSpec:
    channels = tuple((offset, None if window is None else _pair(window)) for offset, window in content["channels"])
    low, high = content["percentiles"]
    closer = content.get("closer", ())  # older ones have none, or one share, or 0 for none
    shares = tuple(closer) if isinstance(closer, list | tuple) else (closer,) if closer else ()
    size, mm_per_pixel, across_mm = content["size"], content["mm_per_pixel"], content.get("across_mm", 0.0)
    return InputSpec(content["intensity"], size, mm_per_pixel, channels, (low, high), shares, across_mm)


def _input_of_version_1(view: Mapping[str, Any]) -> InputSpec:
    window = _pair(view["window_hu"]) if _one_of(view["normalise"], ("window", "percentile")) == "window" else None
    channels = parse(_one_of(view["channels"], ("repeat", "adjacent")), window)
    return InputSpec(view["intensity"], view["size"], view["mm_per_pixel"], channels, _pair(view["percentiles"]))


def _pair(value: Any) -> tuple[float, float]:
    low, high = value
    return low, high


def _phase(content: Any, first: int) -> dict[str, Any]:
    """Return a phase with its steps counted from 1; `first` is the number of a run's first step in its version."""
    multipliers = {_typed(group, str): float(rate) for group, rate in content["multipliers"].items()}
    return {"first_step": _typed(content["first_step"], int) + 1 - first, "multipliers": multipliers}


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not of type {kind.__name__}")
    return value


def _one_of(value: Any, choices: Any) -> Any:
    if _typed(value, str) not in choices:
        raise ValueError(f"{value!r} is none of {', '.join(choices)}")
    return value


def _plain(value: Any) -> Any:
    """Return nested mappings and tuples as dicts and lists."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, tuple | list) else value
