"""What CUDA's kernel needs beside its input and its answer where it sums columns, as for the gradient of a bias, a norm's weight or DoRA's magnitude.

ATen/native/cuda/Reduce.cuh, setReduceConfig and ReduceConfig::global_memory_size: where there are many rows for every thread, several blocks share a
column, and each of their threads writes its part: about 132 MiB on an H200, and more from 32,000 tokens on.
"""

THREADS, WARP, VECTOR = 512, 32, 4  # MAX_NUM_THREADS of a block; warp size; columns that a thread reads at once
FEWEST_VALUES, MOST_VALUES = 16, 256  # of a thread: min_values_per_thread, max_values_per_thread
RESIDENT_THREADS = 132 * 2048  # threads of all processors of an H100 or H200; an A100 has 108 x 2048


def column_sum_bytes(rows: int, columns: int) -> int:
    """Of the buffer for the sums in fp32 of `columns` contiguous columns of `rows` rows."""
    vector = VECTOR if columns % VECTOR == 0 else 1
    threads = THREADS // vector
    width = min(power_of_two(columns // vector, threads), WARP)
    height = min(power_of_two(rows, threads), threads // width)
    width = min(power_of_two(columns // vector, threads), threads // height)
    if rows < min(height * FEWEST_VALUES, MOST_VALUES):
        return 0
    values = -(-rows // height)
    grid, wanted = -(-(columns // vector) // width), RESIDENT_THREADS // (width * height)
    if values < MOST_VALUES or grid > wanted:
        return 0
    blocks = max(min(-(-wanted // grid), -(-values // FEWEST_VALUES)), -(-values // MOST_VALUES))
    return 4 * columns * blocks * width * vector if blocks > 1 else 0


def power_of_two(size: int, most: int) -> int:
    """The largest that is not more than either."""
    return 1 << (min(size, most).bit_length() - 1)
