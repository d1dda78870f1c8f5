"""RQ's data field: what is generated, and the context that only Python reads."""

from __future__ import annotations

import json
import zlib
from importlib import resources

import pytest

from promptq.contract.call import CONTEXT, NO_CONTEXT, JobContext, decode_call, encode_call
from promptq.contract.errors import InvalidRequest


def test_a_call_survives_its_encoding_with_and_without_compression() -> None:
    kwargs = {"prompt": "häß 🙂", "max_tokens": 3}
    assert decode_call(encode_call(kwargs)) == (kwargs, NO_CONTEXT)
    assert decode_call(zlib.compress(encode_call(kwargs))) == (kwargs, NO_CONTEXT)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x05pickle", b"[]", b"{}", b"null", b'["promptq.generate", null, []]',
        json.dumps(["os.system", None, ["true"], {}]).encode(),
        json.dumps(["promptq.generate", None, ["positional"], {}]).encode(),
        json.dumps(["promptq.generate", {"instance": 1}, [], {}]).encode(),
        json.dumps(["promptq.generate", None, [], []]).encode(),
    ],
)  # fmt: skip
def test_any_other_call_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode_call(data)


def test_the_context_travels_with_the_call_as_far_as_it_says_anything() -> None:
    context = JobContext(timeout_seconds=2.5, request_id="r")
    data = encode_call({"prompt": "a"}, context)
    assert json.loads(data)[3] == {"prompt": "a", CONTEXT: {"timeout_seconds": 2.5, "request_id": "r"}}
    assert decode_call(data) == ({"prompt": "a"}, context)
    assert CONTEXT not in json.loads(encode_call({"prompt": "a"}, NO_CONTEXT))[3]


def test_a_field_of_a_later_version_does_no_harm() -> None:
    data = json.dumps(["promptq.generate", None, [], {"prompt": "a", CONTEXT: {"later": 1, "request_id": "r"}}])
    assert decode_call(data.encode()).context == JobContext(request_id="r")


@pytest.mark.parametrize("wrong", [{"timeout_seconds": -1}, {"timeout_seconds": "soon"}, {"request_id": 7}, "text"])
def test_a_context_that_is_wrong_is_refused_by_its_name(wrong: object) -> None:
    data = json.dumps(["promptq.generate", None, [], {"prompt": "a", CONTEXT: wrong}]).encode()
    with pytest.raises(InvalidRequest, match=CONTEXT):
        decode_call(data)


def test_no_script_knows_the_context() -> None:
    """So a field more is one edit, in JobContext."""
    for script in (resources.files("promptq.queue") / "lua").iterdir():
        assert not [name for name in JobContext.model_fields if name in script.read_text()], script.name


def test_a_small_call_that_unpacks_to_gigabytes_is_refused() -> None:
    bomb = zlib.compress(b" " * 300 * 2**20)
    assert len(bomb) < 400_000
    with pytest.raises(InvalidRequest, match="unpacks to more"):
        decode_call(bomb)


def test_a_call_nested_without_end_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not a JSON call"):
        decode_call(b"[" * 200_000)
