"""Whether the tokenizer of a run can do what its stage needs: seen in its files, before any process starts."""

from collections.abc import Iterator
from contextlib import contextmanager

from conf.chat_templates import named_template, refuse_split_tokens, template_names
from conf.constants import BYTE_TOKENIZER
from conf.schema import Run
from conf.stages import stage_row
from launcher.errors import ConfigError
from launcher.facts.awaited import awaited_run
from launcher.facts.model.tokenizer_files import Vocabulary, has_chat_template, named_source, tokenizer_folder, vocabulary
from launcher.facts.node import may_be_elsewhere


def refuse_unfit_tokenizer(run: Run, rows: int) -> tuple[str, ...]:
    """Look at the tokenizer's files as the ranks will load them; the result is what could not be seen.

    Args:
        rows: of the embedding that is trained.

    Raises:
        ConfigError: where there is no tokenizer, or it lacks a chat template, a token or an embedding that the run needs.
    """
    if run.data.template is not None:
        with as_config_error():
            named_template(run.data.template)
    awaited = awaited_run(run, run.model.tokenizer or run.model.path) is not None
    folder = tokenizer_folder(run.model, may_be_elsewhere(run) or awaited)
    if run.data.template is not None or run.model.added_tokens or run.model.tokenizer is not None:  # else its own tokens are the model's
        known = vocabulary(run.model, folder)
        if known is not None:
            refuse_other_tokens(run, known, rows)
    if run.data.template is not None or run.model.tokenizer == BYTE_TOKENIZER or not needs_template(run):
        return ()
    key, source = named_source(run.model)
    if folder is None:
        return (
            f"{key}={source} is not on this machine, so it is not known here whether its tokenizer has a chat template, which stage={run.stage.name} "
            f"needs. If it has none, set data.template to one of {', '.join(template_names())}.",
        )
    if not has_chat_template(folder):
        raise ConfigError(
            f"{key}={source}: its tokenizer has no chat template, and {why_template(run)} needs one. "
            f"Set data.template to one of {', '.join(template_names())}."
        )
    return ()


@contextmanager
def as_config_error() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ConfigError(str(error)) from error


def needs_template(run: Run) -> bool:
    return stage_row(run.stage.name).reads != "text" or run.evaluation.generate is not None


def why_template(run: Run) -> str:
    return f"stage={run.stage.name}" if stage_row(run.stage.name).reads != "text" else "evaluation.generate"


def refuse_other_tokens(run: Run, known: Vocabulary, rows: int) -> None:
    for token in run.model.added_tokens:
        if token in known.tokens:
            raise ConfigError(f"model.added_tokens: {token} is a token of this tokenizer already. Leave it out.")
    if run.data.template is not None:
        with as_config_error():
            refuse_split_tokens(run.data.template, {*known.tokens, *run.model.added_tokens})
    if known.size > rows:
        raise ConfigError(
            f"model.tokenizer uses {known.size} ids, but the model has {rows} embeddings. Use the model's own tokenizer (model.tokenizer=null), "
            f"or a model with vocab_size of at least {known.size}."
        )
