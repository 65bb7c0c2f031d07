"""``python -m bench.profile``: flame graphs of the collector and the store under a flood, by py-spy.

``--seconds`` each; ``--rate`` paces the flood; ``--out`` is the folder of the pictures. The text on standard output is
where the time of the interpreter's threads went, function by function.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from bench.measure import threads_ns
from bench.site import Place, Simulator, Site, clickhouse, settle

ROOT = Path(__file__).parents[1]
_SHOWN = 32
_WAITING = ("Condition.wait", "socket.accept", "Event.wait", "_watch", "poll (selectors")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.profile")
    parser.add_argument("--seconds", type=int, default=12)
    parser.add_argument("--rate", type=int, default=0, help="frames/s; 0: flat out")
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    options = parser.parse_args()
    place = Place(ROOT / "reports" / "profile-work", quick=False, long=False)
    place.drop(place.folder)
    folder = place.new("profile")
    flood = {"flat_out": True, "commit_rate": 5, **({"flat_out_rate": options.rate} if options.rate else {})}
    with (
        clickhouse(folder) as server,
        Simulator(folder, ("BTC_USDT",), **flood) as sim,
        Site(folder, sim, server=server) as site,
    ):
        site.store()
        site.record()
        site.recording(frames=50)
        settle(1)
        pids = site.pids()
        for name in ("collector btc", "store"):
            raw = folder / f"{name.split()[0]}.raw"
            frames, before = site.frames(), threads_ns(pids[name])
            settle(options.seconds)  # undisturbed: stopping a process to look at it costs it time
            frames, after = site.frames() - frames, threads_ns(pids[name])
            _spy(pids[name], options.seconds, raw, "raw")
            _spy(pids[name], options.seconds, options.out / f"flame-{name.split()[0]}.svg", "flamegraph")
            print(f"\n{name}: µs of CPU per frame and thread, {frames} frames in {options.seconds} s")
            spent = {f"thread ({t})": (ns - before.get(t, 0)) / frames / 1000 for t, ns in after.items()}
            print("\n".join(f"{us:7.2f}  {_named(raw, thread)}" for thread, us in spent.items() if us >= 0.005))
            print("share of the samples, function itself / with what it calls")
            print("\n".join(_shares(raw)))
    place.drop(place.folder)
    return 0


def _spy(pid: int, seconds: int, target: Path, form: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    spy = Path(sys.executable).with_name("py-spy")
    subprocess.run(
        [spy, "record", "-p", str(pid), "-d", str(seconds), "-r", "200", "-f", form, "-o", target, "-F", "--threads"],
        check=True,
        capture_output=True,
    )
    if form == "flamegraph":  # its title is the command, with the paths of this machine
        target.write_text(re.sub(r"[^<>]*py-spy record[^<>]*", target.stem, target.read_text()))


def _named(raw: Path, thread: str) -> str:
    return next((part for part in raw.read_text().replace("\n", ";").split(";") if part.startswith(thread)), thread)


def _shares(raw: Path) -> list[str]:
    alone: Counter[str] = Counter()
    within: Counter[str] = Counter()
    total = 0
    for line in raw.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if any(frames[-1].startswith(name) for name in _WAITING):
            continue
        total += int(count)
        alone[frames[-1]] += int(count)
        for frame in set(frames):
            within[frame] += int(count)
    return [f"{alone[n] / total:6.1%} {within[n] / total:6.1%}  {n}" for n, _ in within.most_common(_SHOWN)]


if __name__ == "__main__":
    sys.exit(main())
