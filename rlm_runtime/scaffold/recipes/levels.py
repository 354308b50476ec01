"""The tree of calls that makes one result of many: which results are read together, at what cost.

It depends on the number of parts and the sizes of prompts alone, not on what results say: each
counts as long as it may be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from rlm_runtime.errors import PromptTooLong
from rlm_runtime.prompt import CONNECTIVE
from rlm_runtime.scaffold.recipes.plan import Plan, Step, leaf_tokens
from rlm_runtime.scaffold.tree import Tree

Combine = Literal["model", "join"]
"""How the results become one: by further calls, or as they are, one behind the other."""

COMBINE = "The texts above answer this for the parts of one text, in order. Answer for all of it: "
"""In front of the task, behind results of a level."""


@dataclass(frozen=True, slots=True)
class Levels:
    """Sizes of the prompts of one task.

    Attributes:
        tree: The tree.
        combine: How the results become one.
        answer_tokens: Most tokens of a result.
        task_tokens: Behind a chunk.
        combine_tokens: Behind results.
        joint_tokens: Between two results.
        fan_in: Results that one combining call reads.
    """

    tree: Tree
    combine: Combine
    answer_tokens: int
    task_tokens: int
    combine_tokens: int
    joint_tokens: int
    fan_in: int

    @classmethod
    def of(cls, tree: Tree, task: str, combine: Combine, answer_tokens: int | None) -> Levels:
        """The sizes for a task; encodes it. Arguments are `MapReduce`'s."""
        layout = tree.layout
        shared, behind_chunk = len(layout.shared_ids), len(layout.tail(CONNECTIVE + task))
        if answer_tokens is None and combine == "model":
            answer_tokens = tree.config.agents.answer_tokens
        elif answer_tokens is None:
            # As long as what it is made of, where the window has that much beside the longest one.
            chunk = tree.corpus.max_piece_tokens
            left = tree.info.window - shared - behind_chunk - chunk - layout.block_size
            answer_tokens = max(1, min(chunk, left))
        behind = len(layout.tail(CONNECTIVE + COMBINE + task))
        joint = len(layout.tokenizer.encode(CONNECTIVE))
        room = tree.info.window - shared - behind - answer_tokens
        return cls(
            tree=tree,
            combine=combine,
            answer_tokens=answer_tokens,
            task_tokens=behind_chunk,
            combine_tokens=behind,
            joint_tokens=joint,
            fan_in=(room + joint) // (answer_tokens + joint),
        )

    def plan(self, chunk_tokens: Sequence[int]) -> Plan:
        """What all levels cost at most.

        Args:
            chunk_tokens: Of each chunk's document.

        Raises:
            PromptTooLong: A chunk or two results do not fit the window, with the task and a result.
        """
        answer, window = self.answer_tokens, self.tree.info.window
        costs = [leaf_tokens(self.tree.layout, n, self.task_tokens, answer) for n in chunk_tokens]
        if max(costs, default=0) > window:
            raise PromptTooLong(
                max(costs),
                window,
                "The task, a chunk and its result must fit: shorten the task or the results, or "
                "lower search.chunk_tokens.",
            )
        if self.combine == "model" and len(costs) > 1 and self.fan_in < 2:
            raise PromptTooLong(
                self._combining_tokens(2),
                window,
                "The task, two results and a third must fit: shorten the task or the results.",
            )
        sums = list(accumulate(costs, initial=0))

        def first(parts: int) -> Plan:
            steps = [Step("extract", parts, sums[parts])]
            results = parts if self.combine == "model" else 1
            while results > 1:
                groups = groups_of(results, self.fan_in)
                calls = [self._combining_tokens(len(group)) for group in groups if len(group) > 1]
                steps.append(Step("combine", len(calls), sum(calls)))
                results = len(groups)
            left_out = len(costs) - parts
            return Plan(steps=tuple(steps), parts=parts, left_out=left_out, shrunk=first)

        return first(len(costs))

    def _combining_tokens(self, results: int) -> int:
        document = results * (self.answer_tokens + self.joint_tokens) - self.joint_tokens
        return leaf_tokens(self.tree.layout, document, self.combine_tokens, self.answer_tokens)


def groups_of(results: int, most: int) -> list[range]:
    """The fewest groups of neighbours with at most `most` each, as even as they can be."""
    count = -(-results // most)
    ends = [results * (i + 1) // count for i in range(count)]
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]
