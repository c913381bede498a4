"""Sampling by random priorities that depend only on row number and seed.

A sample consists of the rows with the smallest priorities, so it does not depend on how the rows are distributed over
processes.
"""

from math import sqrt

import numpy as np
import numpy.typing as npt

Priorities = npt.NDArray[np.uint64]
_LARGEST = 2**64 - 1
_NUMBERS_A_STEP = 4  # of Philox


def compute_priorities(first_row: int, num_rows: int, seed: int) -> Priorities:
    """Return the priorities of consecutive rows, in [0, 2^64 - 1], from the counter-based generator Philox (2011).

    Args:
        first_row: Number of the first row.
        num_rows: Number of rows.
        seed: Non-negative seed.

    Example:
        >>> compute_priorities(5, 2, seed=1).tolist() == compute_priorities(0, 7, seed=1).tolist()[5:]
        True
    """
    generator = np.random.Philox(key=seed)
    generator.advance(first_row // _NUMBERS_A_STEP)
    num_before = first_row % _NUMBERS_A_STEP
    return generator.random_raw(num_before + num_rows)[num_before:]


def bound_priorities(num: int, among: int, factor: int = 1) -> int:
    """Return a bound that at least ``num`` of ``among`` priorities do not exceed, except with probability 1e-9.

    Example:
        >>> bound_priorities(10, among=20) == bound_priorities(20, among=20) == 2**64 - 1
        True
    """
    expected = (num + 6 * sqrt(num) + 16) * factor
    return _LARGEST if expected >= among else int(expected / among * _LARGEST)
