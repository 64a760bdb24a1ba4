"""The tests' own guard against the network, and a build where the kernel itself has none: compiled libraries ask nobody either."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys

import pytest

from tests.offline.sitecustomize import is_local
from tests.runs import REPOSITORY


@pytest.mark.parametrize("host", [None, "", "localhost", b"localhost", "127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_local(host):
    assert is_local(host)


@pytest.mark.parametrize("host", ["example.org", "10.0.0.1", "128.0.0.1", "::2", "127.0.0.1.example.org", "169.254.169.254"])
def test_no_other_machine_is_local(host):
    assert not is_local(host)


def test_the_guard_refuses_and_writes_down(network_uses):
    with pytest.raises(RuntimeError, match=r"socket\.getaddrinfo 'example\.invalid' .* tests run offline"):
        socket.getaddrinfo("example.invalid", 80)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, pytest.raises(RuntimeError, match="tests run offline"):
        udp.sendto(b"x", ("192.0.2.1", 9))
    assert len(network_uses()) == 2


def test_the_guard_reaches_child_processes(network_uses):
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "NetworkUsed" in done.stderr
    assert len(network_uses()) >= 1


def test_a_build_runs_where_the_kernel_has_no_network(varied, tmp_path):
    """In a network namespace of its own with nothing but the loopback, which Beam's workers need."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system does not let a process leave the network (unshare -rn)")
    inner = f"ip link set lo up 2>/dev/null; exec {sys.executable} -m pipelines.cli build {varied}/recipe.yaml --run {tmp_path}/run"
    done = subprocess.run(["unshare", "-rn", "sh", "-c", inner], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[-500:] if done.returncode else "") == (0, "")
    assert (tmp_path / "run" / "manifest.json").exists()
