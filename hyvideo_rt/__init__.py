"""The compiled serving runtime for HunyuanVideo. Import from the module that defines a thing."""

__version__ = "0.1.0"
