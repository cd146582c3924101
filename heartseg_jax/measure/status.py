"""Which answer a structure gets: measured, partial, absent or refused, and why. The rules are here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from heartseg_jax.findings import Finding
from heartseg_jax.measure.results import ABSENT, MEASURED, PARTIAL, REFUSED

EVERY, CUT = "every structure", "structures that are cut"


class Rule(NamedTuple):
    """What a finding on the block means for its structures.

    Attributes:
      refuses: `EVERY`, or `CUT`: those that touch the border of the field of view.
      withholds: whether the labels themselves cannot be trusted, so that none is written; else only the volume is
        refused.
    """

    refuses: str
    withholds: bool


RULES = {
    "too_few_slices": Rule(EVERY, False),
    "too_small": Rule(EVERY, False),
    "coarse_slices": Rule(EVERY, False),
    "coarse_pixels": Rule(EVERY, False),
    "no_contrast": Rule(EVERY, True),
    "padding_inside": Rule(EVERY, True),
    "no_lung": Rule(EVERY, True),
    # Coronary CTA often has a small field: a chamber that lies whole in it has its whole volume.
    "small_field": Rule(CUT, False),
    "short_block": Rule(CUT, False),
}
"""By check: those that rule out whole-heart volumes (`block_checks.EXCLUDES`), no more and no less."""
OF_HEART = ("no_contrast", "no_lung")
"""Checks that refuse structures of the heart only: others are no blood pools, and need not lie in the chest."""

LOW_AGREEMENT, LEAST_AGREEMENT = 0.8, 0.5
"""Mean pairwise Dice between models, or one model's views: below the first it is flagged, below the second the
structure is refused. Half is where two volumes of equal size share as much as either has alone; both are conventions,
not measured."""
BLOOD_HU = (0.0, 1500.0)
"""Mean of any blood pool of the heart: 30 to 60 HU without contrast, up to about 1000 in undiluted contrast."""


class Answer(NamedTuple):
    """A structure's status, the reason where it is not 'measured', and whether its labels are withheld."""

    status: str
    reason: str = ""
    withheld: bool = False


def answer(
    voxels: int,
    mean_hu: float | None,
    cut_face_share: float | None,
    agreement: float | None,
    findings: Sequence[Finding],
    spacing_known: bool,
    is_heart: bool,
    untaught: bool = False,
) -> Answer:
    """Return what a structure is answered; of several reasons to refuse it, the gravest: its labels before its volume.

    Args:
      voxels: how many it has.
      mean_hu: of these; None for 8-bit images.
      cut_face_share: share of its faces on the border; None for an absent one.
      agreement: mean pairwise Dice between models, or one model's views; 0 where only some find it, None where none
        does, and for one model without views.
      findings: on the block.
      spacing_known: whether a voxel has a volume.
      is_heart: whether it is a structure of the heart, so that it is full of blood.
      untaught: whether the model is known to have seen no label of it.
    """
    cut = bool(cut_face_share)
    refusals = []
    if untaught:  # what it calls so, and that it finds none, are both without reason
        refusals.append(Answer(REFUSED, "the model was never taught it", True))
    for finding in findings:
        rule = RULES.get(finding.check) if is_heart or finding.check not in OF_HEART else None
        if rule and (rule.refuses == EVERY or cut):
            reason = finding.seen if rule.refuses == EVERY else f"it touches the border: {finding.seen}"
            refusals.append(Answer(REFUSED, reason, rule.withholds))
    if agreement is not None and agreement < LEAST_AGREEMENT:
        who = "the models, or the views of one model,"
        refusals.append(Answer(REFUSED, f"{who} disagree (mean pairwise Dice {agreement:.2f})", True))
    if is_heart and mean_hu is not None and not BLOOD_HU[0] <= mean_hu <= BLOOD_HU[1]:
        refusals.append(Answer(REFUSED, f"its mean of {mean_hu:.0f} HU is not that of blood", True))
    if voxels and not spacing_known:
        refusals.append(Answer(REFUSED, "the spacing is unknown, and so is the volume"))
    if refusals:
        return max(refusals, key=lambda one: one.withheld)
    if not voxels:
        return Answer(ABSENT, "the model finds none of it")
    if cut:
        touching = f"it touches the border of the field of view ({percent(cut_face_share or 0)} of its surface)"
        return Answer(PARTIAL, f"{touching}: its volume is a lower bound")
    return Answer(MEASURED)


def percent(share: float) -> str:
    """Return '12 %', or 'less than 1 %'."""
    return f"{100 * share:.0f} %" if share >= 0.01 else "less than 1 %"
