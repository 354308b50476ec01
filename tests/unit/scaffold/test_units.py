from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_runtime.scaffold.units import MAX_UNIT_CHARS, across, units


def quotes(text: str) -> list[str]:
    return [text[u.start : u.end] for u in units(text)]


def headings(text: str) -> list[str | None]:
    return [None if u.heading is None else text[slice(*u.heading)] for u in units(text)]


def test_prose_is_quoted_sentence_by_sentence() -> None:
    text = 'He left at noon. "Why so early?" she asked. Nobody knew (he said).  They waited.'
    assert quotes(text) == [
        "He left at noon.",
        '"Why so early?" she asked.',
        "Nobody knew (he said).",
        # "They waited." has two words only and says nothing alone.
    ]


@pytest.mark.parametrize(
    "sentence",
    [
        "See e.g. Chapter nine of the book.",
        "Version 3.11 of Python was released by J. Smith et al. in autumn.",
        "The value is 0.5 at most, vs. 0.7 before.",
        f"It goes on {'and on ' * 60}until J. Smith et al. Say so.",
    ],
)
def test_a_stop_inside_a_sentence_does_not_end_it(sentence: str) -> None:
    assert quotes(f"{sentence} Another sentence stands here.")[0] == sentence


def test_an_underlined_line_is_the_heading_of_what_follows() -> None:
    text = "Notice\n======\n\nThree months are given in writing.\n\nThe quarter ends the contract."
    assert quotes(text) == ["Three months are given in writing.", "The quarter ends the contract."]
    assert headings(text) == ["Notice", "Notice"]


def test_a_signature_is_the_heading_of_its_indented_description() -> None:
    text = (
        "String methods\n**************\n\n"
        "str.strip(chars=None)\n\n   Return a copy without leading white space.\n\n"
        "str.title()\n   Return a titlecased version of the string.\n\n"
        "This paragraph stands alone again.\n"
    )
    assert dict(zip(quotes(text), headings(text), strict=True)) == {
        "str.strip(chars=None)": "String methods",
        "Return a copy without leading white space.": "str.strip(chars=None)",
        "Return a titlecased version of the string.": "str.title()",
        "This paragraph stands alone again.": "String methods",
    }


def test_list_items_are_units_of_their_own() -> None:
    text = "Rules:\n\n* the first rule is short\n* the second rule\n  goes on here\n"
    assert quotes(text) == ["* the first rule is short", "* the second rule\n  goes on here"]


def test_code_and_tables_stay_together_in_groups_of_lines() -> None:
    rows = "".join(f"{i},name{i},{i * 7}\n" for i in range(14))
    assert [quote.count("\n") + 1 for quote in quotes(rows)] == [6, 6, 2]
    code = ">>> x = {1, 2}\n>>> y = x | {3}\n>>> len(y)\n3\n"
    assert quotes(code) == [code.rstrip()]


def test_chinese_sentences_end_without_a_space() -> None:
    text = "合同于二〇二四年签署。签署人是王丽。违约金为百分之五。"
    assert quotes(text) == ["合同于二〇二四年签署。", "签署人是王丽。", "违约金为百分之五。"]


def test_a_sentence_without_end_is_split_at_spaces() -> None:
    text = "word " * 1000
    assert all(len(q) <= MAX_UNIT_CHARS for q in quotes(text))
    assert "".join(quotes(text)).replace(" ", "") == "word" * 1000


@given(st.text(alphabet=st.sampled_from("abcAB .!?\n\t*-=#|,;>1（。é"), max_size=400))
def test_units_are_in_order_and_bounded_spans_of_the_text(text: str) -> None:
    reached = 0
    for unit in units(text):
        assert reached <= unit.start < unit.end <= len(text)
        assert unit.end - unit.start <= MAX_UNIT_CHARS or "\n" in text[unit.start : unit.end]
        assert not text[unit.start].isspace()
        if unit.heading is not None:
            assert unit.heading[0] < unit.heading[1] <= unit.end
        reached = unit.end


TEXTS = st.text(alphabet=st.sampled_from("abcAB .!?\n\t*-=#|,;>1（。é"), max_size=400)


@given(TEXTS, st.integers(0, 400))
def test_units_behind_a_place_are_those_of_the_whole_text_cut_there(text: str, start: int) -> None:
    behind = [unit for unit in units(text) if unit.start >= start]
    cut = units(text, start)
    assert list(cut)[len(cut) - len(behind) :] == behind
    if len(cut) > len(behind):  # the one that stands across the place
        assert len(cut) == len(behind) + 1
        across = next(unit for unit in units(text) if unit.end == cut[0].end)
        assert across.start < start <= cut[0].start < cut[0].end
        assert text[start : cut[0].start].isspace() or start == cut[0].start


def test_the_unit_across_a_border_is_found_whole() -> None:
    text = "He left at noon. Nobody knew the reason for it. They waited there for him."
    middle = text.index("knew")
    start, end = across(text, middle)
    assert text[start:end] == "Nobody knew the reason for it."
    assert [text[u.start : u.end] for u in units(text, end)] == ["They waited there for him."]
    assert [text[u.start : u.end] for u in units(text[:end], middle)] == ["knew the reason for it."]


@given(TEXTS, st.integers(0, 400))
def test_a_border_between_units_has_none_across(text: str, border: int) -> None:
    border = min(border, len(text))
    start, end = across(text, border)
    assert border - MAX_UNIT_CHARS <= start <= border <= end <= border + MAX_UNIT_CHARS
    cut = [(u.start, u.end) for u in units(text) if u.start < border < u.end]
    assert cut == ([(start, end)] if start < end else [])
