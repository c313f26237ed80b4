"""`vla-report`: a run's report, written anew, or the comparison of two runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from results.comparison import Comparison, compare
from results.divergence import APART, Divergence, divergences
from results.files import write_atomically
from results.report import comparison_report, write_report
from results.run_directory import RunDirectory
from results.summary import write_summary

EXIT_OK, EXIT_USAGE = 0, 2
MOST_PRINTED = 20


@dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """`vla-report RUN` writes the run's report.md, plots and summaries anew. `vla-report RUN RUN2` compares two runs of the same
    episodes, pair by pair: which policy is better, by how much, and in which episodes they differ."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """One run directory, or two; the second is compared with the first."""
    output: Path | None = None
    """Where to write the comparison. Default: comparisons/NAME-OF-THE-FIRST.md in the second's folder."""


def main() -> None:
    """The console command."""
    sys.exit(run(tyro.cli(ReportArguments, prog="vla-report"), out=Console(), errors=Console(stderr=True)))


def run(arguments: ReportArguments, *, out: Console, errors: Console) -> int:
    """Run the command; returns the exit status: 0, or 2 for wrong input."""
    try:
        if len(arguments.runs) == 1 and arguments.output is None:
            path = arguments.runs[0]
            run_dir = RunDirectory(path)
            manifest, records, wall_s = run_dir.manifest(), run_dir.records(), run_dir.log.wall_s()
            write_summary(path, manifest, records, wall_s)
            write_report(path, manifest, records, wall_s)
            out.print(f"Report: {path / 'report.md'}", markup=False, soft_wrap=True)
            return EXIT_OK
        if len(arguments.runs) != 2:
            raise ValueError(
                f"expected one run directory, or two to compare (--output is for the latter), got {len(arguments.runs)}"
            )
        first, second = (path.resolve() for path in arguments.runs)
        comparison = compare(RunDirectory(first), RunDirectory(second))
        names = (first.name, second.name) if first.name != second.name else (str(first), str(second))
        file = arguments.output or second / "comparisons" / f"{first.name}.md"
        parted = divergences(first, second, comparison.first_only + comparison.second_only)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, comparison_report(comparison, *names, parted).encode())
        print_comparison(out, comparison, *names, parted)
        out.print(f"All of it: {file}", markup=False, soft_wrap=True)
    except (ValueError, OSError) as error:
        errors.print(f"vla-report: {error}", markup=False, soft_wrap=True)
        return EXIT_USAGE
    return EXIT_OK


def print_comparison(
    console: Console, comparison: Comparison, first: str, second: str, parted: Mapping[str, Divergence]
) -> None:
    """The numbers, the words, and the episodes that differ, and where they part."""
    table = Table(
        "",
        "episodes",
        "both",
        "only first",
        "only second",
        "neither",
        "p",
        title=f"first: {escape(first)}, second: {escape(second)}",
    )
    for pairing in comparison.pairings:
        counts = pairing.counts
        cells = (counts.total, counts.both, counts.first_only, counts.second_only, counts.neither)
        table.add_row(pairing.name, *map(str, cells), f"{pairing.p:.2g}")
    console.print(table)
    for pairing in comparison.pairings:
        console.print(f"{pairing.name}: {pairing.sentence(first, second)}", markup=False)
    for warning in comparison.warnings:
        console.print(f"[bold yellow]Differs beside the policy:[/bold yellow] {escape(warning)}")
    if comparison.unpaired:
        console.print(f"Left out: {comparison.unpaired} episodes that have a result in one run only.")
    for name, ids in ((first, comparison.first_only), (second, comparison.second_only)):
        more = f" … and {len(ids) - MOST_PRINTED} more" if len(ids) > MOST_PRINTED else ""
        if ids:
            console.print(f"Only {name} succeeded in: {', '.join(ids[:MOST_PRINTED])}{more}", markup=False)
    for episode_id in [i for i in comparison.first_only + comparison.second_only if i in parted][:MOST_PRINTED]:
        console.print(f"  {episode_id}: {parted[episode_id]}", markup=False)
    if parted:
        console.print(f"(elsewhere: a joint or an object by more than {APART} rad or m)", markup=False)


if __name__ == "__main__":
    main()
