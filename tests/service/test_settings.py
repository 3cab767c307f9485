from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import ServiceSettings
from service.settings_page import page
from tests.support.documents import ROOT


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


def test_only_loopback_listens_by_default() -> None:
    assert ServiceSettings().host == "127.0.0.1"


def test_the_environment_is_read_and_arguments_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANATOMY_PORT", "9000")
    monkeypatch.setenv("ANATOMY_MODELS", "minilm, smollm2")
    settings = ServiceSettings(slots=4)
    assert (settings.port, settings.slots) == (9000, 4)
    assert settings.models == ("minilm", "smollm2")
    assert ServiceSettings(port=1).port == 1


def test_a_misspelt_variable_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANATOMY_PROT", "9000")
    with pytest.raises(ValidationError, match="prot"):
        ServiceSettings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 70000),
        ("precision", "int4"),
        ("models", ()),
        ("models", "a,a"),
        ("slots", 0),
        ("body_timeout_s", 0),
        ("unknown", 1),
    ],
)
def test_a_bad_setting_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        ServiceSettings(**{name: value})  # pyright: ignore[reportArgumentType]


def test_the_cache_follows_the_desktop_convention(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ServiceSettings().cache_folder == Path("~/.cache/anatomy").expanduser()
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert ServiceSettings().cache_folder == Path("/elsewhere/anatomy")


def test_every_setting_is_described() -> None:
    for name, field in ServiceSettings.model_fields.items():
        assert field.description, name


def test_the_reference_page_has_every_setting_as_it_is() -> None:
    made = "`python -m service.settings_page > docs/settings.md` makes it again"
    assert (ROOT / "docs" / "settings.md").read_text() == page(), made
    assert all(f"ANATOMY_{name.upper()}" in page() for name in ServiceSettings.model_fields)
