"""How near predictions come to references: ROUGE and BLEU by the usual libraries, loss and perplexity of the given answers."""

import math
import re
from typing import TypedDict

# rouge-score's own tokenizer keeps a-z and 0-9 alone, so that any other script scores 0. For ASCII text this one gives the same words;
# of scripts that write no spaces each character is one (CJK ideographs, kana, hangul, Thai).
WORD = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]|[^\W_\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
ROUGE = ("rouge1", "rouge2", "rougeL")


class Prediction(TypedDict):
    """One line of predictions.jsonl."""

    index: int  # in the order of the data
    prompt: str
    prediction: str
    reference: str
    ended: bool  # False: cut at --max-new-tokens
    loss: float  # summed over the tokens of the reference
    tokens: int  # of the reference


class Words:
    """A tokenizer for rouge_score."""

    def tokenize(self, text: str) -> list[str]:
        return WORD.findall(text.lower())


def scores(predictions: list[Prediction]) -> dict[str, object]:
    """ROUGE F1 and BLEU from 0 to 100 over the samples with a reference; loss in nats a token."""
    answered = [entry for entry in predictions if entry["reference"]]
    tokens = sum(entry["tokens"] for entry in predictions)
    found: dict[str, object] = {
        "samples": len(predictions),
        "with_reference": len(answered),
        "cut": sum(not entry["ended"] for entry in predictions),
    }
    if answered:
        found |= {**rouge(answered), **bleu(answered), "exact": 100 * sum(e["prediction"] == e["reference"] for e in answered) / len(answered)}
    if tokens:
        loss = sum(entry["loss"] for entry in predictions) / tokens
        found |= {"loss": loss, "perplexity": math.exp(loss), "answer_tokens": tokens}
    return found


def rouge(answered: list[Prediction]) -> dict[str, float]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([*ROUGE], tokenizer=Words())
    each = [scorer.score(entry["reference"], entry["prediction"]) for entry in answered]
    return {name: 100 * sum(score[name].fmeasure for score in each) / len(each) for name in ROUGE}


def bleu(answered: list[Prediction]) -> dict[str, object]:
    from sacrebleu.metrics import BLEU

    metric = BLEU()
    score = metric.corpus_score([entry["prediction"] for entry in answered], [[entry["reference"] for entry in answered]])
    return {"bleu": score.score, "bleu_signature": str(metric.get_signature())}
