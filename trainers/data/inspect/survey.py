"""What a data configuration holds, counted: per set and over all, lengths, what is dropped and why, duplicates, labels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from conf.schema import Data
from conf.stages import Kind
from trainers.data.prepare.selection import drop_reasons, kept
from trainers.data.prepare.tokenising import Tokenised
from trainers.data.rows.drops import is_empty
from trainers.data.rows.row_kinds import ROWS

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


@dataclass(frozen=True)
class SetCounts:
    name: str
    records: int
    samples: int
    unusable: int  # records that gave no sample
    dropped: int  # samples that are not learned from
    truncated: int  # of the others
    tokens: int  # of what is left, after truncation
    learned_tokens: int
    label_share: float | None  # of labelled answers: the share that is good
    repairs: dict[str, int]  # what data.turns=repair did, and to how many samples
    unread: dict[str, int]  # columns and fields that the model does not see, and of how many samples
    controls: dict[str, int]  # control tokens in texts, and of how many samples


@dataclass(frozen=True)
class Survey:
    sets: list[SetCounts]
    drops: dict[str, int]  # samples by reason
    empty: int
    duplicates: int  # samples with the same tokens as an earlier one
    lengths: dict[str, int]  # tokens before truncation: least, percentiles, most
    over_cutoff: int
    cutoff: int
    control_tokens: str  # as data.control_tokens


def survey(samples: Tokenised, names: Sequence[str], data: Data, kind: Kind) -> Survey:
    facts = samples.rows.with_format("numpy")
    lengths = facts["length"][:]
    reasons = drop_reasons(samples.rows)
    return Survey(
        sets=[set_counts(samples, number, name, data, kind) for number, name in enumerate(names)],
        drops=dict(reasons),
        empty=sum(count for reason, count in reasons.items() if is_empty(reason)),
        duplicates=len(lengths) - len(numpy.unique(facts["digest"][:])),
        lengths=length_table(lengths),
        over_cutoff=int(numpy.sum(lengths > data.cutoff)),
        cutoff=data.cutoff,
        control_tokens=data.control_tokens,
    )


def set_counts(samples: Tokenised, number: int, name: str, data: Data, kind: Kind) -> SetCounts:
    facts = samples.rows.with_format("numpy")
    own = facts["set"][:] == number
    used = own & kept(samples.rows)
    unusable = Counter(problem.set for problem in samples.problems)
    return SetCounts(
        name=name,
        records=samples.read[number],
        samples=int(numpy.sum(own)),
        unusable=unusable[number],
        dropped=int(numpy.sum(own & ~used)),
        truncated=int(numpy.sum(used & (facts["length"][:] > data.cutoff))) if ROWS[kind].cuts else 0,
        tokens=int(numpy.sum(facts["tokens"][:][used])),
        learned_tokens=int(numpy.sum(facts["learned"][:][used])),
        label_share=float(numpy.mean(facts["label"][:][own])) if kind == "labelled" and own.any() else None,
        repairs=dict(samples.notes[number]["repairs"]),
        unread=dict(samples.notes[number]["unread"]),
        controls=dict(samples.notes[number]["controls"]),
    )


def length_table(lengths: numpy.ndarray) -> dict[str, int]:
    """Each percentile is the length of a sample, the nearest one (numpy's `nearest` method)."""
    if not len(lengths):
        return {}
    inner = numpy.percentile(lengths, PERCENTILES, method="nearest")
    named = {f"{percentile} %": int(value) for percentile, value in zip(PERCENTILES, inner, strict=True)}
    return {"least": int(lengths.min()), **named, "most": int(lengths.max())}


def common_samples(one: Tokenised, other: Tokenised) -> int:
    """Samples of `other` that are in `one` too: an evaluation on them measures memory."""
    return int(numpy.isin(other.rows.with_format("numpy")["digest"][:], one.rows.with_format("numpy")["digest"][:]).sum())
