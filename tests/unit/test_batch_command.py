"""What `promptq batch run` says, and how it ends where there is nothing to run or nobody to ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptq.cli import main
from promptq.client.api import CallFailed
from promptq.client.run_batch import AwayNotice, bar
from promptq.contract.exit_codes import ExitCode
from tests.processes import free_port


@pytest.mark.parametrize(
    ("completed", "failed", "total", "expected"),
    [
        (0, 0, 0, "in_progress [..............................] 0/0"),
        (15, 0, 30, "in_progress [###############...............] 15/30"),
        (28, 2, 30, "in_progress [##############################] 30/30, 2 failed"),
    ],
)
def test_the_bar(completed: int, failed: int, total: int, expected: str) -> None:
    counts = {"completed": completed, "failed": failed, "total": total}
    assert bar({"status": "in_progress", "request_counts": counts}) == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("", "the first line has no url"),
        ("[]", "the first line has no url"),
        ('{"url": "/v1/completions"}', "does not answer"),
    ],
)
def test_what_cannot_be_run_is_one_line(
    content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in.jsonl"
    if content is not None:
        path.write_text(content)
    url = f"http://127.0.0.1:{free_port()}"
    code = main(["batch", "run", str(path), "-o", str(tmp_path / "out.jsonl"), "--url", url])
    error = capsys.readouterr().err
    assert (code, said in error, len(error.splitlines())) == (ExitCode.CRASHED, True, 1), error


def test_without_a_file_or_a_batch_there_is_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", "run", "-o", str(tmp_path / "out")]) == ExitCode.CRASHED
    assert "give a file to run, or --batch" in capsys.readouterr().err


def test_an_api_that_is_away_is_told_of_once_and_so_is_its_return(capsys: pytest.CaptureFixture[str]) -> None:
    notice, error = AwayNotice(), CallFailed("http://x/ does not answer: refused.")
    for now in (0.0, 1.0):
        notice.failed(error, now)
    notice.answered()
    assert capsys.readouterr().err == "", "a moment is not worth a word"
    for now in (10.0, 12.0, 16.0, 60.0):
        notice.failed(error, now)
    assert capsys.readouterr().err.splitlines() == [
        "", "promptq: no answer, trying on: http://x/ does not answer: refused."
    ]  # fmt: skip
    notice.answered()
    notice.answered()
    assert capsys.readouterr().err.splitlines() == ["promptq: the API answers again"]
