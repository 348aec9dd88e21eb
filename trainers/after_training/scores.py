"""How near predictions come to references: ROUGE, BLEU and chrF by the usual libraries, loss and perplexity of the given answers."""

import math
from collections.abc import Iterable
from typing import TypedDict

import regex  # a dependency of sacrebleu: it knows scripts and marks, which `re` does not

# rouge-score's own tokenizer keeps a-z and 0-9 alone, so that any other script scores 0. For ASCII text this one gives the same words.
# Of scripts that write no spaces, and of hangul, each character is one. A vowel sign belongs to its letter.
CHARACTERS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORD = regex.compile(rf"[{CHARACTERS}--\p{{M}}]\p{{M}}*|[\p{{L}}\p{{N}}\p{{M}}--[{CHARACTERS}]]+", regex.VERSION1)
ROUGE = ("rouge1", "rouge2", "rougeL")
ROUGE_WORDS = "words of every script, and single characters where a script has no spaces"

LETTERS, HAN = regex.compile(r"\p{L}"), regex.compile(r"\p{Han}")
SPACELESS = regex.compile(r"[\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}&&\p{L}]", regex.VERSION1)
ENOUGH = 0.1  # of the letters: Japanese is half kana, and an English text with a Chinese name is English
LONGEST_NGRAM = 4  # words, of BLEU


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
        return [str(word) for word in WORD.findall(text.lower())]


def scores(predictions: list[Prediction]) -> dict[str, object]:
    """ROUGE F1, BLEU and chrF from 0 to 100 over the samples with a reference; loss in nats a token."""
    answered = [entry for entry in predictions if entry["reference"]]
    tokens = sum(entry["tokens"] for entry in predictions)
    found: dict[str, object] = {
        "samples": len(predictions),
        "with_reference": len(answered),
        "cut": sum(not entry["ended"] for entry in predictions),
    }
    if answered:
        exact = 100 * sum(entry["prediction"] == entry["reference"] for entry in answered) / len(answered)
        found |= {**rouge(answered), **bleu(answered), **chrf(answered), "exact": exact}
    if tokens:
        loss = sum(entry["loss"] for entry in predictions) / tokens
        found |= {"loss": loss, "perplexity": math.exp(loss), "answer_tokens": tokens}
    return found


def rouge(answered: list[Prediction]) -> dict[str, object]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([*ROUGE], tokenizer=Words())
    each = [scorer.score(entry["reference"], entry["prediction"]) for entry in answered]
    return {**{name: 100 * sum(score[name].fmeasure for score in each) / len(each) for name in ROUGE}, "rouge_words": ROUGE_WORDS}


def bleu(answered: list[Prediction]) -> dict[str, object]:
    """None where every reference is so short that even the same text would score 0."""
    from sacrebleu.metrics import BLEU

    predictions, references = texts(answered)
    metric = BLEU(tokenize=bleu_tokenizer(references))
    score = metric.corpus_score(predictions, [references])
    said = {"bleu_signature": str(metric.get_signature())}
    if all(len(metric.tokenizer(reference).split()) < LONGEST_NGRAM for reference in references):
        return {"bleu": None, "bleu_note": f"BLEU compares {LONGEST_NGRAM} words in a row, and no reference has as many. See chrf.", **said}
    return {"bleu": score.score, **said}


def bleu_tokenizer(references: Iterable[str]) -> str:
    """The name by which sacreBLEU knows the words of these texts: its usual one finds them by spaces.

    Japanese and Thai would need packages of their own for words (ja-mecab), so their characters are compared.
    """
    text = "".join(references)
    letters = len(LETTERS.findall(text))
    if len(SPACELESS.findall(text)) > ENOUGH * letters:
        return "char"
    return "zh" if len(HAN.findall(text)) > ENOUGH * letters else "13a"


def chrf(answered: list[Prediction]) -> dict[str, object]:
    """F-score of character n-grams, which needs no words."""
    from sacrebleu.metrics import CHRF

    predictions, references = texts(answered)
    metric = CHRF()
    return {"chrf": metric.corpus_score(predictions, [references]).score, "chrf_signature": str(metric.get_signature())}


def texts(answered: list[Prediction]) -> tuple[list[str], list[str]]:
    return [entry["prediction"] for entry in answered], [entry["reference"] for entry in answered]
