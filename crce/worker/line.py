"""Messages over a local socket, each of them sent or received before a moment that is fixed from the beginning.

What `multiprocessing` offers for this waits without end once a message has begun.
"""

import socket
import time

_HEADER = 8  # bytes that say how long the message is


class Line:
    """One end of a connection. Its methods are those that `multiprocessing.connection`'s challenges use."""

    def __init__(self, end: socket.socket, seconds: float):
        """seconds: from now on, for everything until `extend`."""
        self._socket = end
        self.extend(seconds)

    def extend(self, seconds: float) -> None:
        """Grants this time from now on instead."""
        self._until = time.monotonic() + seconds

    def send_bytes(self, data: bytes) -> None:
        """Raises OSError; TimeoutError where the time is over."""
        self._prepare()
        self._socket.sendall(len(data).to_bytes(_HEADER, "big") + data)

    def recv_bytes(self, most: int) -> bytes:
        """Raises OSError, TimeoutError, and ValueError for a message of more than `most` bytes."""
        size = int.from_bytes(self._read(_HEADER), "big")
        if size > most:
            raise ValueError(f"a message of {size} bytes is too long")
        return self._read(size)

    def hung_up(self) -> bool:
        """Whether the other end has closed the connection."""
        self._socket.settimeout(0)
        try:
            return self._socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        self._socket.close()

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._prepare()
            piece = self._socket.recv(min(size - len(data), 1 << 20))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def _prepare(self) -> None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
