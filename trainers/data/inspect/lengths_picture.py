"""The histogram of sample lengths."""

from pathlib import Path
from textwrap import shorten

import numpy

from trainers.measures.lettering import lettering

BINS = 60
WITHIN, LONGER = "#08519c", "#d94801"


def draw_lengths(lengths: numpy.ndarray, cutoff: int, title: str, file: Path) -> None:
    """Samples by their tokens before truncation, on a logarithmic axis: one long document leaves the others readable."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    edges = bin_edges(lengths, cutoff)
    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=120)
    axes.set_xscale("log")
    axes.hist([lengths[lengths <= cutoff], lengths[lengths > cutoff]], bins=edges, stacked=True, color=[WITHIN, LONGER])
    axes.axvline(cutoff + 1, color=LONGER, linewidth=1.5)
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if edges[-1] < 1000 * edges[0] else (1,)))
    axes.xaxis.set_major_formatter(lambda tokens, _: f"{tokens:,.0f}" if tokens == round(tokens) else "")
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.yaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.set(xlabel="tokens of a sample before truncation (logarithmic axis)", ylabel="samples")
    axes.set_ylim(bottom=0)
    over = f"{numpy.sum(lengths > cutoff):,} of {len(lengths):,} samples are longer than data.cutoff={cutoff}"
    letters = lettering(f"{shorten(title, 90)}\n{over}")
    axes.set_title(letters.text, fontsize=11, fontfamily=letters.fonts)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file)
    pyplot.close(figure)


def bin_edges(lengths: numpy.ndarray, cutoff: int) -> numpy.ndarray:
    """Whole numbers in equal ratios, as far apart as lengths are, one of them just above the cutoff so that no bar lies on both sides."""
    shortest, longest = (lengths.min(), lengths.max()) if len(lengths) else (1, 1)
    inner = numpy.geomspace(max(shortest, 1), longest + 1, BINS + 1).round()
    return numpy.unique(numpy.append(inner, cutoff + 1)).astype(int)
