import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from synth2_lightning.io.signals import keep_sigterm


def test_it_is_given_back_after_an_error_too() -> None:
    def fail() -> None:
        with keep_sigterm():
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            raise RuntimeError

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError):
        fail()
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_leave_it() -> None:
    def run() -> bool:
        with keep_sigterm():
            return True

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run).result()
