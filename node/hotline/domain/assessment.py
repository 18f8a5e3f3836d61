"""What a qualification of an item is, what it lets out, and how a second one is weighed. Never changes a state.

Qualification is under this country's law, by a person: here it is only carried and compared.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from protocol.bodies import Flags, Qualification
from protocol.codes import Age, Classification, Gender

_ILLEGAL = frozenset({Classification.BASELINE, Classification.NATIONAL})


@dataclass(frozen=True, slots=True)
class Assessment:
    """One qualification. `None` means not said; `law` is the legal basis, `by` the analyst.

    `at` is when it was made, or when this node was told where that was not said; UTC.
    """

    classification: Classification
    at: datetime
    age: Age | None = None
    gender: Gender | None = None
    virtual: bool | None = None
    user_generated: bool | None = None
    child_modelling: bool | None = None
    law: str | None = None
    by: str | None = None

    @property
    def illegal(self) -> bool:
        """Whether it qualifies the item as illegal, internationally (baseline) or nationally."""
        return self.classification in _ILLEGAL


class AssessmentFault(StrEnum):
    """Why a qualification is refused."""

    BASELINE_FINAL = "baseline-final"


class AssessmentRefused(Exception):  # noqa: N818 -- names the fact, as the callers and the documents do
    """The item's qualification cannot become the one asked for."""

    def __init__(self, reason: AssessmentFault, sentence: str) -> None:
        """Name the rule that stands against it."""
        super().__init__(f"{reason}: {sentence}")
        self.reason = reason
        self.sentence = sentence


class Merge(StrEnum):
    """What a qualification that came with a duplicate does to the item already known."""

    KEPT = "kept"
    """The one held stays; nothing contradicts it."""
    TAKEN = "taken"
    """The arriving one replaces it (an item not qualified yet, or a graver qualification)."""
    CONFLICT = "conflict"
    """The one held stays although the arriving one says less, or comes too late; an analyst should look."""


def may_leave(assessment: Assessment | None, *, forward_unqualified: bool) -> bool:
    """Say whether an item so qualified may leave the node.

    Not illegal never leaves, illegal does; unqualified leaves where the node's setting says so.
    """
    if assessment is None:
        return forward_unqualified
    return assessment.illegal


def reassess(held: Assessment | None, new: Assessment) -> Assessment:
    """Return the qualification an analyst gives an item of this node, `new`, where the rules allow it.

    A baseline qualification is final; saying the same again is no change and allowed, so that a repeated call succeeds.
    Raises AssessmentRefused.
    """
    if held is None or held.classification is not Classification.BASELINE:
        return new
    if same_finding(held, new):
        return held
    raise AssessmentRefused(AssessmentFault.BASELINE_FINAL, "a baseline qualification is final and cannot be changed")


def merge(
    held: Assessment | None, arriving: Assessment | None, *, acted: bool = False
) -> tuple[Assessment | None, Merge]:
    """Weigh a qualification that came with another report of the same item against the one held.

    The graver classification wins: a report may add knowledge, it may not take an illegal item off the list unseen.
    Once an action is recorded (`acted`), what is held is not replaced (docs/protocol.md, section 3, rule 3).
    """
    if arriving is None:
        return held, Merge.KEPT
    if held is None:
        return arriving, Merge.TAKEN
    if acted:
        return held, Merge.KEPT if arriving.classification is held.classification else Merge.CONFLICT
    if _GRAVITY[arriving.classification] > _GRAVITY[held.classification]:
        return arriving, Merge.TAKEN
    if held.illegal and not arriving.illegal:
        return held, Merge.CONFLICT
    return held, Merge.KEPT


_GRAVITY = {Classification.NOT_ILLEGAL: 0, Classification.NATIONAL: 1, Classification.BASELINE: 2}


def same_finding(one: Assessment, other: Assessment) -> bool:
    """Compare what was found, whoever found it and when."""
    return (
        one.classification is other.classification
        and one.age is other.age
        and one.gender is other.gender
        and one.virtual is other.virtual
        and one.user_generated is other.user_generated
        and one.child_modelling is other.child_modelling
        and one.law == other.law
    )


def to_wire(assessment: Assessment) -> Qualification:
    """Return a qualification as a record says it."""
    marks = (assessment.virtual, assessment.user_generated, assessment.child_modelling)
    flags = None
    if any(mark is not None for mark in marks):
        flags = Flags(virtual=marks[0], user_generated=marks[1], child_modelling=marks[2])
    return Qualification(
        classification=assessment.classification,
        at=assessment.at,
        age=assessment.age,
        gender=assessment.gender,
        flags=flags,
        law=assessment.law,
        by=assessment.by,
    )


def from_wire(qualification: Qualification) -> Assessment:
    """Return what a record says of a qualification, as this node keeps it."""
    flags = qualification.flags
    return Assessment(
        classification=qualification.classification,
        age=qualification.age,
        gender=qualification.gender,
        virtual=None if flags is None else flags.virtual,
        user_generated=None if flags is None else flags.user_generated,
        child_modelling=None if flags is None else flags.child_modelling,
        law=qualification.law,
        at=qualification.at,
        by=qualification.by,
    )
