"""Errors in OpenAI's form, each with its status."""

from typing import Any

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class Refused(Exception):
    """A request that is answered with an error.

    status   of HTTP
    message  what is wrong, by which rule, and what to do
    param    the field, as messages.0.content
    code     a word for programs
    retry    seconds after which to try again; 0: not said
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry: int = 0,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry = retry

    def body(self) -> dict[str, Any]:
        kind = _TYPES.get(self.status, "invalid_request_error")
        param = None if self.param is None else _sayable(self.param)
        told = {"message": _sayable(self.message), "type": kind, "param": param, "code": self.code}
        return {"error": told}


def _sayable(text: str) -> str:
    """A text that UTF-8 can say: a request's own words may hold halves of surrogate pairs."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
