"""What Linux says of processes, from files written by hand."""

import os

from heartseg_jax.benchmarking import usage


def test_the_peak_is_that_of_the_process_s_status(tmp_path):
    (tmp_path / "self").mkdir()
    (tmp_path / "self/status").write_text("Name:\tpython\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\n")
    assert usage.peak_bytes(tmp_path) == 2 * 2**20
    assert usage.clear_peak(tmp_path)
    assert (tmp_path / "self/clear_refs").read_text() == "5"


def test_elsewhere_it_is_that_since_the_process_began(tmp_path):
    assert not usage.clear_peak(tmp_path)
    assert usage.peak_bytes(tmp_path) > 2**20


def test_the_share_of_others_by_hand(tmp_path):
    # user nice system idle iowait irq softirq steal: 100 seconds in all, 60 of them at work.
    ticks = [seconds * os.sysconf("SC_CLK_TCK") for seconds in (40, 5, 10, 30, 10, 1, 2, 2)]
    (tmp_path / "stat").write_text(f"cpu  {' '.join(map(str, ticks))} 0 0\ncpu0 1 2\n")
    now = usage.usage(tmp_path)
    assert (now.busy_s, now.all_s) == (60.0, 100.0)
    before = usage.Usage(now.own_s - 5, 35.0, 50.0)
    # 25 of 50 seconds were spent at work, 5 of them here.
    assert usage.others_share(before, now) == 0.4
    assert usage.others_share(now, now) is None
    assert usage.others_share(usage.usage(tmp_path / "nowhere"), now) is None
