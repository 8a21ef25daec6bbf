"""A campaign dispatcher: screened, paced, retried, and never twice by a fault."""

__version__ = "0.1.0"
__all__ = ["__version__"]
