"""URL parsing against the web-platform-tests: the parser itself, and that our reading never contradicts it."""

import json
from typing import Any

import ada_url
import pytest

from node.hotline.domain.urls import HostKind, UrlFault, UrlRefused, parse_reported_url
from tests.vectors_dir import vectors

_PARTS = ("href", "protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "hash")


def _cases(name: str) -> list[dict[str, Any]]:
    """Return the cases of a file; the strings between them are comments."""
    return [case for case in json.loads(vectors("url", name).read_text()) if isinstance(case, dict)]


def _web(case: dict[str, Any]) -> bool:
    return case.get("base") is None and str(case["input"]).lower().lstrip().startswith(("http:", "https:"))


def test_the_parser_reads_urls_as_the_standard_says() -> None:
    cases = _cases("urltestdata.json")
    assert len(cases) > 800
    for case in cases:
        if case.get("failure"):
            with pytest.raises(ValueError, match=r".*"):
                ada_url.URL(case["input"], case.get("base"))
            continue
        url = ada_url.URL(case["input"], case.get("base"))
        assert {part: getattr(url, part) for part in _PARTS} == {part: case[part] for part in _PARTS}


def test_the_parser_writes_hosts_as_the_standard_says() -> None:
    cases = _cases("toascii.json")
    assert len(cases) > 80
    for case in cases:
        text = f"https://{case['input']}/x"
        if case["output"] is None:
            with pytest.raises(ValueError, match=r".*"):
                ada_url.URL(text)
        else:
            assert ada_url.URL(text).hostname == case["output"]


def test_the_parser_percent_encodes_as_the_standard_says() -> None:
    for case in _cases("percent-encoding.json"):
        # In a fragment, where no character of the input means anything to the parser.
        expected = case["output"]["utf-8"]
        assert ada_url.URL(f"https://host.example/#{case['input']}").hash == f"#{expected}"


def test_what_the_standard_refuses_is_refused() -> None:
    failing = [case for case in _cases("urltestdata.json") if case.get("failure") and _web(case)]
    assert len(failing) > 50
    for case in failing:
        with pytest.raises(UrlRefused):
            parse_reported_url(case["input"])


def test_what_the_standard_reads_is_read_or_refused_for_a_rule_of_ours() -> None:
    read = 0
    for case in _cases("urltestdata.json"):
        if case.get("failure") or not _web(case):
            continue
        try:
            url = parse_reported_url(case["input"])
        except UrlRefused as refused:
            assert refused.reason in {UrlFault.CONTROL_CHARACTER, UrlFault.BAD_HOST, UrlFault.BROKEN_UNICODE}  # noqa: PT017 -- some cases are read
            continue
        read += 1
        assert url.original == case["input"]
        assert f"{url.scheme}:" == case["protocol"]
        again = ada_url.URL(url.normal)
        assert again.port == case["port"]
        assert (again.username, again.password, again.hash) == ("", "", "")
        assert again.href in {url.normal, f"{url.normal}?"}
        if url.host_kind is HostKind.NAME:
            assert again.hostname == url.host == case["hostname"].removesuffix(".")
    assert read > 80


def test_each_host_of_the_standard_is_read_or_refused() -> None:
    for case in _cases("toascii.json"):
        try:
            url = parse_reported_url(f"https://{case['input']}/x")
        except UrlRefused:
            continue
        assert url.host == case["output"].removesuffix(".")
