"""The copies of the queries' gradient that deterministic flash attention makes."""

import pytest

from conf.schema import Run
from launcher.facts.model import ModelFacts
from launcher.memory.cards import spans_of
from launcher.memory.job import Job, job_of, worst_batch
from launcher.memory.step.query_sums import query_sums
from tests.launcher.memory.conftest import Described

EIGHT_HEADS_OF_64 = ("model.architecture.hidden_size=512", "model.architecture.num_attention_heads=8", "model.architecture.num_key_value_heads=8")


def job(described: tuple[Run, ModelFacts]) -> Job:
    return job_of(*described, worst_batch(*described))


@pytest.mark.parametrize(("samples", "copies"), [(1, 17), (4, 5), (32, 1)])
def test_every_processor_of_an_h200_has_a_head_and_a_sample_to_itself(described: Described, samples: int, copies: int) -> None:
    """132 processors and 8 heads: nsplits of flash_api.cpp worked out by hand."""
    batch = (f"training.micro_batch={samples}", *EIGHT_HEADS_OF_64)
    assert query_sums(job(described(*batch, "training.deterministic=true"))) == 4 * 8 * 64 * copies
    assert query_sums(job(described(*batch))) == 4 * 8 * 64


def test_a_card_with_other_processors_may_need_more_or_less(described: Described) -> None:
    """8 heads of 64 and one sample of 64 tokens: 17 copies here, 1 with one processor, 19 with the 148 of a B200."""
    keys = ("training.deterministic=true", "data.cutoff=64", "training.micro_batch=1", *EIGHT_HEADS_OF_64)
    elsewhere = {span.reason: (span.less, span.more) for span in spans_of(job(described(*keys, "node=a100_80")))}
    assert elsewhere["sums in one order"] == (16 * 4 * 8 * 64 * 64, 2 * 4 * 8 * 64 * 64)
    assert spans_of(job(described(*keys))) == ()


def test_a_cpu_needs_no_copies(described: Described) -> None:
    assert query_sums(job(described("node=cpu", "training.deterministic=true", *EIGHT_HEADS_OF_64))) == 4 * 8 * 64
