"""Codes and items that all groups of the structured report share."""

from __future__ import annotations

from highdicom.sr import CodedConcept, QualitativeEvaluation, RelationshipTypeValues, TextContentItem
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from heartseg_jax.export.segments import PRIVATE_SCHEME

MM = Code("mm", "UCUM", "millimeter")
RATIO = Code("1", "UCUM", "no units")
STATUS = Code("STATUS", PRIVATE_SCHEME, "Status of the measurement")


def status_of(status: str) -> QualitativeEvaluation:
    """Return a status as an evaluation of the private scheme."""
    return QualitativeEvaluation(STATUS, CodedConcept(status.upper(), PRIVATE_SCHEME, status))


def comment(text: str) -> TextContentItem:
    """Return text as a comment on what contains it."""
    return TextContentItem(codes.DCM.Comment, text, RelationshipTypeValues.CONTAINS)
