"""One settings file for many models: what it says, what comes before it, and what is refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from service import groups
from service.groups import Group, ServiceFile, SettingsFileError
from service.settings import ServiceSettings
from service.specs import PER_MODEL, ModelSpec

EXAMPLE = Path(__file__).parents[2] / "deploy" / "groups.yaml"

TWO_GROUPS = """
port: 9000
slots: 8
groups:
  - name: encoders
    models: [minilm, {source: ./ranker, name: ranker, threads: 1}]
    replicas: 2
  - name: writers
    prefix: /writers
    models: [{source: smollm2, slots: 4, max_context: 1024}]
    autoscaling: {min: 1, max: 3, target_queue: 6}
    resources: {num_cpus: 0.5}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "anatomy.yaml"
    path.write_text(TWO_GROUPS)
    return path


def test_without_a_file_everything_is_one_group_at_the_root() -> None:
    settings, (group,) = groups.read(None, {"models": ("a", "b")})
    assert settings.models == ("a", "b")
    assert (group.prefix, group.replicas, group.autoscaling) == ("/", 1, None)
    assert group.models == (ModelSpec(source="a"), ModelSpec(source="b"))


def test_a_file_without_groups_is_one_group_too(tmp_path: Path) -> None:
    path = tmp_path / "anatomy.yaml"
    path.write_text("models: [minilm]\nport: 1234\n")
    settings, (group,) = groups.read(path, {})
    assert settings.port == 1234
    assert group == Group.of(ServiceSettings(models=("minilm",)))


def test_options_come_before_the_environment_and_that_before_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert groups.read(file, {})[0].port == 9000
    monkeypatch.setenv("ANATOMY_PORT", "9001")
    monkeypatch.setenv("ANATOMY_SLOTS", "5")
    settings, _ = groups.read(file, {"port": 9002})
    assert (settings.port, settings.slots) == (9002, 5)


def test_each_model_has_the_services_settings_but_for_its_own(file: Path) -> None:
    settings, (encoders, writers) = groups.read(file, {})
    ranker = encoders.models[1].settings(settings)
    assert (ranker.threads, ranker.slots, ranker.port) == (1, 8, 9000)
    writer = writers.models[0].settings(settings)
    assert (writer.slots, writer.max_context, writer.threads) == (4, 1024, None)
    assert writers.autoscaling is not None
    assert writers.autoscaling.target_queue == 6
    assert writers.resources.num_cpus == 0.5


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("port:", "prot:", "unknown key 'prot'; did you mean 'port'. accepted: host, port"),
        ("prefix:", "perfix:", r"groups\[1\]: unknown key 'perfix'; did you mean 'prefix'"),
        ("threads:", "thread:", r"groups\[0\].models\[1\]: unknown key 'thread'; did you mean"),
        ("max: 3", "maximum: 3", r"groups\[1\].autoscaling: unknown key 'maximum'; .*min, max"),
        ("num_cpus", "cpus", r"groups\[1\].resources: unknown key 'cpus'; .*num_cpus, num_gpus"),
        ("slots: 4", "slots: 0", r"groups\[1\].models\[0\].slots: .*greater than or equal to 1"),
        ("port: 9000", "port: 90000", "port: .*65535 .*got 90000"),
        ("min: 1", "min: 4", r"groups\[1\].autoscaling: min is 4 and max is 3"),
        ("name: writers", "name: encoders", "each has a name of its own; repeated: encoders"),
        ("prefix: /writers", "prefix: writers/", r"groups\[1\].prefix: / is accepted, or a path"),
        ("prefix: /writers", "prefix: /", "each has a prefix of its own; repeated: /"),
        ("name: ranker", "name: minilm", r"groups\[0\].models: .*repeated: minilm"),
        ("replicas: 2", "autoscaling: {max: 2}\n    replicas: 2", "exclude one another"),
        ("port: 9000", "models: [a]", "models and groups exclude one another"),
        ("groups:", "groups: [", "can't be read"),
    ],
)
def test_what_is_wrong_is_named_with_the_file_the_place_and_what_is_accepted(
    file: Path, before: str, after: str, said: str
) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))
    with pytest.raises(SettingsFileError, match=said) as caught:
        groups.read(file, {})
    assert str(file) in str(caught.value)


def test_a_misspelt_variable_is_not_taken_for_the_files_fault(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANATOMY_PROT", "9000")
    with pytest.raises(ValidationError, match="prot"):
        groups.read(file, {})


def test_models_named_on_the_command_line_don_t_go_with_groups(file: Path) -> None:
    with pytest.raises(SettingsFileError, match="models and groups exclude one another"):
        groups.read(file, {"models": ["minilm"]})


def test_the_example_is_valid_and_says_what_it_says() -> None:
    settings, (encoders, writers) = groups.read(EXAMPLE, {})
    assert settings.host == "127.0.0.1"
    assert [spec.source for spec in encoders.models] == ["minilm"]
    assert writers.prefix == "/writers"


def test_the_schema_has_every_key_with_a_description() -> None:
    schema = ServiceFile.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    described = [part for part in parts if "properties" in part]
    assert {"Group", "ModelSpec", "Autoscaling", "Resources"} <= schema["$defs"].keys()
    for part in described:
        assert part["additionalProperties"] is False
        for name, value in part["properties"].items():
            assert value.get("description"), name
    assert set(PER_MODEL) < schema["$defs"]["ModelSpec"]["properties"].keys()


def test_an_extra_head_is_served_by_its_trunk() -> None:
    assert ModelSpec(source="supersense").source == "minilm"


@pytest.mark.parametrize("value", ["[]", "", "minilm"])
def test_no_group_at_all_is_refused_rather_than_the_default_served(
    tmp_path: Path, value: str
) -> None:
    path = tmp_path / "none.yaml"
    path.write_text(f"groups: {value}\n")
    with pytest.raises(SettingsFileError, match="groups: a list of groups is accepted, one at"):
        groups.read(path, {})
