"""What arms made of questions: a row for each question and arm, and what the rows add up to.

Shares carry Wilson's 95 % interval. Arms are compared question by question: what differs between
questions is in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

import msgspec

from rlm_runtime.benchmark import statistics
from rlm_runtime.benchmark.arms import DEFAULT, Arm, ArmAnswer
from rlm_runtime.benchmark.paired import difference_of_shares
from rlm_runtime.benchmark.results import Table
from rlm_runtime.benchmark.statistics import Estimate, share, with_ends
from rlm_runtime.benchmark.workloads.truth import Asked
from rlm_runtime.profiler import Figures

SHARED = "shared"
"""The kind whose figures have no kind in their names."""

IN_FIRST = 3

Holds = Callable[["ArmCase"], bool]


class ArmCase(msgspec.Struct, frozen=True, kw_only=True):
    """One question, answered by one arm.

    Attributes:
        id: The question's.
        kind: The question's.
        arm: The arm's name.
        is_answerable: False: the right result is that nothing was found.
        is_right: The answer holds an expected string for everything that was asked.
        sentence_rank: Place of the right quotation, from 1, the later one of two; `None` if it was
            not quoted.
        found: The arm says that it found something.
        is_uncertain: And is not sure.
        lift: Of the best sentence, nats.
        prompt_tokens: Of all calls.
        computed_tokens: Of these, not taken from the cache, as if the arm had been alone.
        generated_tokens: Of all calls.
        wall_s: Time; `None` when another arm had made some of the calls before.
        answer: The words.
    """

    id: str
    kind: str
    arm: str
    is_answerable: bool
    is_right: bool
    sentence_rank: int | None
    found: bool
    is_uncertain: bool
    lift: float | None
    prompt_tokens: int
    computed_tokens: int
    generated_tokens: int
    wall_s: float | None
    answer: str

    @property
    def is_certain(self) -> bool:
        """It was answered without a mark."""
        return self.found and not self.is_uncertain

    @property
    def has_passage(self) -> bool:
        """The right passage was quoted first."""
        return self.sentence_rank == 1


def judged(asked: Asked, arm: Arm, answer: ArmAnswer) -> ArmCase:
    """Compare an answer with the truth."""
    return ArmCase(
        id=asked.id,
        kind=str(asked.kind),
        arm=arm.value,
        is_answerable=asked.is_answerable,
        is_right=asked.is_right(answer.answer),
        sentence_rank=asked.rank(answer.quoted),
        found=answer.found,
        is_uncertain=answer.is_uncertain,
        lift=answer.lift,
        prompt_tokens=answer.usage.prompt_tokens,
        computed_tokens=answer.usage.computed_tokens,
        generated_tokens=answer.usage.generated_tokens,
        wall_s=answer.wall_s,
        answer=answer.answer,
    )


class ArmRows:
    """Rows of one text, or of several, and what they add up to.

    Args:
        cases: In the order in which they were asked.
    """

    def __init__(self, cases: Iterable[ArmCase]) -> None:
        self.cases = tuple(cases)
        self.kinds = tuple(dict.fromkeys(case.kind for case in self.cases))
        present = {case.arm for case in self.cases}
        self.arms = tuple(arm for arm in Arm if arm in present)
        self.questions = len({case.id for case in self.cases})

    def of(self, arm: Arm, *kinds: str) -> list[ArmCase]:
        """An arm's rows, of all kinds if none is named."""
        return [c for c in self.cases if c.arm == arm and (not kinds or c.kind in kinds)]

    def answerable(self, arm: Arm) -> list[ArmCase]:
        """An arm's rows for questions that have an answer."""
        return [case for case in self.of(arm) if case.is_answerable]

    def figures(self) -> Figures:
        """Of each kind and arm, of each kind for the default arm, and of `shared` alone."""
        figures: dict[str, float | int | None] = {"cases": self.questions}
        for kind in self.kinds:
            for arm in self.arms:
                for name, value in _of_kind(self.of(arm, kind)).items():
                    figures[f"{name}_{kind}_{arm}"] = value
                    if arm is DEFAULT:
                        figures[f"{name}_{kind}"] = value
        for arm in self.arms:
            for name in ("computed_tokens", "generated_tokens"):
                mean = fmean([getattr(case, name) for case in self.of(arm)])
                figures[f"{name}_per_question_{arm}"] = mean
                if arm is DEFAULT:
                    figures[f"{name}_per_question"] = mean
            if arm is not DEFAULT:
                difference = self.difference(arm, _is_right)
                figures.update(with_ends(f"accuracy_difference_{arm}", difference))
        return {**figures, **self.headline()}

    def headline(self) -> Figures:
        """The default arm's figures that are reported first, with their intervals."""
        own = self.of(DEFAULT)
        shared = [case for case in own if case.kind == SHARED]
        open_ = [case for case in own if not case.is_answerable]
        return {
            **with_ends("accuracy", _share(shared, _is_right)),
            **with_ends("passage_accuracy", _share(shared, _has_passage)),
            **with_ends("certain_rate", _share(shared, _is_certain)),
            **with_ends("not_found_rate", _share(open_, _is_not_found)),
            **with_ends("false_answer_rate", _share(open_, _is_certain)),
        }

    def difference(self, arm: Arm, holds: Holds) -> Estimate | None:
        """The default arm's share less that of `arm`, over the answerable questions of both."""
        own = {case.id: case for case in self.answerable(DEFAULT)}
        pairs = [
            (holds(case), holds(own[case.id])) for case in self.answerable(arm) if case.id in own
        ]
        return difference_of_shares(pairs)

    def right_table(self, title: str, groups: Sequence[tuple[str, Sequence[ArmCase]]]) -> Table:
        """How many answers are right, a row for each group of rows and a column for each arm."""
        rows = []
        for name, cases in groups:
            cells = (told_share([c for c in cases if c.arm == arm], _is_right) for arm in self.arms)
            rows.append((name, *cells))
        return Table(title, ("questions", *self.arms), tuple(rows))

    def passages_table(self) -> Table:
        """Which of the quotations are the right ones."""
        arms = [arm for arm in self.arms if arm is not Arm.DIRECT]
        rows = []
        for kind in self.kinds:
            cells = []
            for arm in arms:
                cases = [case for case in self.of(arm, kind) if case.is_answerable]
                firsts = sum(case.has_passage for case in cases)
                nexts = sum((case.sentence_rank or IN_FIRST + 1) <= IN_FIRST for case in cases)
                cells.append(f"{firsts} / {nexts} of {len(cases)}" if cases else "-")
            if set(cells) != {"-"}:
                rows.append((kind, *cells))
        title = f"The right passage quoted first / among the first {IN_FIRST}"
        return Table(title, ("questions", *arms), tuple(rows))

    def certainty_table(self) -> Table:
        """How sure the arms are, and of what."""
        rows = []
        for kind in self.kinds:
            for arm in self.arms:
                cases = self.of(arm, kind)
                if not cases:
                    continue
                certain = [case for case in cases if case.is_certain]
                is_open = not cases[0].is_answerable
                rows.append(
                    (
                        kind,
                        arm.value,
                        told_share(cases, _is_certain),
                        "-" if is_open else str(sum(case.is_right for case in certain)),
                        str(sum(case.found and case.is_uncertain for case in cases)),
                        str(sum(not case.found for case in cases)),
                    )
                )
        header = ("questions", "arm", "answered", "of these right", "uncertain", "not found")
        return Table("How sure", header, tuple(rows))

    def differences_table(self) -> Table:
        """The default arm against each other one."""
        rows = []
        for arm in (arm for arm in self.arms if arm is not DEFAULT):
            own = {case.id: case for case in self.answerable(DEFAULT)}
            pairs = [(own[c.id], c) for c in self.answerable(arm) if c.id in own]
            rows.append(
                (
                    arm.value,
                    str(len(pairs)),
                    str(sum(a.is_right and not b.is_right for a, b in pairs)),
                    str(sum(b.is_right and not a.is_right for a, b in pairs)),
                    _points(self.difference(arm, _is_right)),
                    _points(self.difference(arm, _has_passage)) if arm is not Arm.DIRECT else "-",
                )
            )
        header = (
            f"{DEFAULT} against",
            "questions",
            f"only {DEFAULT} right",
            "only the other",
            "right",
            "right passage",
        )
        return Table("Differences in points, with 95 % intervals", header, tuple(rows))

    def costs_table(self) -> Table:
        """Means of a question, as if each arm had been alone; times only of questions that were.

        The time of an arm's first question has a column of its own: it reads and indexes the text,
        which the others find read. All cases are about one text.
        """
        rows = []
        for arm in self.arms:
            cases = self.of(arm)
            first, *others = (case.wall_s for case in cases)
            times = [wall_s for wall_s in others if wall_s is not None]
            means = (
                fmean(values)
                for values in (
                    [case.prompt_tokens for case in cases],
                    [case.computed_tokens for case in cases],
                    [case.generated_tokens for case in cases],
                )
            )
            seconds = (first, fmean(times) if times else None)
            shown = ("-" if wall_s is None else f"{wall_s:.1f} s" for wall_s in seconds)
            rows.append((arm.value, *(f"{mean:,.0f}" for mean in means), *shown))
        header = (
            "arm",
            "prompt tokens",
            "computed",
            "generated",
            "first question alone",
            "further ones alone",
        )
        return Table("Mean of a question", header, tuple(rows))


def told_share(cases: Sequence[ArmCase], holds: Holds) -> str:
    """A count and its share's interval: "7 of 10 (40-89 %)"; "-" without cases."""
    return statistics.told_share(sum(map(holds, cases)), len(cases))


def _of_kind(cases: Sequence[ArmCase]) -> Figures:
    if not cases:
        return {}
    if cases[0].is_answerable:
        figures = {"accuracy": _share(cases, _is_right), "certain_rate": _share(cases, _is_certain)}
        if cases[0].arm != Arm.DIRECT:
            figures["passage_accuracy"] = _share(cases, _has_passage)
    else:
        figures = {
            "not_found_rate": _share(cases, _is_not_found),
            "false_answer_rate": _share(cases, _is_certain),
        }
    return {
        name: None if estimate is None else estimate.value for name, estimate in figures.items()
    }


def _share(cases: Sequence[ArmCase], holds: Holds) -> Estimate | None:
    return share(sum(map(holds, cases)), len(cases))


def _points(estimate: Estimate | None) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return "-"
    return f"{estimate.value * 100:+.0f} ({estimate.low * 100:+.0f} to {estimate.high * 100:+.0f})"


def _is_right(case: ArmCase) -> bool:
    return case.is_right


def _has_passage(case: ArmCase) -> bool:
    return case.has_passage


def _is_certain(case: ArmCase) -> bool:
    return case.is_certain


def _is_not_found(case: ArmCase) -> bool:
    return not case.found
