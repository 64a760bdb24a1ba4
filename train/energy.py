"""Energy of a run: measured where Linux offers it (RAPL), else an estimate that says so, with its watts and its PUE.

* **Measured**: the energy counters of all processor packages under `powercap`; they count everything that runs on the machine.
  Accelerators are not in them: a run on accelerators is estimated (and not run on a GPU yet).
* **Estimated**: watts x seconds of each process, as LLaMA (400 W a GPU, Touvron et al. 2023, section 6) and GLaM (326 W a chip,
  Du et al. 2022, section 6) do. The default for a CPU, 10 W a thread, is a server's thermal design power over its cores, rounded.

Both are multiplied by the power usage effectiveness: 1.1 in LLaMA, 1.11 in GLaM.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
JOULES_A_KWH = 3.6e6
WATTS_A_THREAD, WATTS_AN_ACCELERATOR = 10.0, 400.0


@dataclass(frozen=True, slots=True)
class Energy:
    """What was used so far. `watts` is the estimate's, of all processes together; None where it was measured."""

    kwh: float
    measured: bool
    watts: float | None
    pue: float
    basis: str


class RaplCounters:
    """Joules that the packages of this machine have used since this object was made; to be read every few minutes."""

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._zones = [zone for zone in sorted(folder.glob("intel-rapl:*")) if zone.name.count(":") == 1 and _readable(zone)]
        self._last = [_number(zone / "energy_uj") for zone in self._zones]
        self._micro_joules = 0

    @property
    def available(self) -> bool:
        """Whether there is any counter that this user may read."""
        return bool(self._zones)

    def joules(self) -> float:
        """Since the start; counters that wrapped around (once since the last call) are unwound."""
        for at, zone in enumerate(self._zones):
            now = _number(zone / "energy_uj")
            used = now - self._last[at]
            self._micro_joules += used if used >= 0 else used + _number(zone / "max_energy_range_uj")
            self._last[at] = now
        return self._micro_joules / 1e6


def _readable(zone: Path) -> bool:
    try:
        _number(zone / "energy_uj"), _number(zone / "max_energy_range_uj")
    except (OSError, ValueError):  # only root may read them on many machines: then there is nothing to measure with
        return False
    return True


def _number(path: Path) -> int:
    return int(path.read_text())


class Meter:
    """Energy of this process's machine or share of it; kWh of several processes or machines add up."""

    def __init__(self, watts: float, pue: float, processes: int, on_accelerator: bool, folder: Path = POWERCAP) -> None:
        self._watts, self._pue, self._processes = watts, pue, processes
        counters = RaplCounters(folder)
        self._counters = counters if counters.available and not on_accelerator else None
        self._start = time.perf_counter()

    def read(self) -> Energy:
        """Since this object was made."""
        if self._counters is not None:
            kwh = self._counters.joules() * self._pue / JOULES_A_KWH
            return Energy(kwh, True, None, self._pue, "measured: RAPL counters of this machine's packages, all of its load")
        watts, seconds = self._watts * self._processes, time.perf_counter() - self._start
        return Energy(estimate(watts, seconds, self._pue), False, watts, self._pue, "estimate: watts x time x PUE")


def estimate(watts: float, seconds: float, pue: float) -> float:
    """kWh of a load of so many watts, with the data centre's share."""
    return watts * seconds * pue / JOULES_A_KWH


def default_watts(device: str, threads: int) -> float:
    """Of one process, where nothing better is known."""
    return WATTS_A_THREAD * threads if device == "cpu" else WATTS_AN_ACCELERATOR
