"""Test settings: one thread, no hub, and `from tiny import …` for the tiny models (loaded only by tests that want them)."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("short", max_examples=60, deadline=None)
settings.load_profile("short")


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No test may leave a hook or a steering context on the shared tiny models; transformers' own recorders of hidden states stay."""
    yield
    for lens in sys.modules["tiny"].LOADED if "tiny" in sys.modules else ():
        assert lens.steering is None, "a test left steering active on the shared tiny model"
        for name, module in lens.model.named_modules():
            hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
            left = [hook for hook in hooks if not str(getattr(hook, "__module__", "")).startswith("transformers.")]
            assert not left, f"a test left a hook on {name!r} of the shared tiny model"
