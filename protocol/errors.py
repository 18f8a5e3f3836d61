"""The one exception of the wire contract. Never carries a reported URL or other content in its text."""

from collections.abc import Mapping


class ProtocolError(Exception):
    """A message breaks HX/1; `code` is one of `protocol.problems.REGISTRY`.

    `detail` is a sentence for a person and names the reason, never the content.
    `field` is the member or header at fault, `extra` further members of the RFC 9457 answer.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        """Name the problem; nothing is looked up, so that raising stays cheap."""
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.field = field
        self.extra = dict(extra or {})
