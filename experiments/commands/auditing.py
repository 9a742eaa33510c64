"""The audit: answers of any models to any benchmarks, verdicts of any judge, and what they say together."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from .common import DTypeName, OnErrorName, device_of

if TYPE_CHECKING:
    from ..audit.answering import Writing
    from ..audit.endpoint import Cost
    from ..judges import Judge

AUDIT = Path("runs/audit")


def generate(
    models: tuple[str, ...],
    *,
    benchmark: tuple[str, ...] = ("organism",),
    steered: tuple[str, ...] = (),
    strength: float | None = None,
    attacks: tuple[str, ...] = (),
    split: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
    skip_missing: bool = False,
    out: Path = AUDIT,
    max_new_tokens: int | None = None,
    batch_size: int = 64,
    device: str = "auto",
    dtype: DTypeName = "auto",
    dialect: str | None = None,
    opened: bool = False,
    key_env: str | None = None,
    concurrency: int = 8,
    extra: str = "{}",
    on_error: OnErrorName = "raise",
    quiet: bool = False,
) -> None:
    """Let checkpoints, left alone or steered, and endpoints answer benchmarks; killed at any time, the same command goes on.

    Example: thoughtlens generate --models base=checkpoints/base reasoning=checkpoints/reasoning --benchmark organism --limit 20

    Example: thoughtlens generate --models served=qwen3-vl@http://127.0.0.1:8000/v1 --benchmark figstep=data/FigStep --limit 50

    Args:
        models: NAME=SOURCE each: folder of a checkpoint, hub id, or MODEL@URL of an OpenAI-compatible endpoint.
        benchmark: NAME[@VARIANT][=FOLDER] each (`thoughtlens benchmarks list`), or a .jsonl file of prompts.
        steered: NAME=VECTOR each: that model once more, steered by a vector file.
        strength: Of the vectors (default: what each recommends).
        attacks: Attacks to make of plain prompts besides: typographic, roleplay, prefix, crossed, and the controls blank and noise.
        split: Of the organism or a .jsonl file (default: test of the organism, all of a file).
        limit: At most so many prompts of each benchmark (of the organism: pairs); categories take turns.
        seed: Draw them at random with this seed, instead of taking the first ones.
        skip_missing: Leave out prompts whose picture is not there, instead of naming them all.
        out: Run folder: prompts.jsonl, transcripts/, skipped/.
        max_new_tokens: Limit on what a model writes; a thought that is cut off has no answer (default: half the context, at most 2048).
        batch_size: Prompts at a time.
        device: auto, cpu, cuda, cuda:1, ...
        dtype: auto is float32 on the CPU, the checkpoint's own elsewhere.
        dialect: How the thought is marked (default: as checkpoint and tokenizer tell; of an endpoint, think).
        opened: The chat template of an endpoint opens the thought, and the server leaves it in the text.
        key_env: Environment variable with an endpoint's key.
        concurrency: Requests to an endpoint at once.
        extra: Further fields of every request, as JSON: {"chat_template_kwargs": {"enable_thinking": false}}
        on_error: What to do about prompts a checkpoint cannot take: raise names them all; skip notes them in skipped/ and goes on.
        quiet: No progress bars.
    """
    from ..audit.answering import respondents
    from ..audit.auditing import generating
    from ..benchmarks.spec import asked_for

    who = respondents(models, steered, strength)
    missing = "skip" if skip_missing else "raise"
    prompts = asked_for(benchmark, split=split, limit=limit, seed=seed, missing=missing, attacks=attacks)
    how = _writing(max_new_tokens, batch_size, device, dtype, dialect, opened, _endpoint(key_env, concurrency, extra), on_error)
    print("\n".join([*generating(out, prompts, who, how, progress=not quiet), str(out)]))


def judge(
    run: Annotated[Path, tyro.conf.Positional],
    *,
    judge: str,
    template: Path | None = None,
    device: str = "auto",
    batch_size: int = 8,
    key_env: str | None = None,
    concurrency: int = 8,
    extra: str = "{}",
    quiet: bool = False,
) -> None:
    """Verdicts of a judge on everything in a run folder; killed at any time, the same command goes on.

    Example: thoughtlens judge run runs/audit --judge rule

    Example: thoughtlens judge run runs/audit --judge guard=meta-llama/Llama-Guard-3-8B

    Args:
        run: Run folder with prompts.jsonl and transcripts/.
        judge: rule, refusal, match, guard[:KIND]=PATH, llm=MODEL@URL, or several joined by + (an ensemble).
        template: File with the prompt of a guard model that does not bring it (WildGuard, HarmBench): {goal} and {answer} are filled in.
        device: Of a guard model: auto, cpu, cuda, ...
        batch_size: Of a guard model.
        key_env: Environment variable with an endpoint's key.
        concurrency: Requests to an endpoint at once.
        extra: Further fields of every request, as JSON: {"chat_template_kwargs": {"enable_thinking": false}}
        quiet: No progress bars.
    """
    from ..audit.auditing import judging
    from ..run import Run

    chosen, cost = _judge(judge, run, template, device, batch_size, _endpoint(key_env, concurrency, extra))
    told = judging(Run(run), chosen, progress=not quiet)
    for (model, condition), verdicts in told.verdicts.items():
        unscored = sum(v.answer.there and not v.answer.scored and v.correct is None for v in verdicts)
        print(f"{model} {condition}: {len(verdicts)} verdicts, {unscored} answers unscored")
    _spent(cost)


def calibrate(
    judge: str,
    root: Path,
    *,
    out: Path | None = None,
    template: Path | None = None,
    cache: Path | None = None,
    device: str = "auto",
    batch_size: int = 8,
    key_env: str | None = None,
    concurrency: int = 8,
    extra: str = "{}",
) -> None:
    """How good a judge is on answers that people have labelled: accuracy, precision, recall and kappa, with n and 95% intervals.

    Example: thoughtlens judge calibrate --judge refusal --root data/XSTest --out runs/audit

    Args:
        judge: As in `thoughtlens judge run`.
        root: XSTest with its model_completions/, or a .jsonl file with goal, answer, and a label: refusal (full, partial, none) or unsafe.
        out: Run folder whose audit is to show this beside its rates.
        template: As in `thoughtlens judge run`.
        cache: File that keeps what an endpoint said.
        device: Of a guard model.
        batch_size: Of a guard model.
        key_env: Environment variable with an endpoint's key.
        concurrency: Requests to an endpoint at once.
        extra: Further fields of every request, as JSON: {"chat_template_kwargs": {"enable_thinking": false}}
    """
    from ..audit.auditing import calibrating
    from ..judges import open_judge
    from ..progress import printer

    endpoint = _endpoint(key_env, concurrency, extra)
    options = {"template": template, "device": device_of(device), "batch_size": batch_size}
    printer().print(calibrating(open_judge(judge, cache=cache, endpoint=endpoint, **options), root, out))


def collapse(
    run: Annotated[Path | None, tyro.conf.Positional] = None,
    *,
    models: tuple[str, ...] = (),
    benchmark: tuple[str, ...] = ("organism",),
    steered: tuple[str, ...] = (),
    strength: float | None = None,
    attacks: tuple[str, ...] = (),
    transcripts: tuple[str, ...] = (),
    verdicts: Path | None = None,
    judge: str | None = None,
    official: tuple[str, ...] = (),
    official_llm: str | None = None,
    threshold: float = 4.0,
    reference: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
    skip_missing: bool = False,
    out: Path | None = None,
    template: Path | None = None,
    max_new_tokens: int | None = None,
    batch_size: int = 64,
    device: str = "auto",
    dtype: DTypeName = "auto",
    dialect: str | None = None,
    opened: bool = False,
    key_env: str | None = None,
    concurrency: int = 8,
    extra: str = "{}",
    judge_key_env: str | None = None,
    judge_extra: str = "{}",
    on_error: OnErrorName = "raise",
    quiet: bool = False,
) -> None:
    """The audit in one command: answers, verdicts, rates with intervals, the reasoning tax and its blind spots; killed, it goes on.

    It tells what is in a run folder; or lets models answer first; or takes answers or verdicts that were made elsewhere.

    Example: thoughtlens collapse --models base=checkpoints/base reasoning=checkpoints/reasoning safe=checkpoints/safe --benchmark organism

    Example: thoughtlens collapse --transcripts base=base.jsonl tuned=tuned.jsonl --benchmark figstep=data/FigStep --judge refusal

    Example: thoughtlens collapse --verdicts verdicts.jsonl

    Args:
        run: Run folder to be told (default: that of --out, once models have answered).
        models: NAME=SOURCE each, as in `thoughtlens generate`.
        benchmark: NAME[@VARIANT][=FOLDER] each, or a .jsonl file of prompts.
        steered: NAME=VECTOR each: that model once more, steered.
        strength: Of the vectors (default: what each recommends).
        attacks: Attacks to make of plain prompts besides: typographic, roleplay, prefix, crossed, and the controls blank and noise.
        transcripts: NAME=FILE each: answers written elsewhere, JSON lines with prompt_id and text.
        verdicts: File of verdicts alone, JSON lines or CSV: model, condition, benchmark, category, prompt_id, group, thought, answer, full.
        judge: As in `thoughtlens judge run` (default: rule for the organism; others must be named).
        official: Papers' own scoring rules, faults included, told beside ours: safemlrm_pipeline, advbench_prefixes, xstest_strings,
            mossbench_refusal, pope, keywords; NAME=FILE of those that ask a language model in the paper's words, which you hand over as a
            text, or a folder of several: strongreject, mm_safetybench, siuo, mmvet, mathvista; NAME=MARKS.jsonl of marks made elsewhere:
            strongreject, hades.
        official_llm: MODEL@URL that is asked the papers' questions (default: the language model that judges).
        threshold: Rating from which an answer is unsafe; 3, 4 and 5 are told in any case.
        reference: The model that taxes are told against (default: base, else the first).
        split: Of the organism or a .jsonl file (default: test of the organism, all of a file).
        limit: At most so many prompts of each benchmark (of the organism: pairs); categories take turns.
        seed: Draw them at random with this seed, instead of taking the first ones.
        skip_missing: Leave out prompts whose picture is not there, instead of naming them all.
        out: Run folder (default: runs/audit).
        template: As in `thoughtlens judge run`.
        max_new_tokens: Limit on what a model writes (default: half the context, at most 2048).
        batch_size: Prompts at a time.
        device: auto, cpu, cuda, cuda:1, ...
        dtype: auto is float32 on the CPU, the checkpoint's own elsewhere.
        dialect: How the thought is marked (default: as checkpoint and tokenizer tell; of texts and endpoints, think).
        opened: The chat template of an endpoint opens the thought, and the server leaves it in the text.
        key_env: Environment variable with an endpoint's key.
        concurrency: Requests to an endpoint at once.
        extra: Further fields of every request, as JSON: {"chat_template_kwargs": {"enable_thinking": false}}
        judge_key_env: Environment variable with the key of the endpoint of the judge and of the papers' questions; a model's key is never
            sent there.
        judge_extra: Further fields of every request to the judge, and of every question of a paper, as JSON.
        on_error: What to do about prompts a checkpoint cannot take: raise names them all; skip notes them in skipped/ and goes on.
        quiet: No progress bars.
    """
    from ..audit.answering import named, respondents
    from ..audit.auditing import Scoring, auditing, auditing_verdicts, default_judge, generating, importing, settled_prompts
    from ..audit.endpoint import Cost
    from ..audit.official import rule_of
    from ..audit.official_asking import Asks, endpoint_of, handed
    from ..benchmarks.spec import asked_for
    from ..progress import printer
    from ..run import Run

    given = {"RUN": run, "--models": models, "--transcripts": transcripts, "--verdicts": verdicts}
    sources = [name for name, one in given.items() if one]
    if len(sources) != 1:
        raise ValueError(
            f"say what is to be told: a run folder, --models, --transcripts or --verdicts; got {' and '.join(sources) or 'none of them'}"
        )
    of_models = {"--steered": steered, "--strength": strength, "--max-new-tokens": max_new_tokens}
    of_prompts = {"--attacks": attacks, "--split": split, "--limit": limit, "--skip-missing": skip_missing}
    of_texts = {"--dialect": dialect, "--opened": opened}
    foreign = {} if models else of_models if transcripts else {**of_models, **of_prompts, **of_texts}
    foreign |= {"--out": out} if run else {}
    foreign |= {"--judge": judge, "--official": official, "--official-llm": official_llm} if verdicts else {}
    if ignored := [name for name, one in foreign.items() if one not in (None, False, ())]:
        raise ValueError(f"{' and '.join(ignored)} would change nothing about what {sources[0]} gives: leave it out")
    asking = [spec for spec in official if rule_of(spec.partition("=")[0]).questions and not spec.endswith(".jsonl")]
    if official_llm is not None and not asking:
        raise ValueError("--official-llm would change nothing: nothing in --official asks a language model")
    folder = run or out or AUDIT
    scoring = Scoring(threshold, reference=reference, seed=seed or 0)
    if verdicts is not None:
        for told in auditing_verdicts(verdicts, folder, scoring):
            printer().print(told)
        return
    missing = "skip" if skip_missing else "raise"
    prompts = (
        settled_prompts(run)
        if run is not None
        else asked_for(benchmark, split=split, limit=limit, seed=seed, missing=missing, attacks=attacks)
    )
    of_judge = _endpoint(judge_key_env, concurrency, judge_extra)
    named_judge = judge or default_judge(prompts)
    asked = endpoint_of(named_judge, official_llm, of_judge) if asking else None
    rules = handed(official, prompts, asked)
    asks = None if asked is None else Asks(asked, _replies_of(folder), Cost())
    chosen, cost = _judge(named_judge, folder, template, device, 8, of_judge, threshold)
    if models:
        who = respondents(models, steered, strength)
        if reference is not None and reference not in [one.name for one in who]:
            raise ValueError(f"the reference {reference!r} is not among the models {', '.join(dict.fromkeys(one.name for one in who))}")
        how = _writing(max_new_tokens, batch_size, device, dtype, dialect, opened, _endpoint(key_env, concurrency, extra), on_error)
        print("\n".join(generating(folder, prompts, who, how, progress=not quiet)))
    elif transcripts:
        importing(folder, prompts, [(name, Path(file)) for name, file in map(named, transcripts)], dialect or "think", opened)
    for told in auditing(Run(folder), chosen, scoring, rules, asks, progress=not quiet):
        printer().print(told)
    _spent(cost)
    if asks is not None:
        _spent(asks.cost, "the papers' questions")


def list_benchmarks() -> None:
    """The benchmarks that can be read: variants and how many prompts they have, what they measure, licence, where they are published.

    Example: thoughtlens benchmarks list
    """
    from ..benchmarks.checking import listed
    from ..progress import printer

    printer().print(listed())


def check_benchmarks(root: Annotated[Path, tyro.conf.Positional], *, names: tuple[str, ...] = ()) -> None:
    """What lies in a folder and below: prompts found against those published, and every missing picture; exit code 1 if anything lacks.

    Example: thoughtlens benchmarks check data

    Args:
        root: Folder of one benchmark, or one with a folder for each.
        names: Only these benchmarks.
    """
    from ..benchmarks.checking import check, said
    from ..progress import printer

    found = check(root, names or None)
    printer().print(said(found))
    if not all(one.whole for one in found):
        print("not everything is there", file=sys.stderr)
        raise SystemExit(1)


def _endpoint(key_env: str | None, concurrency: int, extra: str) -> dict[str, Any]:
    try:
        fields = json.loads(extra)
    except ValueError as problem:
        raise ValueError(f"--extra is a JSON object, got {extra!r}: {problem}") from problem
    if not isinstance(fields, dict):
        raise ValueError(f"--extra is a JSON object, got {extra!r}")
    return {"key_env": key_env, "concurrency": concurrency, "extra": fields}


def _judge(
    spec: str, run: Path, template: Path | None, device: str, batch_size: int, endpoint: dict[str, Any], threshold: float = 4.0
) -> tuple[Judge, Cost]:
    from ..audit.endpoint import Cost
    from ..judges import open_judge

    cost, options = Cost(), {"template": template, "device": device_of(device), "batch_size": batch_size, "threshold": threshold}
    return open_judge(spec, cache=_replies_of(run), endpoint=endpoint, cost=cost, **options), cost


def _replies_of(run: Path) -> Path:
    return run / "judges" / "replies.jsonl"


def _spent(cost: Cost, whose: str = "the judge's endpoint") -> None:
    if cost.calls or cost.failed or cost.cached:
        print(f"{whose}: {cost}")


def _writing(
    max_new_tokens: int | None,
    batch_size: int,
    device: str,
    dtype: DTypeName,
    dialect: str | None,
    opened: bool,
    endpoint: dict[str, Any],
    on_error: OnErrorName,
) -> Writing:
    import torch

    from ..audit.answering import Writing

    kind = None if dtype == "auto" else getattr(torch, dtype)
    return Writing(max_new_tokens, batch_size, device_of(device), kind, dialect, opened, endpoint, on_error)
