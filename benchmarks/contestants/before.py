"""This library from another checkout: `python -m benchmarks.contestants.before TASK FOLDER`."""

import sys
from pathlib import Path

from benchmarks.child import answer

FOLDER = Path(sys.argv[2])
sys.path.insert(0, str(FOLDER))
import spine_async  # noqa: E402 - pins the package to the folder before the workloads import it

sys.path.pop(0)
from benchmarks.contestants.spine import VERBS  # noqa: E402 - the workloads of this checkout

if __name__ == "__main__":
    found = Path(str(spine_async.__file__)).resolve()
    if not found.is_relative_to(FOLDER.resolve()):
        raise SystemExit(f"there is no spine_async in {FOLDER}")
    answer(VERBS)
