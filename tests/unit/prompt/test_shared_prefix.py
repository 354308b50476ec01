from __future__ import annotations

import re

from rlm_runtime.prompt import Layout, shared_prefix

# The shipped text under the default model's tokenizer and template.
GOLDEN_DIGEST = "0a4032a2ec7721c4b9141d4f96c29557"
GOLDEN_TOKENS = 1_216

WHY = """
The shared prefix has changed: {digest!r}, {tokens} tokens.
All prompts begin with it, so every cached block of every engine is lost, every recorded run and
stored measurement is of other prompts, and the thresholds of the search recipe were measured with
the old one. If the change is meant, measure again, then renew both constants in this file.
"""


def test_the_shared_prefix_of_the_default_model_is_unchanged(layout: Layout) -> None:
    found = (layout.shared_digest, len(layout.shared_ids))
    assert found == (GOLDEN_DIGEST, GOLDEN_TOKENS), WHY.format(digest=found[0], tokens=found[1])


def test_the_shared_prefix_is_at_least_a_thousand_tokens_of_different_lines(layout: Layout) -> None:
    assert 1_000 <= layout.tokenizer.count(shared_prefix().strip()) <= 1_250
    lines = [line for line in shared_prefix().splitlines() if line]
    repeated = {line for line in lines if lines.count(line) > 1} - {"```", "```repl"}
    # The example that shows two questions about one text repeats that text.
    assert all(line.startswith("The mill") for line in repeated)


def test_the_shared_prefix_is_plain_text_that_cannot_vary() -> None:
    text = shared_prefix()
    assert re.fullmatch(r"[\x20-\x7e\n]+", text)
    assert not re.search(r"\{\{|\{%|\$\{|/\w+/\w+|20[12]\d-|https?:|<\|", text)


def test_the_shared_prefix_names_every_function() -> None:
    functions = "READ WRITE LIST_CONTEXT FINAL llm_query llm_batch llm_map QUERY agent BUDGET"
    for function in functions.split():
        assert re.search(rf"^{function}\(.*\) \w", shared_prefix(), re.MULTILINE), function
