"""A process of its own for the storage and claims tests: ``claimant.py MODE STORAGE COUNT``, told to go on by lines.

``put``: puts COUNT new objects, prints how many it was first with. ``claim``: claims run ``r``, says so, holds it.
"""

from __future__ import annotations

import sys

from retable.track.claims import Claim, Process
from retable.track.storage import Storage


def main(mode: str, root: str, count: int) -> None:
    storage = Storage(root)
    print("ready", flush=True)
    sys.stdin.readline()
    if mode == "put":
        print(sum(storage.put_new(f"race/{i}", str(i).encode()) for i in range(count)), flush=True)
        return
    with Claim(storage, "r", Process.this()) as claim:
        print(claim.number, flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
