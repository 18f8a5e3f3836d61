"""HTTP Message Signatures (RFC 9421): the signature base and its two header fields; never holds a key or a policy.

Stricter than the RFC in one point: Signature-Input and Signature are taken in their canonical form only, that is,
they must be what RFC 9651, section 4.1, makes of them. A field that two parsers could read in two ways (a label
given twice, a Base64 with stray bits, an odd spacing) is then refused instead of signed over.
Left out, and refused: the `tr` parameter (trailers), `@signature-params` as a covered component.
"""

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, cast
from urllib.parse import parse_qsl, quote

import http_sf
from http_sf.errors import StructuredFieldError
from http_sf.types import BareItemType

Identity = tuple[str, frozenset[tuple[str, BareItemType]]]
StructuredType = Literal["dictionary", "list", "item"]

# Fields of which this module knows the type; `sf` and `key` need it (RFC 9421, section 2.1.1 and 2.1.2).
STRUCTURED_FIELDS: Final[Mapping[str, StructuredType]] = {
    "accept-signature": "dictionary",
    "content-digest": "dictionary",
    "repr-digest": "dictionary",
    "signature": "dictionary",
    "signature-input": "dictionary",
}

_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
# RFC 3986, appendix B, for an absolute http URI, less the fragment and the user, which no request has.
_TARGET_URI: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#@]+)((?:/[^?#]*)?)(\?[^#]*)?")
_AUTHORITY: Final = re.compile(r"(\[[^\]]+\]|[^:]+)(?::([0-9]*))?")
# RFC 9421, section 2.5: field-content without obs-text; derived values are VCHAR and SP, no space at either end.
_FIELD_CONTENT: Final = re.compile(r"[\t\x20-\x7e]*")
_DERIVED_CONTENT: Final = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?")
# RFC 9112, section 5.2, obsolete line folding. The look-behind keeps the search linear in a run of spaces.
_OBS_FOLD: Final = re.compile(r"(?:(?<![ \t])[ \t]+)?\r\n[ \t]+")
# RFC 9651, section 4.1: keys, and strings without an escape. What consists of these alone, as every message of ours
# does, is read and written here; it comes out as from the library, which has the rest.
_KEY_TEXT: Final = r"[a-z*][a-z0-9_.*-]*"
_STRING_TEXT: Final = r"[ !#-\[\]-~]*"
_COMPONENT_TEXT: Final = rf'"{_STRING_TEXT}"(?:;{_KEY_TEXT}(?:="{_STRING_TEXT}")?)*'
_PARAM_TEXT: Final = rf';({_KEY_TEXT})=(?:(-?[0-9]{{1,15}})|"({_STRING_TEXT})")'
_KEY: Final = re.compile(_KEY_TEXT)
_STRING: Final = re.compile(_STRING_TEXT)
_COMPONENT: Final = re.compile(_COMPONENT_TEXT)
_FLAG_OR_STRING: Final = re.compile(rf';({_KEY_TEXT})(?:="({_STRING_TEXT})")?')
_PARAM: Final = re.compile(_PARAM_TEXT)
_INPUT: Final = re.compile(rf"({_KEY_TEXT})=\(((?:{_COMPONENT_TEXT}(?: {_COMPONENT_TEXT})*)?)\)((?:{_PARAM_TEXT})*)")
_BYTES: Final = re.compile(rf"({_KEY_TEXT})=:((?:[A-Za-z0-9+/]{{4}})*(?:[A-Za-z0-9+/]{{2}}==|[A-Za-z0-9+/]{{3}}=)?):")
_INTEGER_MAX: Final = 10**15 - 1
_NO_PARAMS: Final[dict[str, BareItemType]] = {}
_STATUS_MIN: Final = 100
_STATUS_MAX: Final = 999


class FieldError(ValueError):
    """A Signature-Input or Signature field, or a part of one, cannot be read or written; holds no part of it."""


class ComponentError(ValueError):
    """A covered component has no value in the message (RFC 9421, section 2.5); names it by its position at most."""


@dataclass(frozen=True, slots=True)
class Component:
    """A component identifier (RFC 9421, section 2): a name and its parameters in their order.

    `text` is its strict serialisation. Raises FieldError where it has none.
    """

    name: str
    params: tuple[tuple[str, BareItemType], ...] = ()
    text: str = field(init=False, compare=False, repr=False)
    #: What makes it distinct from another: the order of parameters does not (RFC 9421, section 2).
    identity: Identity = field(init=False, compare=False, repr=False)
    #: The names of its parameters.
    flags: frozenset[str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Serialise once; the base and the header field use the same text."""
        plain = _params_text(self.params) if type(self.name) is str and _STRING.fullmatch(self.name) else None
        text = _serialize((self.name, dict(self.params))) if plain is None else f'"{self.name}"{plain}'
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "identity", (self.name, frozenset(self.params)))
        object.__setattr__(self, "flags", frozenset(name for name, _ in self.params))


@dataclass(frozen=True, slots=True)
class SignatureInput:
    """The covered components and the parameters of one signature, both in their order (RFC 9421, section 2.3).

    `text` is the value of `@signature-params`. Raises FieldError where it has none.
    """

    components: tuple[Component, ...]
    params: tuple[tuple[str, BareItemType], ...]
    text: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Serialise once; a parsed field is held against this text, and the base ends with it."""
        covered = " ".join(component.text for component in self.components)
        params = _params_text(self.params)
        if params is None:
            params = _serialize([([], dict(self.params))]).removeprefix("()")
        object.__setattr__(self, "text", f"({covered}){params}")


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What a signature over a request may cover: field lines by lower-case name, in the order received.

    `target_uri` is absolute. `request_target` is the one of the request line, where the caller knows it.
    """

    fields: Mapping[str, Sequence[str]]
    method: str
    target_uri: str
    request_target: str | None = None


@dataclass(frozen=True, slots=True)
class ResponseContext:
    """What a signature over a response may cover: its own lines and status, and the request it answers."""

    fields: Mapping[str, Sequence[str]]
    status: int
    request: RequestContext | None = None


Context = RequestContext | ResponseContext


def group_field_lines(lines: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Return the values of each field by lower-case name, trimmed and unfolded (RFC 9421, section 2.1)."""
    grouped: dict[str, list[str]] = {}
    for name, value in lines:
        grouped.setdefault(name.lower(), []).append(_canonical_line(value))
    return {name: tuple(values) for name, values in grouped.items()}


def parse_signature_input(value: str) -> dict[str, SignatureInput]:
    """Return the signatures a Signature-Input field announces, by label (RFC 9421, section 4.1).

    Raises FieldError unless it is a dictionary of inner lists of strings in canonical form.
    """
    inputs = _plain_input(value) or {}
    for label, (items, params) in _parse_dictionary(value).items() if not inputs else ():
        if not isinstance(items, list):
            raise FieldError("a member of Signature-Input is not an inner list")
        inputs[label] = SignatureInput(tuple(_component(item) for item in items), tuple(params.items()))
    if format_signature_inputs(inputs) != value:
        raise FieldError("Signature-Input is not in canonical form")
    return inputs


def parse_signature(value: str) -> dict[str, bytes]:
    """Return the signatures of a Signature field, by label (RFC 9421, section 4.2).

    Raises FieldError unless it is a dictionary of byte sequences without parameters in canonical form.
    """
    signatures: dict[str, bytes] = {}
    plain = _BYTES.fullmatch(value)
    if plain is not None:
        signatures[plain[1]] = base64.b64decode(plain[2])
    for label, (signature, params) in _parse_dictionary(value).items() if plain is None else ():
        if not isinstance(signature, bytes) or params:
            raise FieldError("a member of Signature is not a plain byte sequence")
        signatures[label] = signature
    if format_signatures(signatures) != value:
        raise FieldError("Signature is not in canonical form")
    return signatures


def format_signature_inputs(inputs: Mapping[str, SignatureInput]) -> str:
    """Return the value of a Signature-Input field; raises FieldError for a label that is no key."""
    return ", ".join(f"{_label(label)}={one.text}" for label, one in inputs.items())


def format_signatures(signatures: Mapping[str, bytes]) -> str:
    """Return the value of a Signature field; raises FieldError for a label that is no key."""
    return ", ".join(f"{_label(label)}=:{base64.b64encode(one).decode()}:" for label, one in signatures.items())


def signature_base(
    signed: SignatureInput,
    message: Context,
    *,
    structured: Mapping[str, StructuredType] = STRUCTURED_FIELDS,
) -> bytes:
    """Return the bytes that are signed (RFC 9421, section 2.5), with no newline at the end.

    `structured` says which fields are structured and how. Raises ComponentError for a component that occurs
    twice or has no value in `message`.
    """
    lines: list[str] = []
    seen: set[Identity] = set()
    for position, component in enumerate(signed.components, start=1):
        try:
            value = component_value(component, message, structured=structured)
        except ComponentError as error:
            raise ComponentError(f"covered component {position}: {error}") from None
        # After the value, which vouches for the parameters: True and 1 are equal in Python, in RFC 9651 they are not.
        if component.identity in seen:
            raise ComponentError(f"covered component {position}: it is listed twice")
        seen.add(component.identity)
        lines.append(f"{component.text}: {value}")
    lines.append(f'"@signature-params": {signed.text}')
    # ASCII by construction: serialised structured fields, and values matched against ASCII classes.
    return "\n".join(lines).encode("ascii")


def component_value(
    component: Component,
    message: Context,
    *,
    structured: Mapping[str, StructuredType] = STRUCTURED_FIELDS,
) -> str:
    """Return what stands behind the identifier in the base; raises ComponentError where `message` has no such value."""
    params = dict(component.params) if component.params else _NO_PARAMS
    if "req" in component.flags:
        _flag(params.pop("req"))
        if isinstance(message, RequestContext):
            raise ComponentError("`req` has no meaning in a request")
        if message.request is None:
            raise ComponentError("the request is not known")
        message = message.request
    if component.name.startswith("@"):
        value, allowed = _derived_value(component.name, params, message), _DERIVED_CONTENT
    else:
        value, allowed = _field_value(component.name, params, message.fields, structured), _FIELD_CONTENT
    if allowed.fullmatch(value) is None:
        raise ComponentError("its value has a character that cannot be signed")
    return value


def _derived_value(name: str, params: dict[str, BareItemType], message: Context) -> str:
    if name == "@query-param" and params.keys() == {"name"} and isinstance(message, RequestContext):
        return _query_param(message, params["name"])
    if params:
        raise ComponentError("a parameter does not apply to it")
    if isinstance(message, RequestContext):
        derive = _REQUEST_COMPONENTS.get(name)
        if derive is not None:
            return derive(message)
    elif name == "@status":
        if not _STATUS_MIN <= message.status <= _STATUS_MAX:
            raise ComponentError("the status has not three digits")
        return str(message.status)
    raise ComponentError("no such derived component in this kind of message")


def _field_value(
    name: str,
    params: dict[str, BareItemType],
    fields: Mapping[str, Sequence[str]],
    structured: Mapping[str, StructuredType],
) -> str:
    if name not in fields:
        raise ComponentError("the field is not in the message")
    lines = [_canonical_line(line) for line in fields[name]]
    combined = lines[0] if len(lines) == 1 else ", ".join(lines)
    if not params:
        return combined
    if params.keys() == {"bs"}:
        _flag(params["bs"])
        return _binary_wrapped(lines)
    if params.keys() <= {"sf", "key"}:
        if "sf" in params:
            _flag(params["sf"])
        return _strict_value(combined, structured.get(name), params.get("key"))
    raise ComponentError("a parameter is unknown or contradicts another")


def _strict_value(combined: str, kind: StructuredType | None, key: BareItemType | None) -> str:
    """RFC 9421, sections 2.1.1 (the whole field) and 2.1.2 (`key`, one member of a dictionary)."""
    if kind is None:
        raise ComponentError("the field is not known as a structured one")
    plain = _BYTES.fullmatch(combined) if kind == "dictionary" and key is not None else None
    if plain is not None and plain[1] == key and base64.b64encode(base64.b64decode(plain[2])).decode() == plain[2]:
        # One member that is a byte sequence in canonical form, as every message of ours has it, stands for itself.
        return f":{plain[2]}:"
    try:
        parsed = http_sf.parse(combined.encode("ascii"), tltype=kind)
        if key is None:
            return http_sf.ser(parsed)
        if not isinstance(key, str) or not isinstance(parsed, dict) or key not in parsed:
            raise ComponentError("the field has no such member")
        # A list of one member is that member's serialisation.
        return http_sf.ser([parsed[key]])
    except ValueError:  # of the library, and of the encoding
        raise ComponentError("the field is not of its structured type") from None


def _binary_wrapped(lines: list[str]) -> str:
    """RFC 9421, section 2.1.3."""
    try:
        return http_sf.ser([line.encode("ascii") for line in lines])
    except UnicodeEncodeError:
        # How an octet above 127 came to be a character is the business of whoever read the message.
        raise ComponentError("its value has a character that cannot be signed") from None


def _query_param(request: RequestContext, name: BareItemType) -> str:
    """RFC 9421, section 2.2.8: decoded as a form, encoded again, and the name must be there once."""
    query = _split_target(request)[3] or ""
    pairs = parse_qsl(query.removeprefix("?"), keep_blank_values=True, errors="replace")
    values = [value for key, value in pairs if _form_encoded(key) == name]
    if len(values) != 1:
        raise ComponentError("the query does not have this parameter exactly once")
    return _form_encoded(values[0])


def _form_encoded(text: str) -> str:
    # The set of WHATWG URL "application/x-www-form-urlencoded"; Python never encodes the tilde, the set does.
    return quote(text, safe="*").replace("~", "%7E")


def _split_target(request: RequestContext) -> tuple[str, str, str, str | None]:
    match = _TARGET_URI.fullmatch(request.target_uri)
    if match is None:
        raise ComponentError("the target is not an absolute URI with a host")
    scheme, authority, path, query = match.groups()
    return scheme.lower(), authority, path, query


def _authority(request: RequestContext) -> str:
    scheme, authority, _, _ = _split_target(request)
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise ComponentError("the target has no valid authority")
    host, port = match.groups()
    return host.lower() if not port or port == _DEFAULT_PORTS.get(scheme) else f"{host.lower()}:{port}"


def _request_target(request: RequestContext) -> str:
    if request.request_target is None:
        raise ComponentError("the request target is not known")
    return request.request_target


# RFC 9421, section 2.2.1 to 2.2.7, for a request.
_REQUEST_COMPONENTS: Final[Mapping[str, Callable[[RequestContext], str]]] = {
    "@method": lambda request: request.method,
    "@target-uri": lambda request: request.target_uri,
    "@authority": _authority,
    "@scheme": lambda request: _split_target(request)[0],
    "@request-target": _request_target,
    "@path": lambda request: _split_target(request)[2] or "/",
    "@query": lambda request: _split_target(request)[3] or "?",
}


def _flag(value: BareItemType) -> None:
    if value is not True:
        raise ComponentError("a flag has a value")


def _canonical_line(value: str) -> str:
    unfolded = _OBS_FOLD.sub(" ", value) if "\r\n" in value else value
    return unfolded.strip(" \t")


def _component(item: object) -> Component:
    # Items of an inner list come as (value, parameters) from the library's parser.
    name, params = cast("tuple[BareItemType, dict[str, BareItemType]]", item)
    if not isinstance(name, str):
        raise FieldError("a covered component is not a string")
    return Component(name, tuple(params.items()))


def _params_text(params: Sequence[tuple[str, BareItemType]]) -> str | None:
    """Return parameters as they are written, or None where one is not plain or is there twice."""
    texts: dict[str, str] = {}
    for name, value in params:
        if type(name) is not str or _KEY.fullmatch(name) is None:
            return None
        # `type`: the library's tokens are strings in Python, and True is an integer.
        if value is True:
            texts[name] = f";{name}"
        elif type(value) is int and abs(value) <= _INTEGER_MAX:
            texts[name] = f";{name}={value}"
        elif type(value) is str and _STRING.fullmatch(value) is not None:
            texts[name] = f';{name}="{value}"'
        else:
            return None
    return "".join(texts.values()) if len(texts) == len(params) else None


def _label(label: str) -> str:
    return label if type(label) is str and _KEY.fullmatch(label) is not None else _serialize({label: True})


def _plain_input(value: str) -> dict[str, SignatureInput] | None:
    """Return the one signature that a plain Signature-Input announces; None where it takes the library to read it."""
    match = _INPUT.fullmatch(value)
    if match is None:
        return None
    params = tuple((name, text if number == "" else int(number)) for name, number, text in _PARAM.findall(match[3]))
    if len(dict(params)) != len(params):
        return None
    return {match[1]: SignatureInput(tuple(map(_plain_component, _COMPONENT.findall(match[2]))), params)}


@lru_cache(maxsize=256)
def _plain_component(text: str) -> Component:
    name, _, rest = text[1:].partition('"')
    params: dict[str, BareItemType] = {}
    for match in _FLAG_OR_STRING.finditer(rest):
        # A parameter that is there twice counts once, by its last value and in its first place (RFC 9651, 4.2.3.2);
        # what is then written is another text, which is seen.
        params[match[1]] = True if match[2] is None else match[2]
    return Component(name, tuple(params.items()))


def _parse_dictionary(value: str) -> dict[str, tuple[object, dict[str, BareItemType]]]:
    try:
        parsed = http_sf.parse(value.encode("ascii"), tltype="dictionary")
    except (StructuredFieldError, UnicodeEncodeError):
        raise FieldError("not a dictionary of structured fields (RFC 9651)") from None
    # Members come as (value or list, parameters) from the library's parser.
    return cast("dict[str, tuple[object, dict[str, BareItemType]]]", parsed)


def _serialize(structure: http_sf.StructuredType) -> str:
    try:
        return http_sf.ser(structure)
    except (ValueError, TypeError):
        raise FieldError("a name, label or parameter cannot be written as a structured field") from None
