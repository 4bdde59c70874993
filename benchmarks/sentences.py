"""The sentences of the embedding benchmarks: 256 of 3 to 180 words, always the same."""

from __future__ import annotations

import random

WORDS = """
the of and a to in is was that for it with as his on be at by had not are but from or have an they which one
you were her all their there been we who will more when no if out so said what up its about into than them can
only other new some could time these two may then do first any my now such like our over man me even most made
after also did many river market bridge winter garden engine vector cosine neural school teacher doctor music
paint copper silver
""".split()  # noqa: SIM905


def sentences(count: int = 256, seed: int = 7) -> list[str]:
    """Sentences whose lengths are spread like real text: many short ones, a few long ones."""
    draw = random.Random(seed)
    lengths = [min(180, max(3, int(draw.lognormvariate(3.2, 0.8)))) for _ in range(count)]
    return [" ".join(draw.choice(WORDS) for _ in range(length)).capitalize() + "." for length in lengths]
