"""The histogram of sample lengths."""

from pathlib import Path

import numpy

BINS = 60


def draw_lengths(lengths: numpy.ndarray, cutoff: int, title: str, file: Path) -> None:
    """Samples by their tokens before truncation, the cutoff marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=120)
    axes.hist(lengths, bins=BINS, color="#08519c")
    axes.axvline(cutoff, color="#d94801", linewidth=1.5, label=f"data.cutoff={cutoff}")
    axes.set(xlabel="tokens", ylabel="samples", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, format="png")
    pyplot.close(figure)
