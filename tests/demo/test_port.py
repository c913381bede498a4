import socket

import pytest

from synth2_lightning.demo.port import HOST, check_free_port


def test_a_port_that_somebody_listens_on_is_refused_and_free_again_afterwards() -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port: int = other.getsockname()[1]
        with pytest.raises(OSError, match=rf"\b{port}\b.*127\.0\.0\.1.*--port"):
            check_free_port(port)
    check_free_port(port)


def test_a_number_that_is_no_port_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\b0\b.*\b65535\b"):
        check_free_port(0)
