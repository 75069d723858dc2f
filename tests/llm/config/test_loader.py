"""Every place of a models.yml: which are read, which wins, and what a bad one says."""

from __future__ import annotations

import gc
import statistics
import time
from datetime import date
from pathlib import Path

import pytest

from agentflow.errors import ConfigurationError
from agentflow.llm.config.loader import Configuration, load_configuration


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home/.config/agentflow").mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def load(cwd: Path, home: Path, path: str | Path | None = None, **environ: str) -> Configuration:
    return load_configuration(path, environ=environ, cwd=cwd, home=home)


def user_file(home: Path) -> Path:
    return home / ".config/agentflow/models.yml"


def temperature(value: float) -> str:
    return f"models: {{gpt-4o: {{temperature: {value}}}}}"


def test_without_any_file_the_built_in_one_is_in_force(cwd: Path, home: Path) -> None:
    configuration = load(cwd, home)
    assert configuration.sources == ("built-in models.yml",)
    assert configuration.models["gpt-4o"].provider == "openai"
    assert list(configuration.providers)[:4] == ["openai", "anthropic", "google", "moonshot"]
    assert {"ollama", "lmstudio", "llamacpp", "vllm", "local", "openrouter"} < set(configuration.providers)


def test_the_built_in_file_says_what_it_knows_and_of_which_day(cwd: Path, home: Path) -> None:
    """A model is listed with what it can do, or with nothing where that is not known; limits fit into each other."""
    configuration = load(cwd, home)
    updated = configuration.layers[0].document.updated
    assert isinstance(updated, str)
    assert date.fromisoformat(updated) >= date(2026, 11, 26)
    for name, model in configuration.models.items():
        assert model.provider in configuration.providers, name
        context, output = model.context, model.max_output
        assert not isinstance(context, int) or not isinstance(output, int) or output <= context, name
    for provider in ("openai", "anthropic", "google", "moonshot"):
        own = [model for model in configuration.models.values() if model.provider == provider]
        assert own
        assert all(model.capabilities and model.context for model in own)


def test_each_source_wins_over_the_one_before(cwd: Path, home: Path, tmp_path: Path) -> None:
    named, explicit = tmp_path / "named.yml", tmp_path / "explicit.yml"
    for level, file in enumerate([user_file(home), cwd / "models.yml", named, explicit], 1):
        file.write_text(temperature(level / 10))
        configuration = load(
            cwd,
            home,
            explicit if file == explicit else None,
            **({"AGENTFLOW_CONFIG": str(named)} if named.exists() else {}),
        )
        assert configuration.models["gpt-4o"].temperature == level / 10
        assert configuration.sources[-1] == str(file)
        assert len(configuration.sources) == level + 1


def test_entries_are_merged_field_by_field(cwd: Path, home: Path) -> None:
    user_file(home).write_text(
        "defaults: {timeout: 30, retry: {max_attempts: 7}}\n"
        "providers: {openai: {base_url: 'https://proxy.example/v1', headers: {x-team: a}}}\n"
        "models: {gpt-4o: {temperature: 0.1, max_tokens: 9}, mine: {provider: openai}}\n"
    )
    (cwd / "models.yml").write_text(
        "defaults: {timeout: {idle: 5}}\nproviders: {openai: {timeout: 3}}\nmodels: {gpt-4o: {temperature: null}}\n"
    )
    configuration = load(cwd, home)
    openai, gpt = configuration.providers["openai"], configuration.models["gpt-4o"]
    assert (openai.base_url, openai.headers, openai.timeout) == ("https://proxy.example/v1", {"x-team": "a"}, 3.0)
    assert openai.api_key_env == ["OPENAI_API_KEY", "OPENAI_KEY"]
    assert (gpt.provider, gpt.temperature, gpt.max_tokens) == ("openai", None, 9)
    assert "mine" in configuration.models
    timeout, retry = configuration.defaults.timeout, configuration.defaults.retry
    assert (timeout.connect, timeout.idle, timeout.total) == (10, 5, 30)  # type: ignore[union-attr]
    assert (retry.max_attempts, retry.base_delay) == (7, 0.5)  # type: ignore[union-attr]


def test_entries_of_stronger_files_come_first(cwd: Path, home: Path) -> None:
    user_file(home).write_text("models: {b: {provider: local}, gpt-4o: {}}")
    (cwd / "models.yml").write_text("models: {a: {provider: local}}")
    assert list(load(cwd, home).models)[:3] == ["a", "b", "gpt-4o"]


def test_an_error_names_the_file_it_stands_in(cwd: Path, home: Path) -> None:
    user_file(home).write_text("models:\n  gpt-4o:\n    temperature: 0.5\n")
    (cwd / "models.yml").write_text("models:\n  gpt-4o:\n    temperature: 5\n")
    with pytest.raises(ConfigurationError) as caught:
        load(cwd, home)
    assert str(caught.value).startswith(f"{cwd / 'models.yml'}:3:5: models.gpt-4o.temperature: found 5")


def test_malformed_yaml_is_an_error_with_line_and_column(cwd: Path, home: Path) -> None:
    (cwd / "models.yml").write_text("models:\n  a: {provider: openai\n  b: {}\n")
    with pytest.raises(ConfigurationError, match=r"models\.yml:3:\d+: malformed YAML"):
        load(cwd, home)


@pytest.mark.parametrize(("path", "environ"), [("nowhere.yml", {}), (None, {"AGENTFLOW_CONFIG": "nowhere.yml"})])
def test_a_file_that_was_named_must_exist(cwd: Path, home: Path, path: str | None, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.yml: there is no such file; `agentflow init` writes one"):
        load(cwd, home, path, **environ)


def test_named_files_may_be_relative_to_the_working_folder_or_the_home(cwd: Path, home: Path) -> None:
    (cwd / "a.yml").write_text(temperature(0.1))
    (home / "b.yml").write_text(temperature(0.2))
    assert load(cwd, home, "a.yml").models["gpt-4o"].temperature == 0.1
    assert load(cwd, home, AGENTFLOW_CONFIG="~/b.yml").models["gpt-4o"].temperature == 0.2


def test_an_empty_variable_names_no_file(cwd: Path, home: Path) -> None:
    assert load(cwd, home, AGENTFLOW_CONFIG="").sources == ("built-in models.yml",)


def test_a_file_named_twice_is_read_once_with_its_highest_rank(cwd: Path, home: Path) -> None:
    (cwd / "models.yml").write_text(temperature(0.1))
    (cwd / "other.yml").write_text(temperature(0.2))
    configuration = load(cwd, home, "models.yml", AGENTFLOW_CONFIG="other.yml")
    assert configuration.models["gpt-4o"].temperature == 0.1
    assert len(configuration.sources) == 3


def test_a_folder_or_bytes_that_are_no_text_are_an_error(cwd: Path, home: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(cwd, home, cwd)
    (cwd / "models.yml").write_bytes(b"models: \xff")
    with pytest.raises(ConfigurationError, match=r"not UTF-8 text \(byte 9\)"):
        load(cwd, home)


def test_an_empty_file_changes_nothing(cwd: Path, home: Path) -> None:
    (cwd / "models.yml").write_text("# all of it commented out\n")
    assert load(cwd, home).models == load(home, home).models


def test_a_model_may_name_the_api_it_is_asked_by(cwd: Path, home: Path) -> None:
    (cwd / "models.yml").write_text("models: {a: {provider: openai, api: responses}}")
    assert load(cwd, home).models["a"].api == "responses"


def test_a_thousand_models_load_about_as_fast_as_a_bare_parser_lets_them(cwd: Path, home: Path) -> None:
    """60 ms is the promise; what is compared is CPU time against PyYAML's own `safe_load` of the same file."""
    import yaml

    text = "models:\n" + "".join(
        f"  model-{n}:\n    provider: openai\n    model_id: gpt-{n}\n    temperature: 0.7\n    max_tokens: 1024\n"
        for n in range(1000)
    )
    (cwd / "models.yml").write_text(text)
    ours, bare = [], []
    for _ in range(5):
        gc.collect()
        start = time.process_time()
        load(cwd, home)
        middle = time.process_time()
        yaml.load(text, yaml.CSafeLoader)
        ours.append(middle - start)
        bare.append(time.process_time() - middle)
    assert statistics.median(ours) < 1.2 * statistics.median(bare)
