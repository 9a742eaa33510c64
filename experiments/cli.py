"""Find unsafe intent inside the thought of a multimodal reasoning model, and steer its refusals back. `COMMAND --help` has examples."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping

import tyro

from .commands.auditing import calibrate, check_benchmarks, collapse, generate, judge, list_benchmarks
from .commands.bench import bench_capture, bench_probe, bench_steer, bench_view
from .commands.deciding import decide
from .commands.organism import build, card, explain, measure
from .commands.probing import probe
from .commands.reading import capture, show, verify
from .commands.seeing import report, view
from .commands.steering import export, steer, sweep, vector
from .commands.study import demo, doctor


class Once(logging.Filter):
    """Lets a message through the first time: what holds for every probe of a sweep is told once."""

    def __init__(self) -> None:
        super().__init__()
        self.told: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        new = (text := record.getMessage()) not in self.told
        self.told.add(text)
        return new


COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "collapse": collapse,
    "generate": generate,
    "capture": capture,
    "probe": probe,
    "decide": decide,
    "vector": vector,
    "steer": steer,
    "sweep": sweep,
    "export": export,
    "report": report,
    "view": view,
    "doctor": doctor,
}
NESTED: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "organism": (
        "The small trio: train it from nothing, measure it.",
        {"build": build, "card": card, "measure": measure, "explain": explain},
    ),
    "judge": ("Judges: verdicts on what was answered, and how good a judge is.", {"run": judge, "calibrate": calibrate}),
    "benchmarks": (
        "Published prompts: which there are, and whether yours are whole.",
        {"list": list_benchmarks, "check": check_benchmarks},
    ),
    "store": ("Activation stores: check one, look into one.", {"verify": verify, "show": show}),
    "bench": ("How fast it is here.", {"capture": bench_capture, "probe": bench_probe, "steer": bench_steer, "view": bench_view}),
}


def group(name: str, about: str, commands: Mapping[str, Callable[..., None]]) -> Callable[[], None]:
    """A command that stands for several: alone it is an error that names them."""
    choice = f"thoughtlens {name} {' | '.join(commands)}"

    def command() -> None:
        raise ValueError(f"say what to do: {choice}")

    command.__doc__ = f"{about} {choice}"
    return command


def main() -> None:
    """Entry point. Errors a user can mend are one sentence on standard error; Ctrl-C keeps what is finished."""
    told = logging.StreamHandler()  # of our own: the filter must not stay on a handler of somebody who calls main()
    told.addFilter(Once())
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[told])
    first, rest = sys.argv[1:2], sys.argv[2:]
    if first and first[0] in NESTED and rest:
        (about, commands), prog, args = NESTED[first[0]], f"thoughtlens {first[0]}", rest
    else:
        about, prog, args = str(__doc__), "thoughtlens", sys.argv[1:]
        commands = {**COMMANDS, **{name: group(name, *entry) for name, entry in NESTED.items()}}
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog=prog, description=about, args=args)
    except KeyboardInterrupt:
        print("interrupted; finished stages are kept, the same command goes on from there", file=sys.stderr)
        raise SystemExit(130) from None
    except (ValueError, OSError, ImportError, MemoryError) as error:
        print(f"thoughtlens: {' '.join(str(error).split()) or 'out of memory'}", file=sys.stderr)
        raise SystemExit(2) from error
    except RuntimeError as error:
        from .prompting import out_of_memory  # not above: the command line starts without torch

        if not out_of_memory(error):
            raise
        print(f"thoughtlens: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
