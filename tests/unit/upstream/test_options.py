"""What a catalogue's entry may say of an upstream server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpu_worker.engines.upstream.creation import create
from gpu_worker.engines.upstream.options import ALL
from promptq.contract.errors import SettingsError
from promptq.contract.settings import WorkerSettings
from tests.integration.upstreams import engine_before, models_file

URL = "http://user:secret@127.0.0.1:9/v1/"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"capabilities": ["streaming", "resume"]}, "options.capabilities"),
        ({"capabilities": ["embeddings", "tools"]}, "options.capabilities: tools: only with text"),
        ({"stop_limit": 17}, "options.stop_limit"),
        ({"slots": 3}, "options.slots"),
        ({"first_slots": 300}, "first_slots"),
    ],
)
def test_a_wrong_option_is_named(tmp_path: Path, options: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        engine_before(URL, tmp_path, options)


def test_a_key_that_is_not_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="api_key_variable: NOT_SET is not set"):
        engine_before(URL, tmp_path, api_key_variable="NOT_SET")


def test_without_an_entry_there_is_no_server(tmp_path: Path) -> None:
    from gpu_worker.engines.registry import create_engine

    with pytest.raises(SettingsError, match="base_url"):
        create_engine(WorkerSettings.load(_env_file=None, engine="upstream"))


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (None, ALL - {"embeddings"}),
        (sorted(ALL), ALL),
        ([], {"text", "streaming"}),
        (["embeddings"], {"embeddings"}),
        (["embeddings", "token_prompts"], {"embeddings", "token_prompts"}),
        (["embeddings", "text", "tools"], {"embeddings", "text", "streaming", "tools"}),
    ],
)
def test_it_claims_what_a_server_of_text_has_unless_told_otherwise(
    tmp_path: Path, listed: list[str] | None, expected: set[str]
) -> None:
    options = {} if listed is None else {"capabilities": listed}
    models = models_file(tmp_path, URL, options)
    engine = create(WorkerSettings.load(_env_file=None, models_file=str(models)), lambda _: None)
    assert set(engine.info.capabilities.names) == expected
    engine.close()


def test_the_identity_changes_with_what_changes_texts(tmp_path: Path) -> None:
    made = [
        engine_before(URL, tmp_path, {"extra_body": {"cache": False}}),
        engine_before(URL, tmp_path, upstream_model="other"),
        engine_before("http://127.0.0.2/v1", tmp_path),
        engine_before(URL, tmp_path),
        engine_before(URL, tmp_path, {"stop_limit": 16}, slots="auto"),
    ]
    identities = [engine.info.identity for engine in made]
    assert len(set(identities)) == 4
    assert identities[3] == identities[4]
    assert [engine.free_slots() for engine in made[3:]] == [16, 16]
    assert [engine.info.slots for engine in made[3:]] == [16, 256]
    assert "secret" not in repr(made[0].info.details)
    assert models_file(tmp_path, URL).exists()
    for engine in made:
        engine.close()
