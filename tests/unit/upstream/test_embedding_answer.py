"""What an answer to a request for an embedding is read as."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic_core import to_json

from gpu_worker.engines.upstream.chunks import Usage
from gpu_worker.engines.upstream.embedding_answer import read
from gpu_worker.engines.upstream.failures import Kind, StreamFault
from promptq.contract.embeddings import packed

NUMBERS = [0.5, -1.25, 3.0]


def answer(*embeddings: Any, **fields: Any) -> bytes:
    return to_json({"data": [{"embedding": each} for each in embeddings], **fields})


@pytest.mark.parametrize("given", [NUMBERS, packed(NUMBERS), [0.5, -1.25, 3]])
def test_both_forms_are_read(given: Any) -> None:
    finish = read(answer(given, usage={"prompt_tokens": 9, "completion_tokens": 1}))
    assert (finish.reason, finish.embedding, finish.usage) == ("stop", NUMBERS, Usage(9))


@pytest.mark.parametrize("usage", [{}, {"usage": None}])
def test_a_server_may_count_nothing(usage: dict[str, Any]) -> None:
    assert read(answer(NUMBERS, **usage)).usage == Usage()


NO_ANSWER = {
    "none": answer(), "two": answer(NUMBERS, NUMBERS), "empty": answer([]), "empty text": answer(""),
    "null": answer(None), "words": answer(["a"]), "no base64": answer("é!"), "half a number": answer("AAAA"),
    "no object": b"[1, 2]", "another object": b'{"embeddings": [[1]]}', "no list": b'{"data": {"embedding": [1]}}',
    "a huge integer": b'{"data": [{"embedding": [1' + b"0" * 400 + b"]}]}", "usage": answer(NUMBERS, usage=[1]),
}  # fmt: skip


@pytest.mark.parametrize("how", NO_ANSWER)
def test_what_makes_no_sense_is_a_failure(how: str) -> None:
    assert fault(NO_ANSWER[how]) is Kind.FAILED


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (answer(NUMBERS)[:-3], Kind.LOST),
        (b"", Kind.FAILED),
        (b'{"error": {"message": "no memory", "code": 500}}', Kind.FAILED),
        (b'{"error": {"message": "no", "code": 400}}', Kind.REQUEST),
        (b'{"data": [{"embedding": [NaN]}]}', Kind.REQUEST),
        (answer("AADAfw=="), Kind.REQUEST),
        (answer([1e39]), Kind.REQUEST),
    ],
)
def test_each_other_answer_has_its_kind(body: bytes, kind: Kind) -> None:
    assert fault(body) is kind


def fault(body: bytes) -> Kind:
    with pytest.raises(StreamFault) as caught:
        read(body)
    return caught.value.failure.kind
