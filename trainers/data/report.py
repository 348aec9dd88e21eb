"""What became of the data: counts, and the sentence that tells them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataReport:
    samples: int  # read
    truncated: int  # longer than the cutoff
    dropped: int  # without anything to learn, most often because the cutoff took the whole answer
    train_samples: int
    evaluation_samples: int
    train_rows: int  # fewer than the samples when packed
    tokens: int  # of both parts, after truncation
    learned_tokens: int
    longest: int  # tokens of the longest sample, before truncation
    cutoff: int

    def sentence(self) -> str:
        rows = f" in {self.train_rows:,} packed rows" if self.train_rows != self.train_samples else ""
        return (
            f"{self.samples:,} samples: {self.train_samples:,} to train{rows}, {self.evaluation_samples:,} to evaluate, {self.dropped:,} dropped "
            f"(nothing left to learn), {self.truncated:,} truncated at data.cutoff={self.cutoff} (longest {self.longest:,}); "
            f"{self.tokens:,} tokens, {self.learned_tokens:,} of them learned."
        )
