"""Chance that does not depend on who asks: every row of a caption set has a number of its own.

A sample is the rows with the smallest numbers, so machines that see some of the rows each draw the same one as a
process that sees all of them.
"""

from math import sqrt

import numpy as np
import numpy.typing as npt

Priorities = npt.NDArray[np.uint64]
_LARGEST = 2**64 - 1
_NUMBERS_A_STEP = 4  # that Philox draws


def draw_priorities(first_row: int, num_rows: int, seed: int) -> Priorities:
    """Give the numbers of consecutive rows, from 0 to 2^64 - 1: those of a counter-based generator (Philox, 2011).

    Args:
        first_row: The first of the rows.
        num_rows: How many rows.
        seed: Other seeds give other numbers; 0 or more.

    Example:
        >>> draw_priorities(5, 2, seed=1).tolist() == draw_priorities(0, 7, seed=1).tolist()[5:]
        True
    """
    generator = np.random.Philox(key=seed)
    generator.advance(first_row // _NUMBERS_A_STEP)
    num_before = first_row % _NUMBERS_A_STEP
    return generator.random_raw(num_before + num_rows)[num_before:]


def bound_priorities(num: int, among: int, factor: int = 1) -> int:
    """Give a number that at least ``num`` of ``among`` rows stay below in all but one of a billion draws.

    Example:
        >>> bound_priorities(10, among=20) == bound_priorities(20, among=20) == 2**64 - 1
        True
    """
    expected = (num + 6 * sqrt(num) + 16) * factor
    return _LARGEST if expected >= among else int(expected / among * _LARGEST)
