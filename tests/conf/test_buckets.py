"""Buckets are as large as what is reduced, up to a limit."""

from conf.buckets import zero_bucket


def test_a_bucket_is_never_larger_than_what_is_reduced_nor_than_its_limit():
    assert [zero_bucket(count) for count in (1, 400_000, 2**26, 10**9)] == [1, 400_000, 2**26, 2**26]


def test_an_engine_without_anything_to_reduce_gets_a_bucket_that_it_accepts():
    assert zero_bucket(0) == 1
