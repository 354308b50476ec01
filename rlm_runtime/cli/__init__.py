"""The command line: `rlm` and `rlm-bench`, one file a verb. The only room that prints.

stdout is the answer or the data; stderr is progress, hints and errors. A verb's file describes its
options and is cheap to import; what it does is imported when it is done, so that `rlm --help` takes
a moment and needs no engine.
"""

_INTERRUPTED = 130


def main() -> int:
    """`rlm`: returns the exit code."""
    try:
        # Late, as in `bench_main`: importing the package must not bring typer.
        from rlm_runtime.cli.apps import rlm

        return rlm()
    except KeyboardInterrupt:  # before or after the time in which `guard.py` listens
        return _INTERRUPTED


def bench_main() -> int:
    """`rlm-bench`: returns the exit code."""
    try:
        from rlm_runtime.cli.apps import rlm_bench

        return rlm_bench()
    except KeyboardInterrupt:
        return _INTERRUPTED
