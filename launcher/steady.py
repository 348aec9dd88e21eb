"""Standard output and error that cannot end a run: what reads them may go away, their disk may be full, their encoding may lack a character."""

import errno
import os
from typing import Any, TextIO

from conf.secrets import masked


class Steady:
    """A text stream whose writes never raise. What cannot be written is dropped, and `lost` says why."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.lost: OSError | None = None
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal shows `\xb7` for `·`

    def write(self, text: str) -> int:
        try:
            self.stream.write(masked(text))
            return len(text)
        except OSError as error:
            self.drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self.drop(error)

    def drop(self, error: OSError) -> None:
        """From now on nobody reads; what is still buffered must not fail at the end of the process either."""
        self.lost = self.lost or error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)

    @property
    def failed(self) -> OSError | None:
        """Why output was lost; None where nothing was, and where its reader left by itself, as `head` does."""
        return None if self.lost is None or self.lost.errno == errno.EPIPE else self.lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
