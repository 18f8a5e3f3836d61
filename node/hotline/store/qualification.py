"""How a qualification stands in its column: one JSON object. Judges nothing."""

import msgspec

from node.hotline.domain.assessment import Assessment


def to_column(assessment: Assessment | None) -> str | None:
    """Return the column's JSON text, without the members that are not said."""
    if assessment is None:
        return None
    members = {name: value for name, value in msgspec.to_builtins(assessment).items() if value is not None}
    return msgspec.json.encode(members).decode()


def from_column(value: object) -> Assessment | None:
    """Return the qualification that the column holds, as the driver gives it (decoded JSON)."""
    return None if value is None else msgspec.convert(value, Assessment)


def from_text(text: str | None) -> Assessment | None:
    """Return the qualification in a column's JSON text, as `to_column` makes it."""
    return None if text is None else msgspec.json.decode(text, type=Assessment)


def is_illegal(value: object) -> bool:
    """Tell whether the column holds a qualification as illegal."""
    assessment = from_column(value)
    return assessment is not None and assessment.illegal
