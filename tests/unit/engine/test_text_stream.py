"""Text from tokens: whole characters, exact sums, stop strings that span tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engines.continuous.text.text_stream import Detokenizer, TextStream
from gpu_worker.engines.stop_filter import StopFilter

SPECIAL = 300


def decode_bytes(ids: list[int]) -> str:
    """A byte-level tokenizer: one id per byte."""
    return bytes(id for id in ids if id < 256).decode("utf-8", errors="replace")


def decode_words(ids: list[int]) -> str:
    """A SentencePiece-like tokenizer: every token is a word, and the first one loses its space."""
    return "".join(f" w{id}" for id in ids)[1:]


def pieces(text: str) -> list[int]:
    return list(text.encode())


def test_an_unfinished_character_waits():
    detokenizer = Detokenizer(decode_bytes)
    assert [detokenizer.push(id) for id in pieces("aé€")] == ["a", "", "é", "", "", "€"]


def test_an_unfinished_character_is_dropped_at_the_end():
    detokenizer = Detokenizer(decode_bytes)
    assert "".join(detokenizer.push(id) for id in pieces("ab€")[:-1]) == "ab"
    assert detokenizer.flush() == ""


def test_text_before_an_unfinished_character_is_not_lost():
    detokenizer = Detokenizer(lambda ids: "".join({1: "x", 2: "y\ufffd"}[id] for id in ids))
    assert [detokenizer.push(1), detokenizer.push(2), detokenizer.flush()] == ["x", "", "y"]


def test_the_first_tokens_space_is_lost_only_once():
    detokenizer = Detokenizer(decode_words)
    assert [detokenizer.push(id) for id in (1, 2, 3)] == ["w1", " w2", " w3"]


def test_special_tokens_are_skipped_and_leave_no_trace():
    detokenizer = Detokenizer(decode_words, special={SPECIAL})
    assert [detokenizer.push(id) for id in (1, SPECIAL, 2)] == ["w1", "", " w2"]


@given(st.text(max_size=40))
def test_pieces_add_up_to_the_whole(text):
    detokenizer = Detokenizer(decode_bytes)
    out = "".join(detokenizer.push(id) for id in pieces(text)) + detokenizer.flush()
    assert out == text.rstrip("\ufffd") or out == text


@given(st.lists(st.integers(0, 255), max_size=40))
def test_any_bytes_add_up_to_their_decoding(ids):
    detokenizer = Detokenizer(decode_bytes)
    out = "".join(detokenizer.push(id) for id in ids) + detokenizer.flush()
    assert out.rstrip("\ufffd") == decode_bytes(ids).rstrip("\ufffd")


@pytest.mark.parametrize(
    ("stops", "given", "out", "stopped"),
    [
        ([], ["a", "b"], ["a", "b", ""], False),
        (["END"], ["some E", "N", "D more"], ["some ", "", "", ""], True),
        (["END"], ["some E", "Nough"], ["some ", "ENough", ""], False),
        (["END"], ["x EN"], ["x ", "EN"], False),
        (["\n\n"], ["a\n", "b\n", "\nc"], ["a", "\nb", "", ""], True),
        (["aab"], ["aa", "ab"], ["", "a", ""], True),
        (["bc", "abc"], ["abc"], ["", ""], True),
        (["abcd", "c"], ["ab", "cd"], ["", "ab", ""], True),
    ],
)
def test_stop_strings(stops, given, out, stopped):
    filter = StopFilter(stops)
    assert [*(filter.push(text) for text in given), filter.flush()] == out
    assert filter.stopped is stopped


short = st.text("ab", max_size=12)


@given(st.lists(short, max_size=6), st.lists(st.text("ab", min_size=1, max_size=4), max_size=4))
def test_stopping_does_not_depend_on_the_pieces(parts, stops):
    def passed(texts):
        filter = StopFilter(stops)
        return "".join(filter.push(text) for text in texts) + filter.flush(), filter.stopped

    text = "".join(parts)
    assert passed(parts) == passed(text) == passed([text])
    out, stopped = passed(parts)
    assert text.startswith(out)
    assert stopped == any(stop in text for stop in stops)
    assert not any(stop in out for stop in stops)


def test_a_stream_remembers_its_text():
    stream = TextStream(decode_bytes, stops=["!"])
    assert "".join(stream.push(id) for id in pieces("né! more")) + stream.flush() == "né" == stream.text
    assert stream.stopped
