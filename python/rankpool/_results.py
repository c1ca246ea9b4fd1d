"""What the result of a call means: a value or an exception."""

from . import _frames as frames
from ._payload import loads, rebuild


def outcome_of(call, header, body):
    """`(is_value, value or exception)` of a result."""
    status = header[2]
    try:
        if status == frames.OK:
            return True, loads(body, header[1])
        if status == frames.EXCEPTION:
            return False, rebuild(loads(body, header[1]))
        if status == frames.INITIALIZER_FAILED:
            from ._errors import InitializerFailed

            cause = rebuild(loads(body, header[1]))
            error = InitializerFailed(f"the initializer of the executor has failed: {type(cause).__name__}: {cause}")
            error.__cause__ = cause
            call.core.broken = error
            return False, error
    except BaseException as error:
        from ._errors import PayloadError

        failure = PayloadError(f"the result of a job cannot be loaded: {type(error).__name__}: {error}")
        failure.__cause__ = error
        return False, failure
    from ._errors import of_text

    return False, of_text(status, bytes(body).decode(errors="replace"))
