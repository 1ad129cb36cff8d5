"""Libraries of some backends only: found when they are needed, and missed with the command that installs."""

import importlib
import importlib.metadata
from types import ModuleType

from hyvideo_rt.errors import EngineError

EXTRAS = {
    "openvino": "openvino",
    "tensorrt_rtx": "tensorrt",
    "tensorrt": "tensorrt-classic",
    "onnxruntime": "tensorrt",
}
DISTRIBUTIONS = {"tensorrt_rtx": "tensorrt_rtx_cu13"}


def require(package: str) -> ModuleType:
    """The imported package. Raises EngineError."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise EngineError(
            f"this backend needs the package {package}, which cannot be imported: {error}\n"
            f"  pip install 'hyvideo-rt[{EXTRAS[package]}]'"
        ) from error


def installed_version(package: str) -> str:
    """Without importing it; "none" if it is not installed, so that no engine matches."""
    try:
        return importlib.metadata.version(DISTRIBUTIONS.get(package, package))
    except importlib.metadata.PackageNotFoundError:
        return "none"
