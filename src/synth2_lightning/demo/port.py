"""Where the page is served: on loopback, which no other machine can reach."""

import errno
import socket

HOST = "127.0.0.1"


def refuse_taken_port(port: int) -> None:
    """Refuse a port that cannot be listened on, before a model is loaded for it.

    Raises:
        OSError: If somebody listens there already, or nobody may.
        ValueError: If there is no such port.

    Example:
        >>> refuse_taken_port(70000)
        Traceback (most recent call last):
        ValueError: The port is 70000; expected 1 to 65535.
    """
    if not 1 <= port <= 65535:
        raise ValueError(f"The port is {port}; expected 1 to 65535.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was closed just now is free
        try:
            probe.bind((HOST, port))
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be listened on ({error.strerror})"
            raise OSError(
                f"Port {port} of {HOST} {reason}; expected a free one above 1023. Name another with --port, or end "
                "what listens there (maybe another `synth2 demo`)."
            ) from error
