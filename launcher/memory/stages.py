"""What a run's stage holds and runs beside the model that learns, from the row of the stage (conf/stages.py) and its keys."""

from dataclasses import dataclass, replace

from conf.constants import SCORE_HEAD
from conf.regimes import regime_row
from conf.schema import Dpo, Grpo, Ppo, Run
from conf.stages import Loss, stage_row
from launcher.facts.model import ModelFacts, ModuleKind


@dataclass(frozen=True)
class Copies:
    """Whole models that a rank keeps beside the one that learns. None holds a model of values: PPO's are a head on the policy."""

    reference: int  # the model as it was before training, frozen, in the dtype that is computed in
    reward: int  # the same for the model that judges answers; taken to be as large as the one that learns


def compares(run: Run) -> bool:
    """Whether log-probabilities of the reference are computed."""
    return stage_row(run.stage.name).reference and not (isinstance(run.stage, Grpo) and run.stage.kl_coef == 0)


def precomputes(run: Run) -> bool:
    """Whether that is over before training begins."""
    return isinstance(run.stage, Dpo) and run.stage.precompute_reference


def judged(run: Run) -> bool:
    """Whether a reward model is held."""
    return isinstance(run.stage, (Ppo, Grpo)) and run.stage.reward_model is not None


def copies_of(run: Run) -> Copies:
    """With adapters the reference is the base itself, its adapter switched off."""
    adapter = regime_row(run.regime.name).learns == "an adapter"
    reference = compares(run) and not precomputes(run) and not adapter
    return Copies(int(reference), int(judged(run)))


def answer_length(run: Run) -> int:
    """Tokens that the policy writes after a prompt of data.cutoff; 0 where the data hold the answers."""
    return run.stage.response_length if isinstance(run.stage, (Ppo, Grpo)) else 0


def sample_tokens(run: Run) -> int:
    """Tokens at most that learning from one sample runs over."""
    return stage_row(run.stage.name).sequences * (run.data.cutoff + answer_length(run))


def repeats_its_passes(run: Run) -> bool:
    """Whether some pass that learns is, module by module, the pass over the same model before it. ZeRO-3 foresees which weights are used again soon
    only then (runtime/zero/partitioned_param_coordinator.py, trace_prologue); otherwise it frees each as soon as it was used.

    No pass is where another one without gradients lies before each: kto's over mismatched answers, and that of a base without its adapter. Writing
    answers begins anew (trl/models/utils.py, add_hooks): one pass is recorded after it, and the next is foreseen. What reads ppo's answers back is
    recorded as a pass that ends with the loss, and what was freed after a module then is freed again (__params_to_release is cached).
    """
    accumulation, adapted = run.training.accumulation, regime_row(run.regime.name).learns == "an adapter"
    if isinstance(run.stage, Ppo):
        return adapted and run.stage.epochs * run.stage.mini_batches * accumulation > 1
    if isinstance(run.stage, Grpo):
        return accumulation > (2 if adapted and compares(run) else 1)
    if stage_row(run.stage.name).read_between:
        return False
    return not (adapted and compares(run) and not precomputes(run))


def forwards_of(run: Run) -> float:
    """Passes without gradients, for each pass that learns."""
    row = stage_row(run.stage.name)
    if isinstance(run.stage, Ppo):
        return row.forwards / run.stage.epochs
    return row.forwards - (row.reference and not compares(run)) - precomputes(run)


def facts_of_stage(run: Run, facts: ModelFacts) -> ModelFacts:
    """The model that the stage trains. A score is a vocabulary of one: a head of its own with one row, where the language model's was."""
    if stage_row(run.stage.name).loss is not Loss.SCORE:
        return facts
    body = tuple(module for module in facts.modules if module.kind != "head")
    return replace(facts, vocab=1, tied=False, modules=(*body, ModuleKind(SCORE_HEAD, "head", facts.hidden, 1, facts.hidden, ())))
