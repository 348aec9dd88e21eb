"""Which texts a batch holds: rows with padding, packed rows, pairs, and what has none."""

import torch

from trainers.measures.exhausted import batch_sentence, samples_of


class Letters:
    """Token n is the n-th letter."""

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(96 + number) for number in ids)


def test_padding_is_no_part_of_a_text() -> None:
    ids, mask = torch.tensor([[1, 2, 3], [4, 0, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    assert samples_of({"input_ids": ids, "attention_mask": mask, "labels": ids}) == [[1, 2, 3], [4]]


def test_a_packed_row_is_cut_where_positions_begin_again() -> None:
    assert samples_of({"input_ids": torch.tensor([[1, 2, 3, 4, 5]]), "position_ids": torch.tensor([[0, 1, 0, 1, 2]])}) == [[1, 2], [3, 4, 5]]


def test_both_answers_of_a_pair_count() -> None:
    found = samples_of({"chosen_input_ids": torch.tensor([[1, 2]]), "rejected_input_ids": torch.tensor([[3]]), "margin": torch.tensor([1.0])})
    assert found == [[1, 2], [3]]


def test_what_has_no_ids_has_no_texts() -> None:
    assert samples_of([{"prompt_ids": [1]}]) == samples_of({"pixels": torch.zeros(1, 3)}) == []
    assert batch_sentence(None, Letters()) == ""


def test_the_longest_texts_are_listed_first_and_the_longest_is_shown() -> None:
    rows = {f"{number}_input_ids": torch.full((1, number), 20) for number in range(10, 20)}
    said = batch_sentence(rows, Letters())
    listed = "19, 18, 17, 16, 15, 14, 13, 12 tokens and 2 shorter ones"
    assert said == f'The micro-batch had 10 texts of {listed}; the longest begins with "{"t" * 19}". '
