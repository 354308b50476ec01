"""What all plots have in common: size, colours, a head that says what and where, a caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from rlm_runtime.benchmark.results import Report
from rlm_runtime.errors import ConfigError, InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 8.0
DPI = 150
LINE_CHARACTERS = 100
CAPTION_CHARACTERS = 132
TITLE_CHARACTERS = 62

# Okabe and Ito's colours, which people with any colour vision can tell apart.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
SKY, YELLOW, PINK = "#56B4E9", "#E69F00", "#CC79A7"
PALE_GREEN = "#8FD3C1"
INK, FAINT = "#222222", "#888888"


def new_figure(height_in: float) -> Figure:
    """An empty figure, 1,200 pixels wide.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        # Late, and never pyplot: no window system, no state of the process.
        from matplotlib.figure import Figure
    except ImportError as err:
        raise ConfigError(
            "Plots need matplotlib, which is not installed.",
            "Install it with: pip install 'rlm-vllm[plots]'",
        ) from err
    return Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, layout="constrained")


def head(axes: Axes, title: str, report: Report, *, names_model: bool = False) -> None:
    """A title, and below it the machine and software (`names_model`: the model too)."""
    facts = [report.machine, report.versions["engine"]]
    place = fill("; ".join([report.model, *facts] if names_model else facts), LINE_CHARACTERS)
    title = fill(title, TITLE_CHARACTERS)
    axes.annotate(
        place,
        (0, 1),
        xytext=(0, 5),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize="small",
        color=FAINT,
    )
    axes.set_title(
        title,
        loc="left",
        pad=10 + 12 * len(place.splitlines()),
        fontweight="bold",
        color=INK,
    )


def bare(axes: Axes) -> None:
    """No frame but the axis of numbers, and a faint grid."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")


def box(axes: Axes, values: Sequence[float], row: float, colour: str) -> None:
    """Quartiles and median; whiskers as usual."""
    axes.boxplot(
        [values],
        positions=[row],
        widths=0.26,
        orientation="horizontal",
        showfliers=False,
        manage_ticks=False,
        medianprops={"color": INK, "linewidth": 2},
        boxprops={"color": colour},
        whiskerprops={"color": colour},
        capprops={"color": colour},
    )


def unbroken(items: Sequence[str]) -> str:
    """Items in one line that may only be broken between them."""
    return "; ".join(item.replace(" ", "\N{NO-BREAK SPACE}") for item in items)


def finish(figure: Figure, caption: Sequence[str], path: Path) -> None:
    """Write the caption's lines below, and the file.

    Raises:
        InputError: It can't be written.
    """
    text = "\n".join(fill(line, CAPTION_CHARACTERS) for line in caption if line)
    figure.supxlabel(text, x=0.01, ha="left", fontsize="small", color=INK)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(part, format="png")
        part.replace(path)
    except OSError as err:
        raise InputError(
            f"The plot can't be written to {path}: {err.strerror}.", "Choose another file."
        ) from err
