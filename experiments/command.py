"""The command line that every study shares: options, plan, results folder, resuming, one-sentence errors.

A study is a module with ``Config``, ``PRESETS``, ``run``, ``plot``, ``report`` and ``sweeps`` (see
CONTRIBUTING.md, "Write your own study"); its ``main`` calls `main` here. One that does more than sweeps has
``plans(config)`` instead of ``sweeps``, a list of objects with what the plan prints (`Cost`), and one with results that
are no figures has ``files(tree)``, their contents by name within the results folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import hashlib
import importlib
import io
import json
import os
import re
import shlex
import signal
import stat
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, Protocol

DEFAULT_OUT = Path("results")


class Cost(Protocol):
    """What is predicted of a part of a study, say by `nnjax.sweep.Plan`; ``str`` of it is for people."""

    @property
    def compile_seconds(self) -> float:
        """Wall time of compiling, s."""

    @property
    def run_seconds(self) -> float:
        """Wall time of running, s."""

    @property
    def memory_bytes(self) -> int:
        """Memory at a time beside the data, bytes."""

    @property
    def result_bytes(self) -> int:
        """Size of the results, bytes."""


class BadInput(ValueError):
    """A mistake in what the user gave; its text is the one sentence that is printed."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How to run, apart from what is studied."""

    preset: str = "quick"
    """Size: quick (about two minutes on two CPU cores), standard (about an hour), full (published protocol)."""
    out: Path | None = None
    """Results folder; default results/STUDY-PRESET, with a digest where options differ from the preset."""
    dry_run: bool = False
    """Print the plan with estimates of time, memory and disk, and stop."""
    force_new: bool = False
    """Where the folder belongs to another run, start a new one beside it."""
    hosts: str | None = None
    """Spread over several hosts: auto under Slurm, Open MPI or Kubernetes, else HOST:PORT,PROCESS/PROCESSES (host and
    port of process 0, the number of this one from 0, and how many); the same command runs on all of them."""


def main(module: str, argv: list[str] | None = None) -> int:
    """Run the study called ``module`` from the command line.

    Returns the exit code: 0 done, 2 a mistake named in one sentence. The study is imported by its name, so that its
    functions are called the same whether it is run as a script or imported.
    """
    argv = sys.argv[1:] if argv is None else argv
    # What is changed about warnings (see `_mend_when_damaged`) is undone in the end.
    with stoppable(shlex.join(["python", "-m", module, *argv])), warnings.catch_warnings():
        return _main(importlib.import_module(module), module, argv)


def _main(study: ModuleType, module: str, argv: list[str]) -> int:
    name = module.rpartition(".")[2]
    try:
        options, config = _parse(study, module, argv)
    except BadInput as error:
        return _fail(name, str(error))
    _prepare_jax()
    job = _Job(study, module, options, config, argv)
    return _beside(job.plan if options.dry_run else job.start)


def _fail(name: str, sentence: str) -> int:
    print(f"{name}: {' '.join(sentence.split())}", file=sys.stderr)
    return 2


# Options


def check_numbers(config: Any, least: Mapping[str, float]) -> None:
    """Refuse fields of a study's Config that are below ``least[field]``, or lists that are empty or not ascending.

    Raises:
      ValueError: naming the field, its value and what is allowed.
    """
    for name, low in least.items():
        values = getattr(config, name)
        for value in values if isinstance(values, tuple) else (values,):
            if not low <= value < 2**31:
                raise ValueError(f"{name}={value} must be at least {low:g} and below 2^31")
        if values == ():
            raise ValueError(f"{name} is empty; give at least one value")
        if isinstance(values, tuple) and list(values) != sorted(set(values)):
            raise ValueError(f"{name}={values} must be ascending, each value once")


def _parse(study: ModuleType, module: str, argv: list[str]) -> tuple[Options, Any]:
    import tyro

    _check_names(study, argv)
    repeated = [word for word in ("--preset", "--out") if sum(a.split("=")[0] == word for a in argv) > 1]
    if repeated:
        raise BadInput(f"option {repeated[0]} is given twice")
    given = _value_of("--preset", argv)
    preset = Options.preset if given is None else given
    if preset not in study.PRESETS:
        raise BadInput(_unknown("preset", preset, list(study.PRESETS)))
    for number, word in enumerate(argv):
        if word.startswith("-") and number + 1 == len(argv) and word in ("--preset", "--out"):
            raise BadInput(f"option {word} needs a value")

    flat = tyro.conf.OmitArgPrefixes
    Arguments = dataclasses.make_dataclass("Arguments", [("options", flat[Options]), ("study", flat[study.Config])])
    default = Arguments(Options(preset=preset), study.PRESETS[preset])
    captured = io.StringIO()
    try:
        with contextlib.redirect_stderr(captured):
            arguments = tyro.cli(
                Arguments,
                args=argv,
                default=default,
                prog=f"python -m {module}",
                description=study.__doc__ or "",
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):  # --help
            raise
        sentence = _first_sentence(captured.getvalue()).removeprefix("Error parsing study: ")
        raise BadInput(_placed(sentence, argv)) from None
    except ValueError as error:  # what Config itself refuses
        raise BadInput(str(error)) from None
    return arguments.options, arguments.study


def _check_names(study: ModuleType, argv: list[str]) -> None:
    fields = [*dataclasses.fields(Options), *dataclasses.fields(study.Config)]
    known = ["--help", "-h", *(f"--{field.name.replace('_', '-')}" for field in fields)]
    for word in argv:
        bare = word.split("=")[0].replace("_", "-")
        if word.startswith("-") and not re.fullmatch(r"-\.?\d.*", word) and bare not in known:
            raise BadInput(_unknown("option", word.split("=")[0], known))


def _unknown(kind: str, value: str, known: list[str]) -> str:
    near = difflib.get_close_matches(value, known, 1)
    hint = f"did you mean {near[0]}?" if near else "--help lists them" if kind == "option" else ""
    allowed = "" if kind == "option" else f" (allowed: {', '.join(known)})"
    return f"unknown {kind} {value or repr(value)}{allowed}{'; ' + hint if hint else ''}"


def _placed(sentence: str, argv: list[str]) -> str:
    """A complaint of words that belong to no option, with the option that they follow."""
    found = re.match(r"Unrecognized options:\s*(.*)", sentence)
    if not found:
        return sentence
    shown = found[1]
    matches = ((word and shown.startswith(word)) or not (word or shown) for word in argv)
    first = next((place for place, match in enumerate(matches) if match), len(argv))
    before = [word.split("=")[0] for word in argv[:first] if word.startswith("--")]
    place = f" after {before[-1]}, which takes no further value" if before else ""
    return f"unrecognized {shown or 'empty word'}{place}"


def _value_of(option: str, argv: list[str]) -> str | None:
    for number, word in enumerate(argv):
        if word == option and number + 1 < len(argv):
            return argv[number + 1]
        if word.startswith(option + "="):
            return word.split("=", 1)[1]
    return None


def _first_sentence(box: str) -> str:
    """The message inside the frame that tyro draws, of box characters or, where those cannot be written, of dashes."""
    # Bars at both ends are the frame's; any other was given.
    lines = [re.sub(r"^\s*([│|])(.*)\1\s*$", r"\2", line).strip() for line in box.splitlines()]
    rules = [place for place, line in enumerate(lines) if line.startswith(("─", "╭", "╰", "---"))]
    inner = lines[rules[0] + 1 : rules[1]] if len(rules) > 1 else []
    return " ".join(" ".join(inner).split()) or "the options could not be read; --help lists them"


# The machine


def _prepare_jax() -> None:
    """Every CPU core a device, and a compilation cache of this user's own; before the backend starts."""
    import jax

    from nnjax.sweep import cores

    with contextlib.suppress(RuntimeError):  # started already, as in a test: then with what it has
        jax.config.update("jax_num_cpu_devices", cores())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nnjax" / "compiled"
    try:
        cache.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        cache.mkdir(exist_ok=True, mode=0o700)
        # What can put another folder in its place can write to it as well.
        if any(_others_write(folder) for folder in (cache, cache.parent)):
            print(f"not using the compilation cache {cache}: others can write to it", file=sys.stderr)
            return
    except OSError:
        return
    _mend_when_damaged(cache)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _mend_when_damaged(cache: Path) -> None:
    """From now on remove damaged entries of the compilation cache as JAX meets them, without a word.

    A kill or a full disk can leave half an entry. JAX compiles anew, but warns of it in every run: it replaces no entry
    that is there. Its warning tells the name of the program, which others may share: the entries of all of these go.
    """
    shown = warnings.showwarning

    def show(message: Warning | str, *rest: Any, **others: Any) -> None:
        found = re.match(r"Error reading persistent compilation cache entry for '(.+?)'", str(message))
        if not found:
            shown(message, *rest, **others)
            return
        with contextlib.suppress(OSError):
            for entry in [*cache.iterdir()]:
                if entry.name.startswith(f"{found[1]}-"):
                    entry.unlink(missing_ok=True)  # another process may have been faster

    warnings.showwarning = show
    warnings.filterwarnings("always", "Error reading persistent compilation cache entry")  # else but once for each text


def _others_write(folder: Path) -> bool:
    facts = folder.stat()
    foreign = hasattr(os, "getuid") and facts.st_uid != os.getuid()
    return foreign or bool(facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _join_hosts(study: ModuleType, place: str | None) -> None:
    """Connect with the processes on other hosts, where a place among them is given."""
    from nnjax import hosts

    place = place or os.environ.get(hosts.VARIABLE)
    if not place:
        return
    if not hasattr(study, "sweeps"):
        raise BadInput("this study runs on one host, on all of its devices; leave --hosts out")
    hosts.connect(*hosts.parse(place))


# The run


class _Job:
    """One invocation: a study, its configuration, and the folder it fills."""

    def __init__(self, study: ModuleType, module: str, options: Options, config: Any, argv: list[str]):
        self.study, self.name, self.options, self.config = study, module.rpartition(".")[2], options, config
        self.command = shlex.join(["python", "-m", module, *argv])

    @property
    def out(self) -> Path:
        if self.options.out is not None:
            return self.options.out
        plain = self.config == self.study.PRESETS[self.options.preset]
        text = json.dumps(dataclasses.asdict(self.config), sort_keys=True, default=str)
        digest = "" if plain else f"-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        return DEFAULT_OUT / f"{self.name}-{self.options.preset}{digest}"

    def plan(self) -> int:
        """Print what would be done."""
        from nnjax.data import DataError

        try:
            plans = self._plans()
        except (DataError, ValueError, MemoryError) as error:  # nothing is computed yet: what is wrong was given
            return _fail(self.name, str(error))
        for each in plans:
            print(each)
        compile_s, run_s = sum(p.compile_seconds for p in plans), sum(p.run_seconds for p in plans)
        memory, disk = max(p.memory_bytes for p in plans), 2 * sum(p.result_bytes for p in plans) + 2**21
        print(
            f"in all about {compile_s + run_s:.0f} s ({compile_s:.0f} s compiling, unless cached), "
            f"{memory / 2**20:.0f} MiB of memory at a time beside the data, "
            f"{disk / 2**20:.1f} MiB of disk in {self.out}"
        )
        return 0

    def _plans(self) -> list[Cost]:
        from nnjax.sweep import plan

        if hasattr(self.study, "plans"):
            return self.study.plans(self.config)
        return [plan(*call.args, **call.keywords) for call in self.study.sweeps(self.config).values()]

    def start(self) -> int:
        """Connect with the other hosts, if there are any, and run."""
        try:
            _join_hosts(self.study, self.options.hosts)
        except (ValueError, RuntimeError) as error:
            return _fail(self.name, str(error))
        return self.run()

    def run(self) -> int:
        """Fill the folder, of several hosts the first one; what is done is not done again."""
        from nnjax import hosts, results
        from nnjax.data import DataError

        try:
            identity = results.fingerprint(dataclasses.asdict(self.config), self.study)
            hosts.same(json.dumps(identity, sort_keys=True), "the run")
            part = self._follow if hosts.index() > 0 else functools.partial(self._lead, identity)
            hosts.together(part)
            return 0
        except MemoryError as error:
            return _fail(self.name, self._short_of_memory(error))
        except (DataError, BadInput, results.ResultsError, hosts.HostError) as error:
            return _fail(self.name, str(error))
        except OSError as error:
            where = f" at {error.filename!r}" if error.filename else ""
            return _fail(self.name, f"{error.strerror or error}{where}; what was computed is kept, run again to resume")
        except RuntimeError as error:  # of which JAX's own is one
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return _fail(self.name, self._short_of_memory(MemoryError()))

    def _short_of_memory(self, error: MemoryError) -> str:
        """What did not fit, and which options would make it smaller."""
        from nnjax.sweep import OutOfMemory

        if isinstance(error, OutOfMemory):
            fact, sizes = f"{error.sweep}: {error.fact}", _sizes(self.config, error.sweep)
        else:
            fact, sizes = f"out of memory{f' ({error})' if str(error) else ''}", []
        least = next(iter(self.study.PRESETS))
        ways = [f"--preset {least}"] if self.options.preset != least else []
        ways += [f"smaller {', '.join(sizes)}"] if sizes else ["smaller sizes, which --help lists"]
        return (
            f"{fact}; what was computed is kept, run again to go on where there is more memory free, "
            f"or give {' or '.join(ways)}"
        )

    def _lead(self, identity: Mapping[str, Any]) -> bytes:
        from nnjax import hosts, results

        with results.Folder(self.out, identity, force_new=self.options.force_new) as folder:
            complete = folder.complete
            hosts.together(lambda: b"" if complete else b"go")
            if complete:
                print((folder.path / "report.txt").read_text(), end="")
                print(f"{folder.path} is complete: nothing was left to do")
            else:
                self._fill(folder)
        return b""

    def _follow(self) -> bytes:
        """Compute this host's share of every sweep; the first host keeps and reports them."""
        from nnjax import hosts

        if hosts.together(lambda: b"")[0] == b"go":
            self.study.run(self.config)
        return b""

    def _fill(self, folder: Any) -> int:
        from nnjax import results
        from nnjax.monitor import ProgressBar

        start = time.perf_counter()
        folder.write("config.json", _json(dataclasses.asdict(self.config)))
        with ProgressBar() as monitor:
            tree = self.study.run(self.config, store=folder.store, monitor=monitor)
        folder.write_tree("results.nc", tree)
        tree = results.read_tree(folder.path / "results.nc")
        diverged = _diverged(tree)
        lines = [
            *(f"{count} of {lanes} lanes of {group} diverged" for group, (count, lanes) in diverged.items() if count)
        ]
        try:
            folder.write_figures(self.study.plot(tree))
        except Exception as error:
            if not lines or isinstance(error, OSError | MemoryError):
                raise
            # Where lanes have diverged there may be nothing to draw; the report is made all the same.
            lines.append(f"figures are missing, for what is left of the lanes cannot be drawn ({error})")
        for name, content in getattr(self.study, "files", lambda tree: {})(tree).items():
            folder.write(name, content)
        rows = self.study.report(tree)
        total = time.perf_counter() - start
        spent = {"compile": monitor.seconds["compile"], "run": monitor.seconds["run"]}
        folder.add_seconds({"compile": spent["compile"], "total": total})
        seconds = folder.seconds
        made = results.provenance() | {
            "command": self.command, "seed": getattr(self.config, "seed", None), "seconds": seconds,
            "chunks": dict(monitor.counts), "diverged": diverged, "results": results.digest(tree),
        }  # fmt: skip
        folder.write("provenance.json", _json(made))
        folder.write("report.md", _report(self.name, self.study, rows, lines, seconds, self.command).encode())
        text = io.StringIO()
        results.print_rows(rows, f"{self.name}, {self.options.preset}", text, width=120)
        folder.write("report.txt", text.getvalue().encode())
        folder.finish()
        results.print_rows(rows, f"{self.name}, {self.options.preset}")
        for line in lines:
            print(line)
        print(
            f"{folder.path}: {total:.0f} s ({spent['compile']:.0f} s compiling, {spent['run']:.0f} s running; "
            f"{monitor.counts['chunks']} chunks computed, {monitor.counts['resumed']} found finished)"
        )
        return 0


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, default=str) + "\n").encode()


def _diverged(tree: Any) -> dict[str, tuple[int, int]]:
    """Diverged and all lanes of each group that counts them."""
    found = {}
    for group in tree.groups:
        dataset = tree[group].to_dataset()
        if "diverged" in dataset:
            found[group.strip("/")] = (int(dataset["diverged"].sum()), int(dataset["diverged"].size))
    return found


def _report(name: str, study: ModuleType, rows: Any, lines: list[str], seconds: dict[str, float], command: str) -> str:
    from nnjax import results

    first = (study.__doc__ or name).strip().splitlines()[0]
    parts = [
        f"# {first}",
        f"Made by {results.markdown_code(command)}: {seconds['run']:.0f} s running (every chunk counted, also of "
        f"interrupted runs), {seconds['compile']:.0f} s compiling.",
        results.markdown_table(rows),
        *map(results.markdown_text, lines),
    ]
    return "\n\n".join(parts) + "\n"


def _sizes(config: Any, sweep: str) -> list[str]:
    """Options of a study that are sizes and, by their first word, of one of its sweeps."""
    for word in sweep.split("_"):
        found = [
            f"--{field.name.replace('_', '-')}"
            for field in dataclasses.fields(config)
            if field.name.split("_")[0].rstrip("s") == word.rstrip("s")
            and field.name.rpartition("_")[2] not in _COUNTS
            and _whole(getattr(config, field.name))
        ]
        if found:
            return found
    return []


# What options end in that make a study longer, but no lane larger.
_COUNTS = ("seeds", "draws", "steps", "epochs", "updates", "evaluations")


def _whole(value: Any) -> bool:
    values = value if isinstance(value, tuple) else (value,)
    return all(isinstance(each, int) and not isinstance(each, bool) for each in values)


# Stopping


@contextlib.contextmanager
def stoppable(command: str) -> Iterator[None]:
    """Within, Ctrl-C and a polite kill end the process at once and print ``command``, which resumes."""
    before = hear_stop(command)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def hear_stop(command: str) -> dict[int, Any]:
    """From now on SIGINT and SIGTERM end the process at once and print ``command``; returns the handlers before.

    Only the main thread can hear signals; in another nothing is changed.
    """

    def stop(number: int, frame: Any) -> NoReturn:
        # Compiled code cannot be interrupted, but every finished chunk is on disk, complete or not at all.
        words = f"\nstopped; what was finished is kept, this resumes it:\n  {command}\n"
        # The process's own stream: `sys.stderr` is another one while options are read.
        with contextlib.suppress(OSError):
            shown = "\x1b[?25h" if os.isatty(2) else ""  # the progress bar hides the cursor
            os.write(2, (shown + words).encode())
        os._exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}


def _beside(work: Callable[[], int]) -> int:
    """Work in a second thread, so that the main one hears signals while compiled code runs or hosts are waited for."""
    if threading.current_thread() is not threading.main_thread():
        return work()
    outcome: list[int] = []
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # handed to the main thread
            errors.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
    if errors:
        raise errors[0]
    return outcome[0]
