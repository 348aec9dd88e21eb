"""What became of the data: counts, and a sentence with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conf.data_sets import ENDINGS, HELD_OUT, data_ending, listed, split_of


@dataclass(frozen=True, kw_only=True)
class SetsReport:
    """What became of the records of some sets."""

    samples: int  # read
    unreadable: int  # records that gave none, where data.on_bad=drop
    truncated: int  # longer than the cutoff
    drops: dict[str, int]  # how many for each reason
    cutoff: int
    unread: dict[str, int] = field(default_factory=dict)  # columns and fields that no row shows, and of how many samples
    repairs: dict[str, int] = field(default_factory=dict)  # what data.turns=repair did, and to how many samples
    controls: dict[str, int] = field(default_factory=dict)  # control tokens in texts, and of how many samples
    control_tokens: str = "special"  # data.control_tokens; a run of before there was the key read them so

    @property
    def dropped(self) -> int:
        return sum(self.drops.values())

    def counted(self, chosen: str) -> str:
        """The counts in words, with what was chosen of the samples among them."""
        reasons = ", ".join(f"{count:,} {reason}" if len(self.drops) > 1 else reason for reason, count in self.drops.items())
        unreadable = f" ({self.unreadable:,} further rows could not be read and were dropped)" if self.unreadable else ""
        dropped = f"{self.dropped:,} dropped{f' ({reasons})' if reasons else ''}"
        return f"{self.samples:,} samples{unreadable}: {chosen}{dropped}, {self.truncated:,} truncated at data.cutoff={self.cutoff}"

    def notes(self) -> list[str]:
        return [*repair_lines(self.repairs), *unread_lines(self.unread), *control_lines(self.controls, self.control_tokens)]


@dataclass(frozen=True, kw_only=True)
class DataReport(SetsReport):
    """Of the sets to train on, what was held out of them, and of data.evaluation_sets; a streamed run has the last alone."""

    train_samples: int
    evaluation_samples: int
    train_rows: int  # fewer than the samples when packed
    tokens: int  # of both parts, after truncation
    learned_tokens: int
    longest: int  # tokens of the longest sample, before truncation
    left_over: int = 0  # that data.mixing=interleave_under never comes to; a run of before this was counted is resumed without it
    one_class: list[str] = field(default_factory=list)  # a warning where answers are all labelled alike
    left_out: list[str] = field(default_factory=list)  # files of the sets' folders that are not read
    evaluation_sets: SetsReport | None = None

    def sentence(self) -> str:
        rows = f" in {self.train_rows:,} rows" if self.train_rows != self.train_samples else ""
        left_over = f"{self.left_over:,} left over by data.mixing, " if self.left_over else ""
        chosen = f"{self.train_samples:,} to train{rows}, {self.evaluation_samples:,} to evaluate, {left_over}"
        counts = f"{self.counted(chosen)} (longest {self.longest:,}); {self.tokens:,} tokens, {self.learned_tokens:,} of them learned."
        return " ".join([counts, *self.notes(), *left_out_lines(self.left_out), *self.one_class, *self.evaluation_notes()])

    def evaluation_notes(self) -> list[str]:
        """What the first counts do not hold: they are of the sets to train on."""
        apart = self.evaluation_sets
        return [] if apart is None else [f"The evaluation sets have {apart.counted('')}.", *(f"There: {note}" for note in apart.notes())]


def read_report(values: dict[str, Any]) -> DataReport:
    """A report as report.json holds it."""
    apart = values.get("evaluation_sets")
    return DataReport(**{**values, "evaluation_sets": None if apart is None else SetsReport(**apart)})


def unread_lines(unread: Mapping[str, int]) -> list[str]:
    """What the records hold and the model does not see."""
    return [f"The model does not see {', '.join(f'{name} ({count:,} samples)' for name, count in unread.items())}."] if unread else []


def control_lines(controls: Mapping[str, int], control_tokens: str) -> list[str]:
    """Texts that a tokenizer would read as more than text."""
    if not controls:
        return []
    told = ", ".join(f"{token} ({count:,} samples)" for token, count in controls.items())
    if control_tokens == "text":
        return [f"Control tokens in texts of the data stay text: {told}."]
    return [f"Texts of the data hold control tokens, which the model reads as such: {told}. To keep them text, set data.control_tokens=text."]


def repair_lines(repairs: Mapping[str, int]) -> list[str]:
    return [f"data.turns=repair: {', '.join(f'{what} ({count:,} samples)' for what, count in repairs.items())}."] if repairs else []


def left_out_lines(files: Sequence[str]) -> list[str]:
    """Files that are not trained on: held-out splits, and the others."""
    held_out = [file for file in files if data_ending(Path(file)) and split_of(Path(file)) in HELD_OUT]
    others = [file for file in files if file not in held_out]
    lines = []
    if held_out:
        named = ", ".join(held_out)
        lines.append(f"These files belong to other splits and are not trained on: {named}. To evaluate on them, name them in data.evaluation_sets.")
    if others:
        lines.append(f"These files are not read: {listed(others)}. To train on a file, name it in data.sets; it must end in {', '.join(ENDINGS)}.")
    return lines


def one_class_lines(good: int, answers: int) -> list[str]:
    """A warning where stage=kto would learn from one label alone."""
    if 0 < good < answers:
        return []
    missing, there = ("bad", "good") if good else ("good", "bad")
    return [
        f"WARNING: all {answers:,} answers are labelled {there} and none is labelled {missing}, so stage=kto has nothing to tell them from. "
        f"Add answers labelled {missing}, correct the column of the label, or learn good answers with stage=sft."
    ]
