"""A connection without a request under way is held for so long and no longer.

The server underneath counts open connections, and closes an idle one only after it has answered something on it: one that never
sends a byte, or stops within a request's head, would be held for ever, and enough of them would keep everyone else out.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_AT_WORK = (h11.SEND_RESPONSE, h11.SEND_BODY)  # states of ours: a request's head has come, its answer has not ended


def protocol(seconds: float) -> type[H11Protocol]:
    """HTTP/1.1 where a request's head has `seconds` to arrive whole, and so has what is left of a body after its answer."""

    class Patient(H11Protocol):
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._rest()
            super().connection_lost(exc)

        def _watch(self) -> None:
            if self.conn.our_state in _AT_WORK:
                self._rest()
            elif self._late is None:  # and not for every byte anew
                self._late = self.loop.call_later(seconds, self.transport.close)

        def _rest(self) -> None:
            if self._late is not None:
                self._late.cancel()
            self._late = None

    return Patient
