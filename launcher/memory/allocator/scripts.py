"""What the losses over whole logits take and free, in order: TRL's of stages that compare or write answers, and our ppo.

A script is a tuple of lines: a name and the bytes that are taken under it, 0 where what it names is freed. Orders are those of autograd over the
library's lines; sizes are those of launcher/memory/step/stage_loss.py.
"""

from dataclasses import dataclass

from conf.stages import Loss, compares_joined, stage_row
from launcher.memory.job import Job
from launcher.memory.stages import compares, precomputes
from launcher.memory.step.stage_loss import DISTRIBUTION, answered, distribution_bytes, float_logits, learns_chosen, read_batch

Script = tuple[tuple[str, int], ...]
FREED = 0
LOGITS, GRADIENT = "logits", "gradient of the logits"  # what the forward pass leaves to the backward pass, and that to the head


@dataclass(frozen=True)
class Scripts:
    """Of one micro-batch: passes without gradients before it; the loss, which leaves LOGITS; its backward pass, which leaves GRADIENT."""

    before: Script
    forward: Script
    backward: Script


@dataclass(frozen=True)
class Sizes:
    """Bytes of one batch's logits."""

    product: int  # of the head, in the dtype of the computation
    whole: int  # the same in fp32
    read: int  # in fp32, of the tokens that foretell another one
    row: int  # of one sample of them
    chunk: int  # of one tensor of the entropy

    @property
    def narrow(self) -> bool:
        return self.product < self.whole


def scripts_of(job: Job) -> Scripts | None:
    """None where the loss is one that the replay follows by itself."""
    loss = stage_row(job.run.stage.name).loss
    if loss not in FORWARD or compares_joined(job.run):
        return None
    sizes = sizes_of(job)
    written, also = loss in (Loss.PPO, Loss.GRPO), loss in (Loss.ORPO, Loss.SIMPO) and learns_chosen(job.run)
    forward = chosen_forward(sizes) if also else FORWARD[loss](sizes)
    again = (*forward, (LOGITS, FREED)) if written else judging(sizes)
    before = again if compares(job.run) and not precomputes(job.run) else ()
    return Scripts(before * (2 if loss is Loss.PPO else 1), forward, backward(loss, sizes, chosen_backward(sizes) if also else ()))


def sizes_of(job: Job) -> Sizes:
    read = read_batch(job.run, job.batch)
    known = answered(read)
    return Sizes(
        product=job.storage.compute * read.tokens * job.facts.vocab,
        whole=float_logits(job.facts, read),
        read=float_logits(job.facts, known),
        row=float_logits(job.facts, known) // read.samples,
        chunk=distribution_bytes(job.facts, known) // DISTRIBUTION,
    )


def judging(sizes: Sizes) -> Script:
    """trainers/stages/shared/preferences.py, completion_logps of a reference: row by row, what counts of it and its log-softmax."""
    return (*returned(sizes), ("kept", sizes.row), *passing(sizes.row), ("kept", FREED), (LOGITS, FREED))


def returned(sizes: Sizes) -> Script:
    """The head's product becomes fp32."""
    return (("product", sizes.product), (LOGITS, sizes.whole), ("product", FREED)) if sizes.narrow else ((LOGITS, sizes.whole),)


def passing(size: int) -> Script:
    return (("passing", size), ("passing", FREED))


def entropy(sizes: Sizes) -> Script:
    """trl/trainer/utils.py, entropy_from_logits: the second chunk is made beside the first one's log-probabilities."""
    return (("log", sizes.chunk), ("exp", sizes.chunk), ("weighted", sizes.chunk), ("exp", FREED), ("weighted", FREED), ("log", FREED))


def of_slices(sizes: Sizes) -> Script:
    """Of logits that are a slice, which is copied."""
    return (("copy", sizes.read), *entropy(sizes), ("copy", FREED))


def dpo_forward(sizes: Sizes) -> Script:
    """trl/trainer/dpo_trainer.py, _compute_loss: logsumexp row by row, the entropy, means of the logits of both halves."""
    return (*returned(sizes), *passing(sizes.row), *of_slices(sizes), *passing(sizes.read // 2), *passing(sizes.read // 2))


def kto_forward(sizes: Sizes) -> Script:
    """trl/trainer/kto_trainer.py, _compute_loss: the same, but both halves are copied before their means."""
    half = sizes.read // 2
    halves = (("chosen", half), ("rejected", half), *passing(half), *passing(half), ("chosen", FREED), ("rejected", FREED))
    return (*returned(sizes), *passing(sizes.row), *of_slices(sizes), *halves)


def chosen_forward(sizes: Sizes) -> Script:
    """trl/experimental/orpo/orpo_trainer.py and cpo/cpo_trainer.py, concatenated_forward: a next-token loss on a copy of the chosen half, first."""
    half = sizes.read // 2
    return (*returned(sizes), ("shifted", half), ("soft", half), ("shifted", FREED), *passing(sizes.row))


def simpo_forward(sizes: Sizes) -> Script:
    return (*returned(sizes), *passing(sizes.row))


def chosen_backward(sizes: Sizes) -> Script:
    """Of that loss: through its log-softmax, and two slices, which zeros surround."""
    half = sizes.read // 2
    soft = (("picked", half), ("half", half), ("picked", FREED), ("soft", FREED))
    return (*soft, ("padded", sizes.whole // 2), ("half", FREED), ("other", sizes.whole), ("padded", FREED), ("other", FREED))


def grpo_forward(sizes: Sizes) -> Script:
    """trl/trainer/grpo_trainer.py, _get_per_token_logps_and_entropies: over the temperature, beside what the model returned."""
    product: Script = (("product", sizes.product), ("whole", sizes.whole), ("product", FREED)) if sizes.narrow else (("whole", sizes.whole),)
    return (*product, (LOGITS, sizes.read), *passing(sizes.row), *entropy(sizes), ("whole", FREED))


def ppo_forward(sizes: Sizes) -> Script:
    """trainers/reinforcement/policy.py: inside of the model, whose product is there until it returns."""
    wide: Script = (("wide", sizes.read), (LOGITS, sizes.read), ("wide", FREED)) if sizes.narrow else ((LOGITS, sizes.read),)
    return (("product", sizes.product), *wide, *entropy(sizes), *passing(sizes.row), ("product", FREED))


FORWARD = {
    Loss.DPO: dpo_forward,
    Loss.KTO: kto_forward,
    Loss.ORPO: chosen_forward,
    Loss.SIMPO: simpo_forward,
    Loss.GRPO: grpo_forward,
    Loss.PPO: ppo_forward,
}


def backward(loss: Loss, sizes: Sizes, also: Script) -> Script:
    """Of selective_log_softmax (trl/trainer/utils.py): the gradient of each row, all of them stacked, and that of what was picked, which is added to
    it in place; over the temperature once more; and of the slice, which zeros surround. `also`: of another loss, while those wait."""
    count = max(1, round(sizes.read / sizes.row))
    rows = [f"row {number}" for number in range(count)]
    made = [line for row in rows for line in (("difference", sizes.row), ("exp", sizes.row), (row, sizes.row), ("exp", FREED), ("difference", FREED))]
    stacked = (("stack", sizes.read), *((row, FREED) for row in rows), ("picked", sizes.read), (LOGITS, FREED), ("picked", FREED))
    if loss is Loss.PPO:  # it slices before it widens
        narrow = sizes.read * sizes.product // sizes.whole
        cast: Script = (("cast", narrow), ("divided", FREED)) if sizes.narrow else ()
        last = "cast" if sizes.narrow else "divided"
        return (*made, *stacked, ("divided", sizes.read), ("stack", FREED), *cast, (GRADIENT, sizes.product), (last, FREED))
    rest = "stack"
    if loss is Loss.GRPO:
        stacked, rest = (*stacked, ("divided", sizes.read), ("stack", FREED)), "divided"
    if not sizes.narrow:
        return (*made, *stacked, (GRADIENT, sizes.whole), (rest, FREED), *also)
    return (*made, *stacked, ("zeros", sizes.whole), (rest, FREED), *also, (GRADIENT, sizes.product), ("zeros", FREED))
