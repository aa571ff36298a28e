"""Where an endpoint is: URLs in one spelling, and a key that nobody sees."""

import pytest

from vlsurgery.probes.endpoint import Endpoint, EndpointError

KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://LocalHost:8000/v1/", "http://localhost:8000/v1"),
        ("http://localhost:80/v1", "http://localhost/v1"),
        ("https://host:443/api/v3/chat/completions", "https://host/api/v3"),
        ("https://host:80/openai", "https://host:80/openai"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ],
)
def test_a_url_has_one_spelling(given: str, url: str) -> None:
    assert Endpoint.of(given).url == url
    assert Endpoint.of(url).url == url


@pytest.mark.parametrize(
    "given",
    [
        "localhost:8000",
        "ftp://host/v1",
        "file:///etc/passwd",
        "http://",
        "http://host:99999/v1",
        "http://[::1/v1",
        "http://host/v1\nHost: elsewhere",
        "http://host/v1?key=sk-secret-0123456789",
        "http://host/v1#sk-secret-0123456789",
        "http://user:sk-secret-0123456789@host/v1",
        "http://sk-secret-0123456789@host/v1?",
        "user:sk-secret-0123456789@host",
    ],
)
def test_what_is_no_plain_url_is_refused_and_its_secrets_are_not_shown(given: str) -> None:
    with pytest.raises(EndpointError) as caught:
        Endpoint.of(given)
    assert str(caught.value).startswith("--endpoint")
    assert "secret" not in str(caught.value)


def test_the_key_comes_from_the_environment_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Endpoint.of("http://host/v1").key is None
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    monkeypatch.setenv("OTHER", "another-secret")
    endpoint = Endpoint.of("http://host/v1")
    assert (endpoint.key, Endpoint.of("http://host/v1", "OTHER").key) == (KEY, "another-secret")
    assert KEY not in repr(endpoint)
    assert endpoint.without_key(f"a {KEY} b") == "a [OPENAI_API_KEY] b"


def test_a_placeholder_in_place_of_a_key_takes_no_words_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "EMPTY")
    assert Endpoint.of("http://host/v1").without_key("the box is EMPTY") == "the box is EMPTY"


@pytest.mark.parametrize(("variable", "value"), [("OTHER", ""), ("OTHER", "two words"), ("OTHER", "schlüssel-0123")])
def test_a_key_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(EndpointError) as caught:
        Endpoint.of("http://host/v1", variable)
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize("variable", [KEY, "sk_secret_0123456789"])
def test_a_key_in_place_of_its_variable_is_not_shown(variable: str) -> None:
    with pytest.raises(EndpointError, match="--api-key-env") as caught:
        Endpoint.of("http://host/v1", variable)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "exposed"),
    [("http://far/v1", True), ("https://far/v1", False), ("http://localhost:1/v1", False), ("http://[::1]/v1", False)],
)
def test_a_key_in_the_open_is_told_of(monkeypatch: pytest.MonkeyPatch, url: str, exposed: bool) -> None:
    assert not Endpoint.of(url).exposes_key
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert Endpoint.of(url).exposes_key is exposed
