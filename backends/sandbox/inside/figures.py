"""matplotlib's backend in the sandbox: what `plt.show()` would show becomes `figure-1.png` and so on."""

from __future__ import annotations

import os

from matplotlib import pyplot
from matplotlib.backend_bases import FigureManagerBase as FigureManager
from matplotlib.backends.backend_agg import FigureCanvasAgg

FigureCanvas = FigureCanvasAgg
__all__ = ["FigureCanvas", "FigureManager", "show"]


def show(*_arguments: object, **_options: object) -> None:
    """Write every open figure into the working directory and close it."""
    number = 1
    for figure in map(pyplot.figure, pyplot.get_fignums()):
        while os.path.exists(f"figure-{number}.png"):  # noqa: PTH110 - pathlib is not loaded here
            number += 1
        figure.savefig(f"figure-{number}.png")
        print(f"[figure-{number}.png]")
    pyplot.close("all")
