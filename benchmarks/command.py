"""The command line: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from benchmarks import peers, plot
from benchmarks.contestant import BEFORE, CONTESTANTS, OURS, Contestant
from benchmarks.findings import Findings
from benchmarks.measure import Measurement, folder, measure_all
from benchmarks.place import Places
from benchmarks.plan import SCALES, STORES, WORKLOADS, plan
from benchmarks.report import document
from benchmarks.table import number, render


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the selected measurements and print the table.

    Returns:
        The exit code: 1 if a measurement of this library failed, otherwise 0.
    """
    chosen = _parser().parse_args(arguments)
    if chosen.workloads == ["list"]:
        print("\n".join(f"{name} {title}" for name, title in WORKLOADS.items()))
        return 0
    missing = _missing(wants_peers=chosen.peers)
    contestants = _contestants(missing, chosen.before)
    cells = plan(chosen.scale, tuple(chosen.workloads), tuple(chosen.backends))
    measurements: list[Measurement] = []
    with Places(folder()) as places:
        with _interruptible():
            for each in measure_all(cells, contestants, places, chosen.repeat):
                _progress(each)
                measurements.append(each)
        postgres = places.postgres_version()
    results = document(measurements, scale=chosen.scale, missing=missing, postgres=postgres)
    print(render(Findings(measurements), missing))
    print(f"\ncommit {results['commit']}, scale {chosen.scale}, {chosen.repeat} × each")
    print(results["machine"], results["versions"], sep="\n")
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    if chosen.plot:
        chosen.plot.write_text(plot.draw(Findings(measurements)), encoding="utf-8")
    return int(any(each.error for each in measurements if each.contestant == OURS))


def _contestants(missing: Mapping[str, str], before: Path | None) -> list[Contestant]:
    """Those that can be measured here."""
    found = [each for each in CONTESTANTS if each.peer not in missing]
    if before is None:
        return [each for each in found if each.name != BEFORE]
    folder = (str(before.resolve()),)
    return [replace(each, arguments=folder) if each.name == BEFORE else each for each in found]


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the measurements like Ctrl-C; the results so far are still printed."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=sys.modules["benchmarks"].__doc__)
    parser.add_argument(
        "--workloads",
        type=_names((*WORKLOADS, "list")),
        default=list(WORKLOADS),
        help="for example W1,W2; `list` lists all",
    )
    parser.add_argument("--backends", type=_names(STORES), default=list(STORES), help=",".join(STORES))
    parser.add_argument(
        "--scale", choices=SCALES, default="small", help="the targets apply to `full`, which takes about an hour"
    )
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="number of repetitions, 3 by default")
    parser.add_argument("--peers", action="store_true", help="measure peers too; `nox -s bench_peers` installs them")
    parser.add_argument(
        "--before", type=Path, metavar="FOLDER", help="checkout of another version, with which W14 compares this one"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to this file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a chart (SVG) to this file")
    return parser


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def split(text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
        return names

    return split


def _missing(*, wants_peers: bool) -> dict[str, str]:
    if not wants_peers:
        return dict.fromkeys(peers.REQUIREMENTS, "not requested; add --peers")
    reasons = {peer: peers.missing_reason(peer) for peer in peers.REQUIREMENTS}
    return {peer: reason for peer, reason in reasons.items() if reason}


def _progress(measurement: Measurement) -> None:
    shown = number(measurement.value) if measurement.value is not None else f"failed: {measurement.error}"
    cell = measurement.cell
    print(f"{measurement.repetition + 1} {cell.key} {measurement.contestant}: {shown} {cell.unit}", file=sys.stderr)
