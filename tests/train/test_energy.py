"""train.energy: LLaMA's and GLaM's published energies from their own numbers; counters that wrap; estimates that say so."""

from pathlib import Path

import pytest

from train.energy import Meter, RaplCounters, default_watts, estimate


@pytest.mark.parametrize(("gpu_hours", "mwh"), [(82_432, 36), (135_168, 59), (530_432, 233), (1_022_362, 449)])
def test_llamas_table_of_energies(gpu_hours, mwh):
    """Touvron et al. 2023, table 15: GPU hours at 400 W and a PUE of 1.1, in whole MWh."""
    assert estimate(400, 3600 * gpu_hours, 1.1) / 1000 == pytest.approx(mwh, abs=1)


def test_glams_213_mwh():
    """Du et al. 2022, section 6: 280 B tokens on 1,024 chips of 326 W, PUE 1.11, in 574 hours."""
    assert estimate(326 * 1024, 3600 * 574, 1.11) / 1000 == pytest.approx(213, abs=0.5)


def zone(folder: Path, name: str, energy: int, top: int = 1000) -> Path:
    made = folder / name
    made.mkdir(parents=True)
    (made / "energy_uj").write_text(f"{energy}\n")
    (made / "max_energy_range_uj").write_text(f"{top}\n")
    return made


def test_counters_of_all_packages_add_up_and_wrap_around(tmp_path):
    """Subzones (intel-rapl:0:0) are parts of their package and are not counted twice."""
    first, second = zone(tmp_path, "intel-rapl:0", 900), zone(tmp_path, "intel-rapl:1", 10)
    part = zone(tmp_path, "intel-rapl:0:0", 5)
    counters = RaplCounters(tmp_path)
    assert counters.available
    assert counters.joules() == 0
    (first / "energy_uj").write_text("950")
    (part / "energy_uj").write_text("500")
    assert counters.joules() == pytest.approx(50e-6)
    (first / "energy_uj").write_text("20")
    (second / "energy_uj").write_text("40")
    assert counters.joules() == pytest.approx((50 + 70 + 30) * 1e-6)


def test_what_is_measured_and_what_is_estimated_says_so(tmp_path):
    made = zone(tmp_path, "intel-rapl:0", 0, 10**12)
    meter = Meter(watts=10, pue=1.5, processes=2, on_accelerator=False, folder=tmp_path)
    (made / "energy_uj").write_text(str(3_600_000 * 10**6))
    measured = meter.read()
    assert (measured.measured, measured.watts, measured.pue) == (True, None, 1.5)
    assert measured.kwh == pytest.approx(1.5)
    for folder, accelerated in ((tmp_path / "none", False), (tmp_path, True)):
        guess = Meter(10, 1.5, 2, accelerated, folder).read()
        assert (guess.measured, guess.watts, guess.pue) == (False, 20, 1.5)
        assert guess.basis.startswith("estimate")


def test_counters_that_cannot_be_read_are_none(tmp_path):
    made = zone(tmp_path, "intel-rapl:0", 0)
    (made / "energy_uj").unlink()
    assert not RaplCounters(tmp_path).available
    zone(tmp_path, "intel-rapl:1", 0)
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("nothing")
    assert not RaplCounters(tmp_path).available


def test_default_watts():
    assert default_watts("cpu", 3) == 30
    assert default_watts("cuda", 3) == 400
