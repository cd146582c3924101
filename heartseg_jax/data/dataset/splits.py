"""Which patient is in which split; with only one patient, which block of slices. No files here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from heartseg_jax.errors import UserError

SPLITS = ("train", "validation", "test")
GAP = "gap"
"""Split of a slice that is in none: the buffer between the blocks of one patient."""


def split_sizes(count: int, fractions: Sequence[float]) -> tuple[int, int, int]:
    """Return how many of `count` patients go to (train, validation, test).

    `fractions` are three shares that add up to 1, or three whole numbers that add up to `count`. With
    three patients or more every split of a share above 0 gets at least one; with two, one trains and
    one tests; a single one trains.

    Raises:
      UserError: for anything else.
    """
    if len(fractions) != 3 or min(fractions) < 0 or not np.all(np.isfinite(fractions)):
        raise UserError(f"a split needs three numbers (train, validation, test) of 0 or more: not {tuple(fractions)}")
    if all(isinstance(f, int) for f in fractions) and sum(fractions) == count:
        return (int(fractions[0]), int(fractions[1]), int(fractions[2]))
    if abs(sum(fractions) - 1.0) > 1e-6:
        raise UserError(
            f"the split {tuple(fractions)} neither adds up to 1 (shares) nor to {count} (numbers of patients)"
        )
    wanted = sum(f > 0 for f in fractions)
    if count < wanted:
        return (count, 0, 0) if count <= 1 else (1, 0, 1)
    # Rounded half up; the rest trains, so a small data set gives its odd patient to training.
    validation, test = (max(1, int(count * f + 0.5)) if f > 0 else 0 for f in fractions[1:])
    while fractions[0] > 0 and validation + test >= count:
        validation, test = (validation - 1, test) if validation > test else (validation, test - 1)
    if fractions[0] == 0 and validation + test != count:
        validation, test = (count - test, test) if fractions[1] > 0 else (0, count)
    return (count - validation - test, validation, test)


def assign_splits(
    patient_ids: Sequence[str], fractions: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0
) -> dict[str, str]:
    """Return `{patient id: split}`, drawn by `seed` and independent of the order of `patient_ids`.

    See `split_sizes` for `fractions`.
    """
    ids = sorted(set(patient_ids))
    sizes = split_sizes(len(ids), fractions)
    order = np.random.default_rng(seed).permutation(len(ids))
    names = np.repeat(SPLITS, sizes).tolist()
    drawn = {ids[index]: split for index, split in zip(order, names, strict=True)}
    return {patient: drawn[patient] for patient in ids}


def block_splits(
    num_slices: int, fractions: Sequence[float] = (0.7, 0.15, 0.15), gap: int | None = None
) -> tuple[str, ...]:
    """Return the split of each slice of a single patient: train | gap | validation | gap | test.

    Neighbouring slices are nearly the same image, so `gap` slices (default 5 % of all, at least one)
    between two blocks are in none. Under five slices everything trains. Whatever is measured on such
    a split is memorisation, not generalisation.
    """
    if num_slices < 5:
        return ("train",) * num_slices
    shares = np.array(split_sizes(1000, fractions)) / 1000.0
    gap = max(1, round(0.05 * num_slices)) if gap is None else gap
    used = [(name, share) for name, share in zip(SPLITS, shares, strict=True) if share > 0]
    room = num_slices - gap * (len(used) - 1)
    if room < len(used):
        raise UserError(f"{num_slices} slices have no room for {len(used)} blocks {gap} slices apart")
    sizes = [max(1, int(room * share)) for _, share in used]
    sizes[0] += room - sum(sizes)
    splits: list[str] = []
    for (name, _), size in zip(used, sizes, strict=True):
        splits += ([GAP] * gap if splits else []) + [name] * size
    return tuple(splits)
