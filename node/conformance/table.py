"""All checks in the order in which they are made; their numbers are their places. Makes none."""

from typing import Final

from node.conformance.batch_checks import BATCH_CHECKS
from node.conformance.catchup_checks import CATCHUP_CHECKS
from node.conformance.checks import Check
from node.conformance.desk_checks import DESK_CHECKS
from node.conformance.door_checks import ANSWER_CHECKS, OUTSIDE_CHECKS, WELL_KNOWN_CHECKS
from node.conformance.receipt_checks import EQUIVOCATION_CHECKS, RECEIPT_CHECKS
from node.conformance.record_checks import RECORD_CHECKS
from node.conformance.signature_checks import STEP_CHECKS

#: Receipts before batches, which refer to what is held; contradictions last, but for what looks at all answers.
CHECKS: Final[tuple[Check, ...]] = (
    *WELL_KNOWN_CHECKS,
    *OUTSIDE_CHECKS,
    *STEP_CHECKS,
    *RECEIPT_CHECKS,
    *BATCH_CHECKS,
    *RECORD_CHECKS,
    *CATCHUP_CHECKS,
    *EQUIVOCATION_CHECKS,
    *ANSWER_CHECKS,
)

#: What is checked of the network's desk instead, with what looks at all its answers.
CHECKS_OF_DESK: Final[tuple[Check, ...]] = (*DESK_CHECKS, *ANSWER_CHECKS[:3])
