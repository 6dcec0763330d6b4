"""The child process that restores, for a program that must not wait: requests to be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from nexusinr.inference import client
from nexusinr.inference.protocol import Event

Listener = Callable[[Event], None]


class Worker:
    """One child process, started when it is first needed and again after a crash."""

    def __init__(self) -> None:
        self._client: client.Client | None = None
        self._calls: dict[client.Call, str] = {}

    async def request(self, op: str, listener: Listener | None = None, **options: Any) -> Event:
        """The result of one operation of `protocol`; cancelling the awaiting task cancels it.

        Args:
            op: the operation.
            listener: called with its progress, in the loop that awaits.
            options: those of the operation.

        Raises InputError, OutOfMemory, Cancelled, or client.Crashed.
        """
        loop = asyncio.get_running_loop()

        def tell(event: Event) -> None:
            if listener is not None:
                loop.call_soon_threadsafe(listener, event)

        call = self._started().request(op, on_progress=tell, **options)
        self._calls[call] = op
        try:
            return await asyncio.wrap_future(call.done)
        except asyncio.CancelledError:
            call.cancel()
            raise
        finally:
            del self._calls[call]

    def cancel(self, op: str) -> None:
        """Stops the requests of an operation; who awaits them gets Cancelled."""
        for call, name in self._calls.items():
            if name == op:
                call.cancel()

    def close(self) -> None:
        """Ends the process."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _started(self) -> client.Client:
        if self._client is None or self._client.process.poll() is not None:
            self._client = client.start()
        return self._client
