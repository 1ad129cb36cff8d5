"""Every error this project raises on purpose.

    HyVideoError
    ├── InvalidRequest      a prompt, size, frame count, step count or flag that cannot be served
    ├── WeightsError        a checkpoint that is missing, malformed, unsafe or of another model
    ├── TokenizerMismatch   a tokenizer that does not split text as the model was trained on
    ├── DoesNotFit          a memory plan that exceeds the device
    ├── NumericalError      NaN, infinity or a flat picture where a video should be
    ├── OutputError         a result that could not be written; the target is as it was before
    └── Cancelled           the caller's progress callback asked to stop

Each message says what was got, what was expected and, on an indented second line, what to do.
"""


class HyVideoError(Exception):
    """The root: `except HyVideoError` catches whatever this project raises on purpose."""


class InvalidRequest(HyVideoError, ValueError):
    pass


class WeightsError(HyVideoError):
    pass


class TokenizerMismatch(HyVideoError):
    pass


class DoesNotFit(HyVideoError):
    pass


class NumericalError(HyVideoError):
    pass


class OutputError(HyVideoError, OSError):
    pass


class Cancelled(HyVideoError):
    pass
