"""Every error this project raises on purpose.

    HyVideoError
    ├── InvalidRequest      a prompt, size, frame count, step count or flag that cannot be served
    ├── WeightsError        a checkpoint that is missing, malformed, unsafe or of another model
    ├── TokenizerMismatch   a tokenizer that does not split text as the model was trained on
    ├── DoesNotFit          a memory plan that exceeds the device
    ├── NumericalError      NaN, infinity or a flat picture where a video should be
    ├── EngineError         anything about a compiled engine
    │   ├── EngineMissing   none is built for what was asked
    │   ├── EngineMismatch  one is there, but for another device, version, model or precision
    │   ├── EngineCorrupt   altered, cut off or unsigned; it has been moved to quarantine
    │   └── BuildFailed     no artefact: the build, its parity or its layer gate failed
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


class EngineError(HyVideoError):
    pass


class EngineMissing(EngineError):
    pass


class EngineMismatch(EngineError):
    pass


class EngineCorrupt(EngineError):
    pass


class BuildFailed(EngineError):
    pass


class OutputError(HyVideoError, OSError):
    pass


class Cancelled(HyVideoError):
    pass
