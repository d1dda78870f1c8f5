from __future__ import annotations

from pathlib import Path

import pytest

from promptq.contract.catalogue import OWN_OPTIONS, Catalogue, read_catalogue
from promptq.contract.errors import ModelNotFound, SettingsError
from promptq.contract.queues import QueueName
from promptq.contract.settings import ApiSettings, WorkerSettings

TWO = """
[[model]]
name = "small"
source = "/models/small"
slots = 8

[[model]]
name = "org/big"
default = true
engine = "upstream"
base_url = "http://gpu:8000/v1"
adapters = { sql = "/models/sql" }
"""


def read(tmp_path: Path, text: str) -> Catalogue:
    path = tmp_path / "models.toml"
    path.write_text(text)
    return read_catalogue(str(path))


class TestFile:
    def test_models_have_their_queues_and_the_default_ones_are_plain(self, tmp_path: Path) -> None:
        catalogue = read(tmp_path, TWO)
        assert catalogue.default.name == "org/big"
        assert catalogue.rq_names == ["small:high", "small:default", "small:low", "high", "default", "low"]
        assert [QueueName.parse(name, "org/big") for name in catalogue.rq_names] == list(catalogue.queues)

    def test_without_a_mark_the_first_model_is_the_default(self, tmp_path: Path) -> None:
        assert read(tmp_path, TWO.replace("default = true\n", "")).default.name == "small"

    def test_models_are_found_by_name_and_adapter(self, tmp_path: Path) -> None:
        catalogue = read(tmp_path, TWO)
        assert [(entry.name, adapter) for entry, adapter in map(catalogue.find, ["", "small", "org/big:sql"])] == [
            ("org/big", ""), ("small", ""), ("org/big", "sql"),
        ]  # fmt: skip
        assert catalogue.names == ["small", "org/big", "org/big:sql"]

    def test_two_entries_of_one_source_share_no_text(self, tmp_path: Path) -> None:
        models = read(tmp_path, '[[model]]\nname = "a"\n[[model]]\nname = "b"\nsource = "a"\n').models
        assert [model.identity("auto") for model in models] == ["a@:auto", "b=a@:auto"]

    @pytest.mark.parametrize("name", ["huge", "small:sql", "org/big:", ":sql", "org/big:sql:x", "SMALL"])
    def test_another_name_is_refused_with_those_that_there_are(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ModelNotFound, match=r"Served: small, org/big, org/big:sql\.") as refusal:
            read(tmp_path, TWO).find(name)
        assert refusal.value.param == "model"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ('[[model]]\nname = "a"\n\n[[model]]\nname = "b"\nslots = 0\n', r"line 6, model\[1\]\.slots: .*greater"),
            ('[[model]]\nname = "a"\nengin = "x"\n', r"line 3, model\[0\]\.engin: Extra"),
            ('[[model]]\nsource = "a"\n', r"line 1, model\[0\]\.name: Field required"),
            ('[[model]]\nname = "a:b"\n', r"line 2, model\[0\]\.name: .*pattern"),
            ('[[model]]\nname = "low"\n', r"line 2, model\[0\]: name: low is a queue's name"),
            ('[[model]]\nname = "a"\nengine = "upstream"\n', r"model\[0\]: base_url: "),
            ('[[model]]\nname = "a"\nengine = "upstream"\nbase_url = "gpu:80"\n', r"line 4, .*http://"),
            ('[[model]]\nname = "a"\nmin_workers = 3\nmax_workers = 2\n', r"line 3, model\[0\]: min_workers: 3"),
            ('[[model]]\nname = "a"\n[[model]]\nname = "a"\n', "two models have the name 'a'"),
            ('[[model]]\nname="a"\ndefault=true\n[[model]]\nname="b"\ndefault=true\n', "only one model is the default"),
            ('[[model]]\nname = "a"\nadapters = { "x:y" = "z" }\n', r"line 3, model\[0\]\.adapters"),
            ('[[model]]\nname = "a"\noptions = { draft = false }\n', r"line 3, model\[0\]: options: draft is none"),
            ('[[model]]\nname = "a"\nadapters = { b = "/b" }\n', r"line 3, model\[0\]: adapters: the engine contin"),
            ("model = []\n", "at least 1 item"),
            ("models = 1\n", "models"),
            ("", "model"),
            ('[[model]\nname = "a"\n', "line 1"),
        ],
    )  # fmt: skip
    def test_a_fault_is_told_with_its_line(self, tmp_path: Path, text: str, said: str) -> None:
        with pytest.raises(SettingsError, match=said) as refusal:
            read(tmp_path, text)
        assert refusal.value.message.startswith("PROMPTQ_MODELS_FILE: ")
        assert "\n" not in refusal.value.message.removesuffix("\n")

    def test_a_missing_file_and_one_that_is_no_text_are_told(self, tmp_path: Path) -> None:
        (tmp_path / "odd").write_bytes(b"\xff")
        for name in ("none", "odd"):
            with pytest.raises(SettingsError, match="cannot be read"):
                read_catalogue(str(tmp_path / name))


class TestSettings:
    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "models.toml").write_text(TWO)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PROMPTQ_MODELS_FILE", "models.toml")

    def test_a_worker_is_set_as_its_model_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROMPTQ_WORKER_MODEL", "small")
        settings = WorkerSettings.load()
        assert (settings.model, settings.engine, settings.slots) == ("/models/small", "continuous", 8)
        assert (settings.model_name, settings.default_model) == ("small", "org/big")

    def test_options_of_our_own_engines_are_settings(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert WorkerSettings.model_fields.keys() >= OWN_OPTIONS
        (tmp_path / "models.toml").write_text('[[model]]\nname = "a"\noptions = { drafts = false, adapter = "/b" }\n')
        settings = WorkerSettings.load()
        assert (settings.drafts, settings.adapter, settings.prefixes) == (False, "/b", True)
        (tmp_path / "models.toml").write_text('[[model]]\nname = "a"\noptions = { drafts = "x" }\n')
        with pytest.raises(SettingsError, match="PROMPTQ_DRAFTS"):
            WorkerSettings.load()

    def test_a_worker_without_a_model_serves_the_default_one(self) -> None:
        settings = WorkerSettings.load()
        assert (settings.model_name, settings.engine, settings.slots) == ("org/big", "upstream", "auto")

    def test_a_worker_of_no_model_does_not_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROMPTQ_WORKER_MODEL", "huge")
        with pytest.raises(SettingsError, match="PROMPTQ_WORKER_MODEL: The model 'huge' does not exist"):
            WorkerSettings.load()

    def test_every_program_reads_the_file_when_it_starts(self, tmp_path: Path) -> None:
        assert ApiSettings.load().catalogue.names == ["small", "org/big", "org/big:sql"]
        (tmp_path / "models.toml").write_text("model = 1\n")
        with pytest.raises(SettingsError, match="PROMPTQ_MODELS_FILE"):
            ApiSettings.load()

    def test_without_a_file_there_is_the_model_of_the_settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PROMPTQ_MODELS_FILE")
        monkeypatch.setenv("PROMPTQ_MODEL", "/models/small")
        settings = WorkerSettings.load()
        assert (settings.model_name, settings.default_model) == ("/models/small", "/models/small")
        assert settings.catalogue.rq_names == ["high", "default", "low"]
