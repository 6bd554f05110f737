"""Compare runs: ``python eval/compare.py RUN RUN …``, installed as ``vla-compare``."""

from __future__ import annotations

if __name__ == "__main__":  # the command is imported by its name, with what it needs
    import sys
    from pathlib import Path

    if not __package__:  # a file of a checkout, which need not be installed
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from vla_harness.launch import launch

    sys.exit(launch("vla_harness.eval.compare"))

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from tformer.values import Range
from vla_harness.command import DONE, parse_options, run_command
from vla_harness.comparison import compare, document, read_runs, write_comparison
from vla_harness.comparison.formats import check_format
from vla_harness.comparison.planning import plan_text, sequential_text
from vla_harness.comparison.text_formats import plain_text
from vla_harness.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Compare runs in tables: success with intervals, paired differences, tasks, efficiency.

    Runs of one policy on several suites become one row. Runs that were not measured alike are refused.
    Exit codes: 0 done, 2 something to put right in the command.
    """

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN …", help_behavior_hint="")] = ()
    """Folders of runs, each as PATH or as NAME=PATH, where NAME is what the tables call its policy."""

    baseline: Annotated[str | None, arg(metavar="RUN", help_behavior_hint="(default: test every two)")] = None
    """Policy that all others are tested against: one of the runs, or a name in the tables."""

    published: bool = False
    """Add published LIBERO rates with their sources, and say whether a run reproduces the one of its policy."""

    out: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: print only)")] = None
    """File to write as well; its ending chooses the format: .md, .tex, .csv or .html."""

    force: bool = False
    """Compare runs that were not measured alike, and mark what differs."""

    target_halfwidth: Annotated[
        Annotated[float, Range(0, 0.5, above=True, below=True)] | None,
        arg(metavar="W", help_behavior_hint="(default: compare)"),
    ] = None
    """Only print how many episodes a 95 % interval of half width W takes, a share such as 0.03: at usual rates, and at
    the runs', if any are given."""

    sequential: bool = False
    """Only say whether two policies are told apart yet, by a test that may be repeated while their runs grow. Its
    error rate of 5 % over all looks holds for the number of episodes that the runs were started with."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; ``arguments`` without the program's name. Returns the exit code."""
    return run_command(lambda: _compare(parse_options(Compare, arguments, "compare.py")))


def _compare(options: Compare) -> int:
    if options.out is not None:
        check_format(options.out)
    _require_no_unread_option(options)
    runs = read_runs(options.runs)
    if options.target_halfwidth is not None:
        print(plan_text(options.target_halfwidth, runs))
        return DONE
    if not runs:
        raise UserError("No run is given: name the folders of one or more, as in runs/a runs/b.")
    if options.sequential:
        print(sequential_text(runs, options.force))
        return DONE
    comparison = compare(runs, options.baseline, options.published, options.force)
    print(plain_text(document(comparison)))
    if options.out is not None:
        write_comparison(comparison, options.out)
        print(f"\nWritten: {options.out}")
    return DONE


def _require_no_unread_option(options: Compare) -> None:
    """Raise UserError for an option that would be passed over in silence."""
    unread = {
        "--baseline": options.baseline is not None,
        "--published": options.published,
        "--out": options.out is not None,
    }
    if options.target_halfwidth is not None:
        only, unread = "--target-halfwidth", unread | {"--force": options.force, "--sequential": options.sequential}
    elif options.sequential:
        only = "--sequential"
    else:
        return
    if given := [name for name, is_given in unread.items() if is_given]:
        raise UserError(f"{only} only prints its own answer: leave out {' and '.join(given)}.")
