"""ROUGE, BLEU and loss over predictions, on numbers computed by hand."""

import math

import pytest
from rouge_score.tokenize import tokenize

from trainers.after_training.scores import Prediction, Words, scores


def entry(prediction: str, reference: str, loss: float = 0.0, tokens: int = 0, ended: bool = True) -> Prediction:
    return Prediction(index=0, prompt="", prediction=prediction, reference=reference, ended=ended, loss=loss, tokens=tokens)


def test_rouge_is_the_mean_of_f1_over_the_samples() -> None:
    found = scores([entry("the cat sat", "the cat sat down"), entry("x", "y")])
    # first: precision 3/3, recall 3/4, F1 6/7; of bigrams 2/2 and 2/3, F1 4/5; second: 0
    assert found["rouge1"] == pytest.approx(100 * (6 / 7) / 2)
    assert found["rouge2"] == pytest.approx(100 * (4 / 5) / 2)
    assert found["rougeL"] == pytest.approx(100 * (6 / 7) / 2)


def test_bleu_is_of_the_whole_corpus() -> None:
    found = scores([entry("a b c d e", "a b c d e"), entry("f g h i", "f g h i j")])
    # all n-grams are right; 9 words against 10 give the brevity penalty exp(1 - 10/9)
    assert found["bleu"] == pytest.approx(100 * math.exp(1 - 10 / 9))
    assert "tok:13a" in str(found["bleu_signature"])


def test_loss_is_a_mean_over_tokens_not_over_samples() -> None:
    found = scores([entry("a", "a", loss=6.0, tokens=2), entry("b", "b", loss=2.0, tokens=6)])
    assert found["loss"] == 1.0
    assert found["perplexity"] == pytest.approx(math.e)


def test_samples_without_reference_are_counted_and_not_scored() -> None:
    found = scores([entry("a", ""), entry("b", "b", ended=False)])
    assert (found["samples"], found["with_reference"], found["cut"], found["exact"]) == (2, 1, 1, 100.0)
    assert "rouge1" not in scores([entry("a", "")])


@pytest.mark.parametrize("text", ["The cat, 2 dogs; and_one more!", "it's 3.5 % of A-B", ""])
def test_words_of_ascii_text_are_those_of_rouge_score(text: str) -> None:
    assert Words().tokenize(text) == tokenize(text, stemmer=None)


def test_words_of_other_scripts_count_too() -> None:
    assert Words().tokenize("Привет, мир") == ["привет", "мир"]
    assert Words().tokenize("你好 world") == ["你", "好", "world"]
    assert scores([entry("你好吗", "你好")])["rouge1"] == pytest.approx(80)  # precision 2/3, recall 1


@pytest.mark.parametrize(
    ("text", "tokenizer"),
    [
        ("The cat sat down on the mat.", "13a"),
        ("Die Stadt heißt 北京 und liegt in China, im Norden.", "13a"),  # a name in another script
        ("北京是中国的首都。", "zh"),
        ("用 Python 写一个函数，返回列表的长度。", "zh"),
        ("東京は日本の首都です。", "char"),
        ("กรุงเทพเป็นเมืองหลวงของประเทศไทย", "char"),
        ("서울은 대한민국의 수도이다.", "13a"),  # with spaces
        ("Привет, как дела сегодня?", "13a"),
        ("123 + 456", "13a"),
    ],
)
def test_the_same_text_scores_full_marks_in_every_script_and_the_words_are_named(text: str, tokenizer: str) -> None:
    found = scores([entry(text, text)])
    assert f"tok:{tokenizer}|" in str(found["bleu_signature"])
    measured = (found["bleu"], found["chrf"], found["rouge1"], found["rougeL"], found["exact"])
    assert measured == pytest.approx((None, 100, 100, 100, 100) if text == "123 + 456" else (100,) * 5)


def test_bleu_of_chinese_counts_characters() -> None:
    # 9 characters of which the 9th differs (and no point): n-grams 8/9, 7/8, 6/7, 5/6 are right, so the product is 5/9
    found = scores([entry("北京是中国的首都吗", "北京是中国的首都呢")])
    assert found["bleu"] == pytest.approx(100 * (5 / 9) ** 0.25)


def test_references_too_short_for_bleu_are_told_and_not_scored_zero() -> None:
    found = scores([entry("Blue.", "Blue."), entry("White", "White")])
    assert found["bleu"] is None
    assert "no reference has as many" in str(found["bleu_note"])
    assert found["chrf"] == pytest.approx(100)
    assert scores([entry("Blue.", "Blue."), entry("x", "White as milk.")])["bleu"] is not None


def test_a_vowel_sign_is_a_part_of_its_word() -> None:
    assert Words().tokenize("हिन्दी में") == ["हिन्दी", "में"]
    assert scores([entry("की", "का")])["rouge1"] == 0
    assert Words().tokenize("ที่นี่") == ["ที่", "นี่"]
    assert "every script" in str(scores([entry("a", "a")])["rouge_words"])
