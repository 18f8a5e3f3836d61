"""What people do about items already known, once it passed every check. Never stores, never weighs a state."""

from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from node.hotline.domain.intake import check_reference, check_text, read_hashes, read_time, read_url
from node.hotline.domain.schema import ActionIn, CorrectionIn, FieldError, IntakeFault, IntakeRefused
from protocol.bodies import Hash
from protocol.codes import REASONED_ACTIONS, Action, ActionReason
from protocol.steps import Corrected


@dataclass(frozen=True, slots=True)
class ActionAsked:
    """An action to be recorded; `at` is None for now."""

    action: Action
    at: datetime | None = None
    by: str | None = None
    reason: ActionReason | None = None


def check_action(given: ActionIn, now: datetime) -> ActionAsked:
    """Check what a schema cannot say of an action; raises IntakeRefused."""
    errors: list[FieldError] = []
    at = None if given.at is None else read_time(given.at, now, "at", errors)
    check_text(given.by, "by", errors)
    if given.reason is not None and given.action not in REASONED_ACTIONS:
        errors.append(FieldError("reason", IntakeFault.NOT_WITH_THIS, "this action has no reason"))
    if errors:
        raise IntakeRefused(errors)
    return ActionAsked(given.action, at, given.by, given.reason)


def overlaid(first: Corrected, later: Corrected) -> Corrected:
    """Return two corrections of one report as one: where both say something, the later one counts."""
    said = {name: value for name in Corrected.__struct_fields__ if (value := getattr(later, name)) is not None}
    return replace(first, **said)


def check_correction(given: CorrectionIn) -> Corrected:
    """Check what a schema cannot say of a correction; raises IntakeRefused."""
    errors: list[FieldError] = []
    referrer = None if given.referrer is None else read_url(given.referrer, "referrer", errors)
    hashes = None
    if given.hashes is not None:
        hashes = tuple(Hash(one.algorithm, one.value) for one in read_hashes(given.hashes, "hashes", errors))
    if given.reference is not None:
        check_reference(given.reference, "reference", errors)
    methods = None if given.payment_methods is None else tuple(dict.fromkeys(given.payment_methods))
    said = Corrected(
        referrer=None if referrer is None else referrer.original,
        hashes=hashes,
        site_type=given.site_type,
        commerciality=given.commerciality,
        payment_methods=methods,
        reference=given.reference,
    )
    if not errors and said == Corrected():
        errors.append(FieldError("", IntakeFault.EMPTY, "nothing is corrected"))
    if errors:
        raise IntakeRefused(errors)
    return said
