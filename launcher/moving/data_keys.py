"""The arguments of LLaMA-Factory as the keys of a run: sets, template, cutoff, masks, mixing."""

from conf.chat_templates import template_names
from launcher.moving.draft import Draft


def data(draft: Draft) -> None:
    sets = draft.texts("dataset")
    draft.put("dataset", "data", "files")
    if sets:
        draft.put("dataset", "data.sets", sets)
    elif not draft.stated("dataset"):
        draft.refuse("dataset", "it is not stated, and a run needs data")
    folder = draft.text("dataset_dir") or ""
    if folder == "ONLINE":
        draft.same("dataset_dir", "data.sets: ids of the hub")
    elif folder.startswith("REMOTE:"):
        draft.refuse("dataset_dir", "a registry of the hub is not read. Download it and name its folder")
    else:
        draft.put("dataset_dir", "data.folder", folder)
    draft.number_to("cutoff_len", "data.cutoff")
    template(draft)
    if draft.value("max_samples") is not None:
        draft.number_to("max_samples", "data.max_samples")
    packing(draft)
    draft.switch_to("mask_history", "data.train_history", False)
    draft.switch_to("train_on_prompt", "data.mask_prompt", False)
    draft.switch_to("streaming", "data.streaming")
    if draft.switch("streaming"):
        draft.number_to("buffer_size", "data.buffer")
    draft.switch_to("split_special_tokens", "data.control_tokens", "text")
    mixing(draft, len(sets))
    if draft.value("preprocessing_num_workers") is not None:
        draft.number_to("preprocessing_num_workers", "data.workers")
    draft.idle(
        "tokenized_path",
        "tokenised data is kept by itself, and used again while data and settings are the same; to tokenise alone: regimen data prepare",
    )


def template(draft: Draft) -> None:
    name = draft.text("template")
    if draft.value("stage") == "pt":
        draft.idle("template", "stage=pt learns texts as they stand")
    elif name in template_names():
        draft.put("template", "data.template", name)
    elif name is not None:
        draft.put(
            "template", "data.template", None, f"{name} is not among the named ones: the tokenizer's own is used. See what it writes: data validate"
        )


def packing(draft: Draft) -> None:
    """Not stated, it is on for stage=pt. Without neat_packing, attention crosses samples there."""
    stated = draft.value("packing")
    packed = draft.switch("packing") or draft.switch("neat_packing") or (stated is None and draft.value("stage") == "pt")
    if not packed:
        for name in ("packing", "neat_packing"):
            draft.idle(name, "off, as here")
        return
    apart = "" if draft.switch("neat_packing") else "attention does not cross samples here"
    draft.put("packing", "data.packing", True, apart)
    draft.same("neat_packing", "data.packing: true")


def mixing(draft: Draft, sets: int) -> None:
    strategy = draft.value("mix_strategy")
    names = {"concat": "concatenate", "interleave_under": "interleave_under", "interleave_over": "interleave_over"}
    if strategy not in names:
        draft.refuse("mix_strategy", f"{strategy} is not one of {', '.join(names)}")
    elif draft.stated("mix_strategy"):
        draft.put("mix_strategy", "data.mixing", names[strategy])
    shares = draft.texts("interleave_probs")
    if not shares:
        return
    try:
        numbers = [float(share) for share in shares]
    except ValueError:
        draft.refuse("interleave_probs", f"{','.join(shares)} are not numbers")
        return
    if len(numbers) != sets:
        draft.refuse("interleave_probs", f"{len(numbers)} shares stand for {sets} data sets")
    draft.put("interleave_probs", "data.probabilities", numbers)
