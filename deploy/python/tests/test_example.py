"""An example against real traffic: UDP on loopback in a network namespace.

    sudo unshare --net sh -c 'ip link set lo up; CHAOS_TARGET=pid:$$ exec python3 -m pytest -p pytest_chaos tests'

(``pip install .`` makes the ``-p`` unnecessary.)
CI runs it through ``cargo xtask test e2e`` (tests/tests/e2e_pytest.rs), which starts an agent and pytest itself inside
a namespace.
"""

import os
import socket
import time

import pytest

from pytest_chaos import Refused

TARGET = os.environ.get("CHAOS_TARGET", "")
LEASE = 2

pytestmark = pytest.mark.skipif(not TARGET, reason="CHAOS_TARGET names no target, such as netns:blue")


def arrives():
    """Whether a datagram to ourselves does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there, socket.socket(
        socket.AF_INET, socket.SOCK_DGRAM
    ) as here:
        there.bind(("127.0.0.1", 0))
        there.settimeout(0.5)
        here.sendto(b"x", there.getsockname())
        try:
            return there.recv(1) == b"x"
        except socket.timeout:
            return False


def test_nothing_arrives_while_the_fault_is_held(chaos):
    assert arrives()
    with chaos.fault(TARGET, loss="100%", match={"proto": "udp"}, lease=f"{LEASE}s") as fault:
        assert not arrives()
        time.sleep(2 * LEASE)
        assert not arrives(), "the lease is renewed"
        assert fault.stats().both("dropped_packets") >= 2
        assert "loss" in str(fault.explain())
    assert arrives()


def test_it_heals_when_the_test_fails(chaos):
    with pytest.raises(ZeroDivisionError):
        with chaos.fault(TARGET, loss="100%", match={"proto": "udp"}):
            assert not arrives()
            1 / 0
    assert arrives()


def test_what_is_wrong_is_pointed_at(chaos):
    with pytest.raises(Refused) as refused:
        chaos.fault(TARGET, loss="ten")
    assert refused.value.errors[0]["pointer"] == "/faults/loss"
