"""How an answer is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rlm_runtime.api import Result
from rlm_runtime.cli import answers
from rlm_runtime.cli.inputs import Source, Text
from rlm_runtime.scaffold.recipes.search_result import Outcome, PartResult, Passage
from rlm_runtime.scaffold.short_form import ShortForm
from rlm_runtime.types import AgentId, Ref, StopReason, Usage

TEXTS = {
    "report": Text(Ref("report", 1, "str", 100, "d"), Source("R.txt", Path("R.txt"), "", 3, "d")),
}
BEST = Passage("report", 10, 30, "Anna Meier\nsigned it.", "Signatures", 25.0)
OTHERS = [Passage("report", 40 + i, 50 + i, f"Other {i}\n\n line.", "", 3.0) for i in range(20)]
UNSURE = (PartResult("", Outcome.UNCERTAIN),)
FOUND = Result(
    kind="search",
    answer=BEST.text,
    answers=(BEST,),
    shorts=(None,),
    parts=(PartResult("", Outcome.ANSWERED),),
    found=True,
    is_uncertain=False,
    passages=(BEST, *OTHERS),
    chunks=(),
    stop_reason=StopReason.FINAL,
    usage=Usage(calls=7, prompt_tokens=400, cached_tokens=300, computed_tokens=100),
    figures={"wall_s": 1.25},
    pieces=9,
    ranked=9,
    agent_id=AgentId("a1"),
    run_directory=None,
)


def test_a_found_answer_is_quoted_with_its_place_and_two_more() -> None:
    assert answers.block(FOUND, TEXTS, str).splitlines() == [
        "Anna Meier",
        "signed it.",
        "    R.txt:bytes 13-33  (Signatures)",
        "    also R.txt:bytes 43-53: Other 0 line.",
        "    also R.txt:bytes 44-54: Other 1 line.",
    ]


def test_an_uncertain_answer_says_so() -> None:
    unsure = replace(FOUND, parts=UNSURE, is_uncertain=True)
    assert answers.block(unsure, TEXTS, str).startswith("uncertain: Anna")


def test_the_short_form_stands_out_in_its_place() -> None:
    best = replace(BEST, text="\n Ünder\x1b Anna\nMeier signed.  ", end_byte=39)
    short = ShortForm("Anna\nMeier", 20, 30)
    result = replace(FOUND, answers=(best,), passages=(best,), shorts=(short,))
    assert best.text.encode()[10:20] == b"Anna\nMeier"
    text = answers.block(result, TEXTS, lambda words: f"<{words}>")
    assert text.splitlines()[:2] == ["Ünder <Anna", "Meier> signed."]
    unsure = replace(result, parts=UNSURE, is_uncertain=True)
    marked = answers.block(unsure, TEXTS, lambda words: f"<{words}>")
    assert marked.startswith("uncertain: Ünder <")


def test_not_found_still_shows_where_it_looked_best() -> None:
    result = replace(FOUND, found=False, answer=None, answers=(), shorts=(), passages=tuple(OTHERS))
    assert answers.block(result, TEXTS, str).splitlines()[:2] == [
        "Not found",
        "    nearest R.txt:bytes 43-53: Other 0 line.",
    ]
    assert answers.block(replace(result, passages=()), TEXTS, str) == "Not found"


def test_the_cost_has_tokens_share_calls_and_time() -> None:
    assert answers.cost(FOUND) == "100 tokens computed, 300 from cache (75 %), 7 calls, 1.2 s"
    nothing = replace(FOUND, usage=Usage(), figures={})
    assert answers.cost(nothing) == "0 tokens computed, 0 from cache, 0 calls"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"ranked": 4}, "--exhaustive"),
        ({"ranked": 4, "stop_reason": StopReason.BUDGET_TOKENS}, "max_tokens was reached"),
        ({"stop_reason": StopReason.BUDGET_SECONDS}, "max_seconds was reached"),
    ],
)
def test_what_was_not_looked_at_is_admitted(changes: dict[str, object], words: str) -> None:
    said = answers.caveat(replace(FOUND, **changes))  # type: ignore[arg-type] # any field
    assert words in said
    assert bool(said) == bool(words)
    assert ("4 of 9 chunks" in said) == (changes.get("ranked") == 4)


def test_a_document_lists_passages_with_places_in_the_file() -> None:
    facts = answers.facts("Who?", FOUND, TEXTS)
    passages = facts["passages"]
    assert isinstance(passages, list)
    assert passages[0] == {
        "variable": "report",
        "file": "R.txt",
        "start_byte": 13,
        "end_byte": 33,
        "text": BEST.text,
        "heading": "Signatures",
        "lift": 25.0,
        "part": "",
    }
    assert len(passages) == 10
    assert facts["answers"] == [passages[0] | {"short": None}]


def test_a_document_has_the_short_form_with_its_place_in_the_file() -> None:
    result = replace(FOUND, shorts=(ShortForm("Anna", 10, 14),))
    listed = answers.facts("Who?", result, TEXTS)["answers"]
    assert isinstance(listed, list)
    assert listed[0]["short"] == {"text": "Anna", "start_byte": 13, "end_byte": 17}


def test_each_part_of_a_question_has_its_own_answer() -> None:
    first = replace(BEST, part="Who signed it?")
    second = replace(OTHERS[0], part="When was it burnt?")
    third = replace(OTHERS[1], part="Who signed it?")
    again = [replace(first, part=second.part), replace(third, part=second.part)]
    short = ShortForm("signed", 21, 27)
    result = replace(
        FOUND,
        answers=(first,),
        shorts=(short,),
        parts=(
            PartResult(first.part, Outcome.UNCERTAIN),
            PartResult(second.part, Outcome.NOT_FOUND),
        ),
        passages=(first, second, third, *again),
        is_uncertain=True,
    )
    assert answers.block(result, TEXTS, lambda words: f"<{words}>").splitlines() == [
        "Who signed it?",
        "uncertain: Anna Meier",
        "<signed> it.",
        "    R.txt:bytes 13-33  (Signatures)",
        "When was it burnt?",
        "Not found",
        "    also R.txt:bytes 43-53: Other 0 line.",
        "    also R.txt:bytes 44-54: Other 1 line.",
    ]
    both = replace(
        result,
        answers=(first, second),
        shorts=(short, None),
        parts=(
            PartResult(first.part, Outcome.ANSWERED),
            PartResult(second.part, Outcome.UNCERTAIN),
        ),
    )
    lines = answers.block(both, TEXTS, str).splitlines()
    assert [lines[0], lines[1]] == ["Who signed it?", "Anna Meier"]
    assert lines[4:6] == ["When was it burnt?", "uncertain: Other 0"]
    listed = answers.facts("Who signed it, and when was it burnt?", both, TEXTS)["answers"]
    assert isinstance(listed, list)
    assert [answer["part"] for answer in listed] == ["Who signed it?", "When was it burnt?"]


def test_a_part_that_a_limit_left_out_is_named() -> None:
    first = replace(BEST, part="Who signed it?")
    result = replace(
        FOUND,
        answers=(first,),
        passages=(first,),
        parts=(
            PartResult(first.part, Outcome.ANSWERED),
            PartResult("When was it burnt?", Outcome.LEFT_OUT),
            PartResult("Why\x1b was it burnt?", Outcome.NOT_FOUND),
        ),
        stop_reason=StopReason.BUDGET_CALLS,
    )
    assert answers.block(result, TEXTS, str).splitlines() == [
        "Who signed it?",
        "Anna Meier",
        "signed it.",
        "    R.txt:bytes 13-33  (Signatures)",
        "When was it burnt?",
        "Left out: max_calls was reached",
        "Why was it burnt?",
        "Nothing found before max_calls was reached",
    ]
    assert answers.facts("?", result, TEXTS)["parts"] == [
        {"part": "Who signed it?", "outcome": "answered"},
        {"part": "When was it burnt?", "outcome": "left_out"},
        {"part": "Why\x1b was it burnt?", "outcome": "not_found"},
    ]
