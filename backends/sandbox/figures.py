"""The matplotlib backend of the sandbox: Agg, whose `show` writes files. Read by `sandbox.py` as text."""

from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg as FigureCanvas

__all__ = ["FigureCanvas", "FigureManager", "show"]
FigureManager = FigureManagerBase
_shown = 0


def show(*args: object, **kwargs: object) -> None:
    global _shown
    from matplotlib import pyplot

    for number in pyplot.get_fignums():
        _shown += 1
        pyplot.figure(number).savefig(f"figure-{_shown}.png")
    pyplot.close("all")
