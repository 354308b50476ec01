"""Two results against each other, made by hand in the form in which commands write them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from rlm_runtime.benchmark.compare import Change, Verdict, compare
from rlm_runtime.benchmark.figure_kinds import Better, figure_kind
from rlm_runtime.benchmark.result_file import ResultFile, read_result
from rlm_runtime.errors import InputError

Document = dict[str, Any]
QA_CASES = [
    {"id": f"{kind}-{n}", "kind": kind, "is_right": n % 2 == 0, "sentence_rank": 1 + n % 3}
    | {"found": kind != "unanswerable_field", "computed_tokens": 100 + 10 * n, "wall_s": 2.0}
    for kind in ("shared", "paraphrased", "unanswerable_field")
    for n in range(8)
]


def figures_of(cases: list[Document]) -> Document:
    def share(kind: str, name: str) -> float:
        chosen = [case for case in cases if case["kind"] == kind]
        return sum(bool(case[name]) for case in chosen) / len(chosen)

    return {
        "accuracy": share("shared", "is_right"),
        "accuracy_paraphrased": share("paraphrased", "is_right"),
        "not_found_rate": 1 - share("unanswerable_field", "found"),
        "computed_tokens": sum(case["computed_tokens"] for case in cases),
        "wall_s": 50.0,
        "hit_rate": 0.9,
        "shared_prefix_tokens": 1216,
        "engine_computed_tokens": None,
    }


@pytest.fixture
def qa() -> Document:
    cases = copy.deepcopy(QA_CASES)
    return {
        "schema_version": 1,
        "benchmark": "qa",
        "figures": figures_of(cases),
        "notes": [],
        "detail": {"qa": {"workload": "qa-1", "half": "tune", "seed": 0, "cases": cases}},
        "model": "m",
        "machine": "a machine, 2 cores",
        "versions": {"rlm-vllm": "0.1.0", "engine": "vllm"},
        "config_digest": "abc",
        "run_id": "r",
        "made_at": "2026-01-01T00:00:00+00:00",
    }


@pytest.fixture
def ttft(qa: Document) -> Document:
    rows = [
        {"series": series, "ttft_s": median * (1 + 0.01 * n), "is_as_meant": n >= 3}
        for series, median in (("cold", 2.0), ("warm", 0.1), ("variable", 2.0))
        for n in range(9)
    ]
    runs = [
        {"arm": arm, "wall_s": wall * (1 + 0.01 * n), "is_as_meant": True}
        for arm, wall in (("scheduler_in_turn", 20.0), ("scheduler_batched", 4.0))
        for n in range(6)
    ]
    figures = {"ttft_cold_ms_p50": 2000.0, "ttft_warm_ms_p50": 100.0, "ttft_warm_over_cold": 0.05}
    figures |= {"ttft_warm_over_cold_low": 0.04, "ttft_warm_n": 8, "batch_speedup": 5.0}
    detail = {
        "ttft": {"seed": 0, "planned_samples": 27, "is_complete": True, "samples": rows},
        "batching": {"seed": 0, "calls": 16, "runs": runs},
    }
    return qa | {"benchmark": "ttft", "figures": figures, "detail": detail}


def result(document: Document, folder: Path, name: str = "a") -> ResultFile:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document))
    return read_result(path)


def changes(a: Document, b: Document, folder: Path, *, forced: bool = False) -> dict[str, Change]:
    made = compare(result(a, folder), result(b, folder, "b"), is_forced=forced)
    return {change.figure: change for change in made.changes}


def right(document: Document, *wanted: str) -> Document:
    """The same result with more right answers."""
    changed = copy.deepcopy(document)
    cases = changed["detail"]["qa"]["cases"]
    for case in cases:
        case["is_right"] |= case["id"] in wanted
    changed["figures"] = figures_of(cases)
    return changed


def test_quality_is_a_difference_with_an_interval_over_the_same_cases(
    qa: Document, tmp_path: Path
) -> None:
    change = changes(qa, right(qa, "shared-1", "shared-3"), tmp_path)["accuracy"]
    assert change.change is not None
    assert change.change.value == pytest.approx(0.25)
    assert change.change.low is not None
    assert change.change.low < 0.25
    assert change.verdict is Verdict.UNCLEAR


def test_many_cases_that_turn_right_are_better(qa: Document, tmp_path: Path) -> None:
    b = right(qa, *(f"paraphrased-{n}" for n in range(8)))
    found = changes(qa, b, tmp_path)
    assert found["accuracy_paraphrased"].verdict is Verdict.BETTER
    assert found["accuracy"].verdict is Verdict.UNCLEAR, "the other kind's cases did not change"
    assert changes(b, qa, tmp_path)["accuracy_paraphrased"].verdict is Verdict.WORSE


def test_a_figure_that_its_cases_do_not_lead_to_has_no_interval(
    qa: Document, tmp_path: Path
) -> None:
    b = copy.deepcopy(qa)
    b["figures"]["accuracy"] = 0.75
    change = changes(qa, b, tmp_path)["accuracy"]
    assert change.change == (0.25, None, None)
    assert change.verdict is Verdict.UNCLEAR


def test_shares_that_hardly_differ_are_even_without_an_interval(
    qa: Document, tmp_path: Path
) -> None:
    b = copy.deepcopy(qa)
    b["figures"]["accuracy"] += 0.001
    assert changes(qa, b, tmp_path)["accuracy"].verdict is Verdict.EVEN


@pytest.fixture
def needle(qa: Document) -> Document:
    """Two arms and two sizes; the default arm has every other case right, the other one none."""
    cases = [
        case
        | {"id": f"{size}-{case['id']}", "arm": arm, "size": size}
        | {"is_right": case["is_right"] and arm == "both", "is_uncertain": size == "1M"}
        for case in QA_CASES
        for size in ("16k", "1M")
        for arm in ("both", "bm25")
    ]
    figures = {
        "accuracy": 0.5,
        "accuracy_1m": 0.5,
        "accuracy_paraphrased": 0.5,
        "accuracy_paraphrased_bm25": 0.0,
        "accuracy_paraphrased_bm25_16k": 0.0,
        "certain_rate": 0.5,
        "certain_rate_1m": 0.0,
        "false_answer_rate": 0.0,
    }
    detail = {"needle": {"workload": "needle-1", "cases": cases}}
    return qa | {"benchmark": "needle", "figures": figures, "detail": detail}


def test_figures_of_arms_and_sizes_have_intervals_over_their_own_cases(
    needle: Document, tmp_path: Path
) -> None:
    b = copy.deepcopy(needle)
    for case in b["detail"]["needle"]["cases"]:
        case["is_right"] |= case["arm"] == "bm25"
        case["is_uncertain"] = False
    b["figures"] |= {
        "accuracy_paraphrased_bm25": 1.0,
        "accuracy_paraphrased_bm25_16k": 1.0,
        "certain_rate": 1.0,
        "certain_rate_1m": 1.0,
    }
    found = changes(needle, b, tmp_path)
    for name in needle["figures"]:
        change = found[name].change
        assert change is not None
        assert change.low is not None, name
    same = ("accuracy", "accuracy_1m", "accuracy_paraphrased", "false_answer_rate")
    assert {found[name].verdict for name in same} <= {Verdict.UNCLEAR, Verdict.SAME}
    for name in needle["figures"].keys() - set(same):
        assert found[name].verdict is Verdict.BETTER


def test_other_texts_of_the_same_size_are_refused(needle: Document, tmp_path: Path) -> None:
    texts = [{"size": size, "digest": size * 4, "tokens": 9} for size in ("16k", "1M")]
    needle["detail"]["needle"]["texts"] = texts
    b = copy.deepcopy(needle)
    b["detail"]["needle"]["texts"][1]["digest"] = "another"
    with pytest.raises(InputError, match=r"needle\.text_1M: 1M1M1M1M / another"):
        changes(needle, b, tmp_path)
    del b["detail"]["needle"]["texts"][1]  # it ended before it came there
    assert "accuracy" in changes(needle, b, tmp_path)


@pytest.mark.parametrize(
    ("measurement", "listed", "name", "value"),
    [
        ("ttft", "samples", "ttft_s", "fast"),
        ("ttft", "samples", "ttft_s", 0),
        ("ttft", "samples", "series", None),
        ("batching", "runs", "wall_s", -1.0),
        ("batching", "runs", "is_as_meant", "yes"),
        ("qa", "cases", "id", ["a"]),
        ("qa", "cases", "arm", {}),
        ("qa", "cases", "found", "no"),
        ("qa", "cases", "computed_tokens", -5),
    ],
)
def test_damaged_samples_are_named(
    qa: Document,
    ttft: Document,
    tmp_path: Path,
    measurement: str,
    listed: str,
    name: str,
    value: object,
) -> None:
    document = qa if measurement == "qa" else ttft
    damaged = copy.deepcopy(document)
    damaged["detail"][measurement][listed][1][name] = value
    for pair in ((document, damaged), (damaged, document)):
        with pytest.raises(InputError, match=rf"damaged.*{name}.*{measurement}\.{listed}"):
            changes(*pair, tmp_path)


@pytest.mark.parametrize("rows", [None, "none", [[]], [1], {"a": 1}])
def test_samples_that_are_none_are_named(ttft: Document, tmp_path: Path, rows: object) -> None:
    damaged = copy.deepcopy(ttft)
    damaged["detail"]["ttft"]["samples"] = rows
    with pytest.raises(InputError):
        changes(ttft, damaged, tmp_path, forced=True)


def test_costs_of_a_case_are_the_default_arms(needle: Document, tmp_path: Path) -> None:
    b = copy.deepcopy(needle)
    for case in b["detail"]["needle"]["cases"]:
        case["computed_tokens"] *= 1 if case["arm"] == "both" else 100
    assert changes(needle, b, tmp_path)["computed_tokens_per_case"].change == pytest.approx(
        (1, 1, 1)
    )


def test_other_cases_give_no_interval(qa: Document, tmp_path: Path) -> None:
    b = copy.deepcopy(qa)
    b["detail"]["qa"]["cases"][0]["id"] = "another"
    change = changes(qa, b, tmp_path)["accuracy"].change
    assert change is not None
    assert change.low is None


def test_tokens_of_a_case_are_paired_and_sums_have_no_interval(
    qa: Document, tmp_path: Path
) -> None:
    b = copy.deepcopy(qa)
    for case in b["detail"]["qa"]["cases"]:
        case["computed_tokens"] /= 2
    b["figures"]["computed_tokens"] /= 2
    found = changes(qa, b, tmp_path)
    assert found["computed_tokens_per_case"].change == pytest.approx((0.5, 0.5, 0.5))
    assert found["computed_tokens"].change == (0.5, None, None)
    assert {found[n].verdict for n in ("computed_tokens", "computed_tokens_per_case")} == {
        Verdict.BETTER
    }


def test_a_time_that_was_measured_once_decides_nothing(qa: Document, tmp_path: Path) -> None:
    b = copy.deepcopy(qa)
    b["figures"] |= {"wall_s": 5.0, "hit_rate": 0.1}
    found = changes(qa, b, tmp_path)
    assert found["wall_s"].verdict is Verdict.UNCLEAR
    assert found["hit_rate"].verdict is Verdict.DIFFERENT, "a raw hit rate has no better way"


def test_counts_that_the_order_of_a_batch_may_change_are_even(qa: Document, tmp_path: Path) -> None:
    b = copy.deepcopy(qa)
    b["figures"]["computed_tokens"] += 1
    assert changes(qa, b, tmp_path)["computed_tokens"].verdict is Verdict.EVEN
    assert changes(qa, qa, tmp_path)["computed_tokens"].verdict is Verdict.SAME


def test_ratios_of_times_come_from_all_samples_that_are_what_they_say(
    ttft: Document, tmp_path: Path
) -> None:
    b = copy.deepcopy(ttft)
    for row in b["detail"]["ttft"]["samples"]:
        row["ttft_s"] *= (0.5 if row["series"] == "warm" else 1) if row["is_as_meant"] else 99
    b["figures"] |= {"ttft_warm_ms_p50": 50.0, "ttft_warm_over_cold": 0.025}
    found = changes(ttft, b, tmp_path)
    for name in ("ttft_warm_ms_p50", "ttft_warm_over_cold"):
        change = found[name].change
        assert change is not None
        assert change.value == pytest.approx(0.5)
        assert change.low is not None
        assert change.high is not None
        assert change.low < 0.5 < change.high < 1
        assert found[name].verdict is Verdict.BETTER
    assert found["ttft_cold_ms_p50"].verdict is Verdict.UNCLEAR
    assert found["batch_speedup"].verdict is Verdict.UNCLEAR
    assert found["batch_speedup"].change is not None
    assert "ttft_warm_over_cold_low" not in found
    assert "ttft_warm_n" not in found


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"benchmark": "ttft"}, "benchmark: qa / ttft"),
        ({"model": "n"}, "model: m / n"),
        ({"machine": "b"}, "machine: a machine, 2 cores / b"),
        ({"config_digest": "d"}, "config_digest: abc / d"),
        ({"seed": 3}, "qa.seed: 0 / 3"),
        ({"workload": "qa-2"}, "qa.workload: qa-1 / qa-2"),
        ({"cases_asked": [1, 2]}, "qa.cases_asked: none / [1, 2]"),
        ({"shared_prefix_tokens": 8}, "shared_prefix_tokens: 1216 / 8"),
    ],
)
def test_unequal_settings_are_refused_by_name_unless_forced(
    qa: Document, tmp_path: Path, changed: Document, named: str
) -> None:
    b = copy.deepcopy(qa)
    for name, value in changed.items():
        place = b if name in b else b["figures"] if name in b["figures"] else b["detail"]["qa"]
        place[name] = value
    with pytest.raises(InputError) as caught:
        compare(result(qa, tmp_path), result(b, tmp_path, "b"))
    assert f"settings: {named}." in str(caught.value)
    assert "--force" in str(caught.value)
    forced = compare(result(qa, tmp_path), result(b, tmp_path, "b"), is_forced=True)
    assert len(forced.differing) == 1
    assert forced.document()["settings_are_equal"] is False
    assert forced.notes()[0].startswith("Forced: ")


def test_how_often_was_measured_and_which_version_are_no_settings(
    ttft: Document, tmp_path: Path
) -> None:
    b = copy.deepcopy(ttft)
    b["detail"]["ttft"] |= {"planned_samples": 270, "is_complete": False, "dropped": []}
    b["versions"]["rlm-vllm"] = "0.2.0"
    made = compare(result(ttft, tmp_path), result(b, tmp_path, "b"))
    assert made.differing == {}
    assert any("versions differ" in note for note in made.notes())
    rows = {row[0]: row[1:] for row in made.tables()[0].rows}
    assert rows["rlm-vllm"] == ("0.1.0", "0.2.0", "differs")


def test_figures_that_only_one_has_are_named(qa: Document, tmp_path: Path) -> None:
    b = copy.deepcopy(qa)
    del b["figures"]["wall_s"]
    b["figures"]["generated_tokens"] = 5
    made = compare(result(qa, tmp_path), result(b, tmp_path, "b"))
    assert (made.only_a, made.only_b) == (("wall_s",), ("generated_tokens",))


def test_figures_of_the_document_are_flat(qa: Document, tmp_path: Path) -> None:
    figures = compare(result(qa, tmp_path), result(qa, tmp_path, "b")).figures()
    assert figures["computed_tokens_ratio"] == 1
    assert figures["computed_tokens_ratio_low"] is None
    assert figures["accuracy_difference"] == 0
    assert figures["accuracy_difference_low"] is not None
    assert all(value is None or isinstance(value, int | float) for value in figures.values())


def test_a_figure_that_was_zero_has_no_ratio(qa: Document, tmp_path: Path) -> None:
    a, b = copy.deepcopy(qa), copy.deepcopy(qa)
    a["figures"]["computed_tokens"] = 0
    change = changes(a, b, tmp_path)["computed_tokens"]
    assert (change.change, change.verdict) == (None, Verdict.WORSE)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not a result"),
        ("[]", "not a result"),
        ('{"schema_version": 1}', "not a result"),
        ('{"schema_version": 9}', "schema version 9"),
    ],
)
def test_what_is_no_result_is_said(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(InputError, match=said):
        read_result(tmp_path)


def test_a_directory_without_a_result_and_a_missing_file_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no result\.json"):
        read_result(tmp_path)
    with pytest.raises(InputError, match="can't be read"):
        read_result(tmp_path / "no.json")


def test_results_that_were_committed_can_be_compared() -> None:
    results = sorted((Path(__file__).parents[3] / "bench" / "results").glob("*.json"))
    assert results
    for path in results:
        made = compare(read_result(path), read_result(path))
        assert made.changes
        assert {change.verdict for change in made.changes} <= {Verdict.SAME, Verdict.UNCLEAR}


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("computed_tokens", Better.LOWER),
        ("ttft_warm_over_cold", Better.LOWER),
        ("ttft_variable_over_cold", Better.NEITHER),
        ("hit_rate", Better.NEITHER),
        ("hit_rate_of_ceiling", Better.HIGHER),
        ("engine_batch_speedup", Better.HIGHER),
        ("saving_by_reference", Better.HIGHER),
        ("accuracy_planted_direct", Better.HIGHER),
        ("false_answer_rate_1m", Better.LOWER),
        ("certain_rate", Better.HIGHER),
        ("computed_tokens_per_question_bm25", Better.LOWER),
        ("a_figure_of_tomorrow", Better.NEITHER),
    ],
)
def test_each_figure_has_its_way(name: str, better: Better) -> None:
    kind = figure_kind(name)
    assert kind is not None
    assert kind.better is better


@pytest.mark.parametrize("name", ["block_size", "batch_speedup_low", "ttft_cold_n", "cases"])
def test_set_up_and_ends_of_intervals_are_not_compared(name: str) -> None:
    assert figure_kind(name) is None
