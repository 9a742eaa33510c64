"""A running model: what its tokens are, where its layers are, reading and changing its hidden states."""

from .artifact import load_artifact, save_artifact
from .capture import capture
from .dialects import CHECKPOINTS, DIALECTS, Split, Stream, bind, choose, pieces, split
from .edits import Edit
from .encode import Batch, MissingPicture, PromptError, encode, kinds_of
from .families import FAMILIES, Block, Family, family_of
from .frame import Frame, token_kinds
from .gates import Always, AtSteps, FirstTokens, InSpans, ProbeGate
from .generate import forced, generate
from .kinds import KINDS, Kind
from .markers import Dialect, Markers, Role
from .model import LensModel, load, wrap
from .modes import MODES, thought_modes
from .reading import reading
from .records import Prompt, Transcript, read_prompts, read_transcripts, write_prompts, write_transcripts
from .select import POOLS, Pool, Select
from .sites import NAMES, Site, expand, parse_site
from .spans import SPANS, Span, is_span, parse_span, resolve, streamable
from .steer import monitor, steer
from .steering import Steering
from .store import Store, open_store, verify_store
from .streaming import Readings, stream
from .triggers import Trigger
from .trio import aligned, capture_trio
from .vector import Vector
from .watching import Held, Seen

__all__ = [
    "CHECKPOINTS",
    "DIALECTS",
    "FAMILIES",
    "KINDS",
    "MODES",
    "NAMES",
    "POOLS",
    "SPANS",
    "Always",
    "AtSteps",
    "Batch",
    "Block",
    "Dialect",
    "Edit",
    "Family",
    "FirstTokens",
    "Frame",
    "Held",
    "InSpans",
    "Kind",
    "LensModel",
    "Markers",
    "MissingPicture",
    "Pool",
    "ProbeGate",
    "Prompt",
    "PromptError",
    "Readings",
    "Role",
    "Seen",
    "Select",
    "Site",
    "Span",
    "Split",
    "Steering",
    "Store",
    "Stream",
    "Transcript",
    "Trigger",
    "Vector",
    "aligned",
    "bind",
    "capture",
    "capture_trio",
    "choose",
    "encode",
    "expand",
    "family_of",
    "forced",
    "generate",
    "is_span",
    "kinds_of",
    "load",
    "load_artifact",
    "monitor",
    "open_store",
    "parse_site",
    "parse_span",
    "pieces",
    "read_prompts",
    "read_transcripts",
    "reading",
    "resolve",
    "save_artifact",
    "split",
    "steer",
    "stream",
    "streamable",
    "thought_modes",
    "token_kinds",
    "verify_store",
    "wrap",
    "write_prompts",
    "write_transcripts",
]
