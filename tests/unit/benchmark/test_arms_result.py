"""What rows of arms add up to, on rows made by hand."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rlm_runtime.benchmark.arms import Arm
from rlm_runtime.benchmark.arms_result import ArmCase, ArmRows, told_share
from rlm_runtime.benchmark.qa_result import QaCase, QaResult

OPEN = "unanswerable_field"


def row(number: int, kind: str, arm: Arm, **fields: Any) -> ArmCase:
    base = ArmCase(
        id=f"{kind}-{number}",
        kind=kind,
        arm=arm.value,
        is_answerable=kind != OPEN,
        is_right=False,
        sentence_rank=None,
        found=True,
        is_uncertain=False,
        lift=10.0,
        prompt_tokens=2_000,
        computed_tokens=100,
        generated_tokens=1,
        wall_s=2.0,
        answer="words",
    )
    return msgspec.structs.replace(base, **fields)


def rows() -> ArmRows:
    """Ten shared and four open questions: `both` has 8 right, `bm25` 5 of the same."""
    cases = []
    for n in range(10):
        cases.append(
            row(n, "shared", Arm.BOTH, is_right=n < 8, sentence_rank=1 + n % 2, is_uncertain=n > 5)
        )
        cases.append(row(n, "shared", Arm.BM25, is_right=n < 5, computed_tokens=0, wall_s=None))
    for n in range(4):
        cases.append(row(n, OPEN, Arm.BOTH, found=n != 0, is_uncertain=n in (1, 2)))
        cases.append(row(n, OPEN, Arm.BM25))
    return ArmRows(cases)


def test_the_first_figures_are_the_default_arms() -> None:
    figures = rows().figures()
    assert (
        figures["accuracy"] == figures["accuracy_shared"] == figures["accuracy_shared_both"] == 0.8
    )
    assert figures["passage_accuracy"] == 0.5
    assert figures["certain_rate"] == 0.6
    assert figures["not_found_rate"] == 0.25
    # One of four was answered without a mark.
    assert figures["false_answer_rate"] == figures[f"false_answer_rate_{OPEN}"] == 0.25
    assert figures["cases"] == 14


def test_an_interval_stands_beside_a_share() -> None:
    figures = rows().figures()
    # Wilson's, 8 of 10.
    assert figures["accuracy_low"] == pytest.approx(0.4902, abs=1e-4)
    assert figures["accuracy_high"] == pytest.approx(0.9433, abs=1e-4)


def test_other_arms_have_their_names_behind_the_kind() -> None:
    figures = rows().figures()
    assert figures["accuracy_shared_bm25"] == 0.5
    assert figures[f"false_answer_rate_{OPEN}_bm25"] == 1.0
    assert figures["computed_tokens_per_question_bm25"] == pytest.approx(4 * 100 / 14)
    assert figures["computed_tokens_per_question"] == 100
    assert "accuracy_shared_direct" not in figures


def test_arms_are_compared_question_by_question() -> None:
    figures = rows().figures()
    assert figures["accuracy_difference_bm25"] == pytest.approx(0.3)
    low, high = figures["accuracy_difference_bm25_low"], figures["accuracy_difference_bm25_high"]
    assert low is not None
    assert high is not None
    assert low < 0.3 < high
    (cells,) = rows().differences_table().rows
    assert cells[:4] == ("bm25", "10", "3", "0")


@pytest.mark.parametrize("arm", ["both", "bm25"])
def test_a_question_that_an_arm_was_not_asked_is_no_part_of_its_comparison(arm: str) -> None:
    made = ArmRows(case for case in rows().cases if (case.id, case.arm) != ("shared-9", arm))
    assert made.differences_table().rows[0][1] == "9"
    assert made.figures()["accuracy_difference_bm25"] == pytest.approx(3 / 9)


def test_nothing_was_asked_of_nobody() -> None:
    figures = ArmRows([]).figures()
    assert figures["accuracy"] is None
    assert figures["cases"] == 0


def test_a_share_is_told_with_its_interval() -> None:
    cases = rows().of(Arm.BOTH, "shared")
    assert told_share(cases, lambda case: case.is_right) == "8 of 10 (49-94 %)"
    assert told_share([], lambda case: case.is_right) == "-"


def test_tables_count_what_is_right_quoted_and_sure() -> None:
    made = rows()
    right = made.right_table("Right", [("shared", [c for c in made.cases if c.kind == "shared"])])
    assert right.header == ("questions", "both", "bm25")
    assert right.rows == (("shared", "8 of 10 (49-94 %)", "5 of 10 (24-76 %)"),)
    assert made.passages_table().rows == (("shared", "5 / 10 of 10", "0 / 0 of 10"),)
    sure = {cells[:2]: cells[2:] for cells in made.certainty_table().rows}
    assert sure["shared", "both"] == ("6 of 10 (31-83 %)", "6", "4", "0")
    assert sure[OPEN, "both"][1:] == ("-", "2", "1")
    costs = made.costs_table().rows
    assert costs[0] == ("both", "2,000", "100", "1", "2.0 s", "2.0 s")
    assert costs[1][4:] == ("-", "2.0 s")  # of those that had a time


def test_the_first_reading_of_a_text_is_in_no_mean() -> None:
    cases = [row(n, "shared", Arm.BOTH, wall_s=60.0 if n == 0 else 2.0) for n in range(5)]
    table = ArmRows(cases).costs_table()
    assert table.header[4:] == ("first question alone", "further ones alone")
    assert table.rows[0][4:] == ("60.0 s", "2.0 s")
    assert ArmRows(cases[:1]).costs_table().rows[0][4:] == ("60.0 s", "-")


def qa_result(cases: list[QaCase], planned: int) -> QaResult:
    return QaResult(
        "qa-1", "tune", 0, ("both", "bm25"), "d" * 64, 100, ("gone",), planned, tuple(cases)
    )


def test_the_qa_workload_has_its_tables_of_chunks_too() -> None:
    cases = [
        QaCase(
            **msgspec.structs.asdict(case),
            chunk_rank_bm25=None,
            chunk_rank_ranking=3,
            chunk_rank_both=2,
        )
        for case in rows().cases
    ]
    result = qa_result(cases, planned=28)
    tables = {table.title: table for table in result.tables()}
    chunks = tables["The right chunk among the first (of 10)"]
    assert [cells[1:] for cells in chunks.rows] == [
        ("0", "0", "0", "0"),
        ("0", "10", "10", "10"),
        ("0", "10", "10", "10"),
    ]
    assert result.figures() == rows().figures()
    assert "Ended early" not in " ".join(result.notes())
    assert "gone" in " ".join(result.notes())
    assert "Ended early: 28 of 30" in " ".join(qa_result(cases, planned=30).notes())
