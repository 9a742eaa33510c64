"""Taking steering edits out of the running model: written for the stack that serves it, read back, and compared with the hooked model."""

from .comparing import Trace, largest_difference, traced
from .exporting import TOLERANCE, Draft, Exported, export
from .refusing import CannotExport
from .targets import TARGETS, Target

__all__ = ["TARGETS", "TOLERANCE", "CannotExport", "Draft", "Exported", "Target", "Trace", "export", "largest_difference", "traced"]
