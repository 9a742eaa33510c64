"""How fast it is here."""

from __future__ import annotations

from pathlib import Path

from .common import device_of


def bench_capture(*, device: str = "auto", out: Path | None = None, into: Path = Path("runs/bench")) -> None:
    """Time capture beside plain forwards, other engines and raw writes, results compared before anything is timed.

    Example: thoughtlens bench capture --device cpu --out docs/speed.md

    Args:
        device: auto, cpu, cuda, cuda:1, ...
        out: Write the tables there as well, as Markdown.
        into: Folder on the disk that is timed; left empty.
    """
    from ..speed import bench_capture as bench

    bench(device_of(device), out=out, into=into)


def bench_probe(*, device: str = "auto", out: Path | None = None) -> None:
    """Time batched fits of probes beside a loop over scikit-learn, one thread each, results compared before anything is timed.

    Example: thoughtlens bench probe --device cpu --out docs/speed.md

    Args:
        device: auto, cpu, cuda, cuda:1, ...
        out: Write the tables there as well, as Markdown.
    """
    from ..probe_speed import bench_probe as bench

    bench(device_of(device), out=out)


def bench_steer(*, device: str = "auto", out: Path | None = None) -> None:
    """Time steered generation beside plain generation and other engines, tokens and effects compared before anything is timed.

    Example: thoughtlens bench steer --device cpu --out docs/speed.md

    Args:
        device: auto, cpu, cuda, cuda:1, ...
        out: Write the tables there as well, as Markdown.
    """
    from ..steer_speed import bench_steer as bench

    bench(device_of(device), out=out)


def bench_view(*, run: Path | None = None, opens: int = 5, loads: int = 10, times: int = 36, out: Path | None = None) -> None:
    """Time how fast a large run opens in the app and answers a click in a real browser, and what its rows cost beside pandas.

    Example: thoughtlens bench view --out docs/speed.md

    Args:
        run: A run folder of your own (default: one with 20,000 prompts, 32 layers and 2 million token scores is made up).
        opens: How often the app is started.
        loads: How often the page is loaded.
        times: How often each click is done.
        out: Write the tables there as well, as Markdown.
    """
    from ..view_speed import bench_view as bench

    bench(run, opens=opens, loads=loads, times=times, out=out)
