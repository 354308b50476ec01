"""Time to first token: nothing cached, the shared prefix cached, and prompts that can't share it.

    cold      the prefix cache was emptied before the request
    warm      the shared prefix is resident, the rest of the prompt is new
    variable  as warm, but an agent's name and earlier results stand on top of the prompt

One request is in flight, one token is generated, and all prompts of a length have the same number
of tokens. Each round measures every series once, in an order drawn anew, so that a machine that
slows down slows all series alike. A sample whose cached tokens are not what its series means is
no sample of it: a cold one ends the measurement, another one is reported and left out.

However a measurement ends, what was measured before is with the caller (`on_sample`) and in the
event log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from rlm_runtime.api import Internals
from rlm_runtime.benchmark.bench import Bench, bench
from rlm_runtime.benchmark.ttft_result import Sample, Series, TtftResult
from rlm_runtime.errors import EngineError, InputError

OnSample = Callable[[TtftResult], None]
"""Gets everything so far; the newest sample is the last. Quick, in the event loop."""

_SHORT = (Series.COLD, Series.WARM, Series.VARIABLE)
_LONG = (Series.COLD_TAIL128, Series.WARM_TAIL128)


async def measure(
    parts: Internals, *, samples: int, seed: int, on_sample: OnSample | None = None
) -> TtftResult:
    """Measure all series on a started engine that serves nobody else meanwhile.

    The two series with 128 own tokens get a sample every second round. One more round goes before
    all others and is not counted. The engine's prefix cache is emptied again and again, and holds
    little more than the shared prefix afterwards.

    Costs `3 * samples` long prefills: on two CPU cores about 5 s a round.

    Args:
        parts: A started session's.
        samples: Of each series with 32 own tokens, >= 1; 20 or more for figures to publish.
        seed: Of texts, order and intervals.
        on_sample: Called after each sample.

    Raises:
        InputError: `samples` is below 1.
        PromptTooLong: The window can't hold the shared prefix and 128 tokens.
        EngineError: A cold sample found something in the cache, or a request is running.
        EngineDead: The engine's process ended.
    """
    if samples < 1:
        raise InputError(f"{samples} samples can't be measured.", "Take at least 1.")
    rng = np.random.default_rng(seed)
    rounds = []
    for number in range(samples):
        series = [*_SHORT, *(_LONG if number % 2 == 0 else ())]
        rounds.append([series[i] for i in rng.permutation(len(series))])
    with bench(parts, "ttft", seed) as measurement:
        for series_ in (*_SHORT, *_LONG):
            await _sample(measurement, series_, 0, label="ttft warm-up")
        return await _take(measurement, rounds, seed, on_sample)


async def pairs(parts: Internals, count: int, *, on_sample: OnSample | None = None) -> TtftResult:
    """Measure a few cold and warm requests, alternately first, on an engine that has worked.

    For the end of a run, whose own requests wait for each other. There is no warm-up. The prefix
    cache holds little more than the shared prefix afterwards.

    Args:
        parts: A started session's.
        count: Pairs, >= 1.
        on_sample: Called after each sample.

    Raises:
        InputError: `count` is below 1.
        EngineError: As `measure`.
    """
    if count < 1:
        raise InputError(f"{count} pairs can't be measured.", "Take at least 1.")
    # The first request must be a cold one: what is resident before it is not known.
    orders = ([Series.COLD, Series.WARM], [Series.WARM, Series.COLD])
    with bench(parts, "ttft", 0) as measurement:
        rounds = [orders[number % 2] for number in range(count)]
        return await _take(measurement, rounds, 0, on_sample)


async def _take(
    measurement: Bench, rounds: Sequence[Iterable[Series]], seed: int, on_sample: OnSample | None
) -> TtftResult:
    plan = [(number, series) for number, one in enumerate(rounds) for series in one]
    info = measurement.parts.engine.info
    taken: list[Sample] = []

    def result() -> TtftResult:
        return TtftResult(
            samples=tuple(taken),
            planned_samples=len(plan),
            seed=seed,
            shared_prefix_tokens=len(measurement.parts.layout.shared_ids),
            block_size=info.block_size,
            kv_tokens=info.kv_tokens,
        )

    for number, series in plan:
        taken.append(await _sample(measurement, series, number, label=f"ttft {series}"))
        if on_sample is not None:
            on_sample(result())
    return result()


async def _sample(measurement: Bench, series: Series, number: int, label: str) -> Sample:
    if series.is_cold:
        await measurement.forget_cache()
    is_variable = series is Series.VARIABLE
    made = measurement.maker.make(series.own_tokens, is_variable=is_variable)
    facts = (await measurement.run(measurement.call(made.prompt, label))).facts
    if series.is_cold and facts.cached_tokens:
        raise EngineError(
            f"Sample {number} of the series {series} was not cold: {facts.cached_tokens:,} of its "
            f"{facts.prompt_tokens:,} tokens were cached after the cache had been emptied.",
            "Nothing else may use this engine during the measurement.",
        )
    return Sample(
        series=series,
        round=number,
        ttft_s=facts.ttft_s,
        prefill_s=facts.prefill_s,
        queue_s=facts.queue_s,
        prompt_tokens=facts.prompt_tokens,
        cached_tokens=facts.cached_tokens,
        expected_cached_tokens=made.expected_cached_tokens,
    )
