"""Address of the demo server: loopback, which other machines cannot reach."""

import errno
import socket

HOST = "127.0.0.1"


def check_free_port(port: int) -> None:
    """Refuse a port that the server cannot bind, before the model is loaded.

    Raises:
        OSError: If the port is in use or not permitted.
        ValueError: If the number is out of range.

    Example:
        >>> check_free_port(70000)
        Traceback (most recent call last):
        ValueError: The port is 70000; expected 1 to 65535.
    """
    if not 1 <= port <= 65535:
        raise ValueError(f"The port is {port}; expected 1 to 65535.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a recently closed port is free
        try:
            probe.bind((HOST, port))
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound ({error.strerror})"
            raise OSError(
                f"Port {port} of {HOST} {reason}; expected a free one above 1023. Choose another with --port, or stop "
                "the process that uses it, such as another `synth2 demo`."
            ) from error
