from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from promptq.openai.tool_calls import Call, CallReader, Said
from promptq.openai.tools import turn

GOOD = '<tool_call>\n{"name": "f", "arguments": {"a":  1}}\n</tool_call>'
TRICKY = '<tool_call>{"name": "g", "arguments": {"s": "</tool_call>"}}</tool_call>'
PIECES = st.lists(
    st.sampled_from([GOOD, TRICKY, "hi", " ", "\n", "<tool_call>", "</tool_call>", "<tool", '{"name": 1}', "{"]),
    max_size=8,
)


def read(text: str, cuts: list[int], most: int | None = None) -> tuple[str, list[Call]]:
    reader = CallReader(most)
    pieces = [piece for cut in sorted(cuts) for piece in reader.read(text[:cut], whole=False)]
    pieces += reader.read(text, whole=True)
    said = "".join(piece.text for piece in pieces if isinstance(piece, Said))
    return said, [piece for piece in pieces if isinstance(piece, Call)]


@given(PIECES, st.data(), st.sampled_from([None, 1]))
def test_it_reads_the_same_wherever_the_text_is_cut(pieces: list[str], data: st.DataObject, most: int | None) -> None:
    text = "".join(pieces)
    cuts = data.draw(st.lists(st.integers(0, len(text))))
    assert read(text, cuts, most) == read(text, [], most)
    assert read(text, list(range(len(text))), most) == read(text, [], most)


def test_calls_beside_text() -> None:
    said = turn(f"Look: {GOOD}\n{TRICKY} done", CallReader())
    assert said.content == "Look:done"
    assert [(call.name, call.arguments) for call in said.calls] == [("f", '{"a":  1}'), ("g", '{"s": "</tool_call>"}')]
    assert [call.id("j") for call in said.calls] == ["call_j_0", "call_j_1"]


def test_only_calls_have_no_content() -> None:
    assert turn(GOOD, CallReader()).content is None


def test_what_cannot_be_read_stays_text() -> None:
    unnamed = '<tool_call>{"name": "not a name", "arguments": {}}</tool_call>'
    unsent = '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>'
    nothing = "<tool_call>\n{nothing}\n</tool_call>"
    for text in (nothing, unnamed, unsent, '<tool_call>{"name": "f"', "<tool_", "a \n"):
        assert read(text, list(range(len(text)))) == (text, [])


def test_one_call_at_most() -> None:
    assert len(turn(f"{GOOD}\n{GOOD} more", CallReader(1)).calls) == 1


def test_text_comes_at_once() -> None:
    assert [piece.end for piece in CallReader().read("Hello <to", whole=False)] == [5]
