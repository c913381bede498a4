import socket

import pytest

from synth2_lightning.demo.port import HOST, refuse_taken_port


def test_a_port_that_somebody_listens_on_is_refused_and_free_again_afterwards() -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port: int = other.getsockname()[1]
        with pytest.raises(OSError, match=f"Port {port} of 127.0.0.1 is in use; expected a free one .* with --port"):
            refuse_taken_port(port)
    refuse_taken_port(port)


def test_a_number_that_is_no_port_is_refused() -> None:
    with pytest.raises(ValueError, match="The port is 0; expected 1 to 65535"):
        refuse_taken_port(0)
