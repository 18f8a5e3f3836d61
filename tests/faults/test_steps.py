"""Every durable step of the program is either killed at by a fault test, or named as one that needs none."""

from tests.faults.steps import ALONE, ASIDE, HARMLESS, READ_ONLY, RECEIVER, SENDER, named_transactions


def test_a_new_durable_step_needs_a_fault_test() -> None:
    killed_at = {*SENDER, *RECEIVER, *ALONE, *ASIDE}
    assert named_transactions() == killed_at | READ_ONLY.keys() | HARMLESS.keys()
    assert not killed_at & (READ_ONLY.keys() | HARMLESS.keys())
    assert not READ_ONLY.keys() & HARMLESS.keys()
