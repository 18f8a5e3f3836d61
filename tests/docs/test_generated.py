"""What the documents take from the code and from the examples is what these say today."""

import re
from enum import StrEnum

import pytest

from protocol.codes import (
    Age,
    Channel,
    Classification,
    Commerciality,
    Gender,
    HashAlgorithm,
    Kind,
    NodeState,
    PaymentMethod,
    RecordType,
    SiteType,
)
from tests.docs.generated import PARTS, filled
from tests.docs.pages import Page, every_page, page


@pytest.mark.parametrize("one", every_page(), ids=lambda one: str(one.name))
def test_what_is_made_from_the_code_is_as_the_code_says(one: Page) -> None:
    assert filled(one.text) == one.text, f"{one.name}: run python -m tests.docs.generated"


def test_every_part_has_its_place_and_ends() -> None:
    begun = [name for one in every_page() for name in re.findall(r"<!-- generated: ([a-z-]+) -->", one.text)]
    ended = sum(one.text.count("<!-- end -->") for one in every_page())
    assert sorted(begun) == sorted(PARTS)
    assert ended == len(begun)


@pytest.mark.parametrize(
    "codes",
    [Age, Channel, Classification, Commerciality, Gender, HashAlgorithm, Kind, PaymentMethod, RecordType, SiteType],
)
def test_every_code_of_a_record_stands_in_the_specification(codes: type[StrEnum]) -> None:
    section = page("docs/protocol.md").section("3. Record")
    missing = [str(code) for code in codes if f"`{code}`" not in section]
    assert not missing


def test_every_state_of_a_node_stands_in_the_specification() -> None:
    section = page("docs/protocol.md").section("2. Directory")
    assert not [state for state in NodeState if f"`{state}`" not in section]
