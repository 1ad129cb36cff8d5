"""One connection of uvicorn's, mended where it meets requests that stop making sense half-way."""

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """What is sent after the head may be nonsense, a chunk without a size for example.

    uvicorn answers 400 then and closes. The application has begun on the request, and its answer would be a
    second one: an error in the log that every client could write there. To the application, the client has
    hung up.
    """

    def send_400_response(self, msg: str) -> None:
        begun = self.cycle if self.cycle and not self.cycle.response_complete else None
        if begun:
            begun.disconnected = True
            begun.message_event.set()
        if begun and begun.response_started:
            self.transport.close()  # half an answer cannot become another
        else:
            super().send_400_response(msg)
