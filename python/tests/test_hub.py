"""Links, hubs, clocks and captures."""

import gc
import os
import pathlib
import time
import warnings
from typing import Any, Callable, List, Tuple

import pytest
import qnet
from qnet._library import lib

from .conftest import LONG, Heard, frame, receives

Pair = Tuple[qnet.Conn, qnet.Conn]
MAC = [b"\x02\0\0\0\0" + bytes([n]) for n in range(4)]


def has(function: str) -> bool:
    try:
        getattr(lib, function)
    except AttributeError:
        return False
    return True


def test_link_forwards_both_ways_until_unlinked(pair: Pair) -> None:
    a, b = qnet.socketpair()
    with a, b:
        qnet.link(pair[1], a)
        pair[0].send(frame(1))
        assert receives(b) == frame(1)
        b.send(frame(2))
        assert receives(pair[0]) == frame(2)
        with pytest.raises(qnet.Busy):
            pair[1].recv()
        a.unlink()
        with pytest.raises(qnet.Invalid):
            pair[1].unlink()
        b.send(frame(3))
        assert receives(a) == frame(3)


def test_a_cable_can_be_pulled(pair: Pair) -> None:
    a, b = qnet.socketpair()
    with a, b:
        qnet.link(pair[1], a)
        a.set(link=0)
        b.send(frame(1))
        while a.stats()["rx_refused"] == 0:
            time.sleep(0.001)
        a.set(link=1)
        b.send(frame(2))
        assert receives(pair[0]) == frame(2)


def test_hub_of_three_learns(pair: Pair) -> None:
    with qnet.Hub(mac_age_s=100) as hub:
        assert hub.get("mac_age_s") == 100
        one, two = hub.port(), hub.port()
        hub.attach(pair[1])
        three = pair[0]
        with one, two:
            assert pair[1] in hub.ports() and len(hub.ports()) == 3
            for port, mac in zip((one, two, three), MAC):
                port.send(frame(0, source=mac))
                for other in {one, two, three} - {port}:
                    assert receives(other) == frame(0, source=mac)
            one.send(frame(1, to=MAC[2], source=MAC[0]))
            one.send(frame(2, source=MAC[0]))
            assert receives(three) == frame(1, to=MAC[2], source=MAC[0])
            assert receives(two) == receives(three) == frame(2, source=MAC[0])
            counted = hub.stats()
            assert (counted["ports"], counted["macs"], counted["forwarded"], counted["flooded"]) == (3, 3, 1, 4)
            if has("qnet_hub_fdb"):
                assert sorted(entry["mac"] for entry in hub.fdb()) == MAC[:3]
                assert {e["mac"]: e["conn"] for e in hub.fdb()}[MAC[2]] is pair[1]
            hub.detach(pair[1])
            one.send(frame(3))
            assert receives(two) == frame(3)
            with pytest.raises(qnet.Invalid):
                hub.detach(pair[1])
            with pytest.raises(TypeError):
                hub.set(nonsense=1)
        pair[0].send(frame(4))
        assert receives(pair[1]) == frame(4)


def test_hub_serves_a_listener(tmp_path: pathlib.Path) -> None:
    with qnet.Hub() as hub:
        listener = qnet.listen("unix", tmp_path / "sw")
        listener.impair("delay 1ms loss 0% seed 3")
        assert listener.impairment(qnet.IN) == "delay 1ms loss 0% seed 3"
        hub.serve(listener)
        with qnet.dial("unix", tmp_path / "sw") as a, qnet.dial("unix", tmp_path / "sw") as b, hub.port() as c:
            while hub.stats()["ports"] < 3:
                time.sleep(0.001)
            a.send(frame(1))
            assert receives(b) == receives(c) == frame(1)
            ports: List[qnet.Conn] = hub.ports()
            impaired = [port for port in ports if port.impairment(qnet.OUT)]
            assert len(ports) == 3 and len(impaired) == 2
            assert sum(port.impair_stats(qnet.IN)["passed"] for port in impaired) == 1
            hub.detach(impaired[0])
            assert hub.stats()["ports"] == 2
            with pytest.warns(ResourceWarning):  # as it is the program's from then on
                impaired.clear()
                ports.clear()
                gc.collect()
            assert (a.close_reason() or b.close_reason()) is not None


def test_what_is_plugged_in_is_kept(pair: Pair) -> None:
    hub = qnet.Hub()
    ends = qnet.socketpair()
    hub.attach(ends[1])
    hub.attach(pair[1])
    far = ends[0]
    del ends, hub
    gc.collect()
    far.send(frame(1))
    assert receives(pair[0]) == frame(1)
    (kept,) = pair[1]._ties
    assert isinstance(kept, qnet.Hub)
    for conn in kept.ports():
        conn.close()
    assert not pair[1]._ties and not kept._ties
    kept.close()
    far.close()


def test_what_is_forgotten_is_closed_with_a_warning() -> None:
    a, b = qnet.socketpair()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        del a
        gc.collect()
    assert [one.category for one in warned] == [ResourceWarning] and "unclosed <qnet.Conn" in str(warned[0].message)
    with pytest.raises(qnet.Closed):
        receives(b)
    b.close()


def test_nothing_leaks() -> None:
    def counts() -> Tuple[int, int]:
        gc.collect()
        return len(os.listdir("/proc/self/fd")), len(gc.get_objects())

    def use(_: int) -> None:
        a, b = qnet.socketpair()
        c, d = qnet.socketpair()
        with qnet.Hub() as hub, qnet.Clock() as clock, a, b, c, d, hub.port() as port:
            hub.attach(b)
            a.send(frame())
            receives(port)
            d.set_handler(lambda _: None)
            d.set_close_handler(lambda _: None)
            c.send(frame())

    for n in range(10):
        use(n)
    before = counts()
    for n in range(100):
        use(n)
    after = counts()
    assert after[0] < before[0] + 50 and after[1] < before[1] + 50  # of 100 that were used


def test_clock_simulates_to_the_nanosecond(pair: Pair) -> None:
    a, b = qnet.socketpair()
    with qnet.Clock() as clock, a, b:
        assert (clock.now_ns, clock.next_ns) == (0, None)
        pair[1].impair("delay 40ms 5ms seed 3", qnet.IN)
        clock.link(pair[1], a)
        with pytest.raises(qnet.Busy):
            clock.close()
        assert not clock.closed
        pair[0].send(frame(1))
        assert clock.advance(0) == 0
        due = clock.next_ns
        assert due and abs(due - 40_000_000) <= 5_000_000
        clock.advance(due - 1)
        with pytest.raises(qnet.Again):
            b.recv(0)
        assert clock.advance(due) == 1 and clock.now_ns == due
        assert b.recv(0) == frame(1)
        with pytest.raises(qnet.Invalid):
            clock.advance(0)
        a.unlink()


def test_hub_on_a_clock(pair: Pair) -> None:
    with qnet.Clock() as clock, qnet.Hub(clock) as hub:
        hub.attach(pair[1])
        with hub.port() as port:
            pair[0].send(frame(1))
            with pytest.raises(qnet.Again):
                port.recv(0)
            assert clock.advance(0) == 1
            assert port.recv(0) == frame(1)
        hub.detach(pair[1])
        clock.advance(0)  # meets the end of the port
        hub.set_clock(None)
        clock.close()


NEWER = [
    ("qnet_capture_open", lambda hub, conn: qnet.Capture("x.pcapng")),
    ("qnet_capture_open_fd", lambda hub, conn: qnet.Capture(1)),
    ("qnet_set_vlan", lambda hub, conn: setattr(conn, "vlan", "access 1")),
    ("qnet_vlan", lambda hub, conn: conn.vlan),
    ("qnet_hub_fdb", lambda hub, conn: hub.fdb()),
    ("qnet_hub_fdb_add", lambda hub, conn: hub.fdb_add(MAC[0], 0, conn)),
    ("qnet_hub_fdb_remove", lambda hub, conn: hub.fdb_remove()),
    ("qnet_hub_set_port_handler", lambda hub, conn: hub.set_port_handler(print)),
    ("qnet_peer_cred", lambda hub, conn: conn.peer_cred()),
]


@pytest.mark.parametrize("function, call", NEWER, ids=[name for name, _ in NEWER])
def test_what_the_library_lacks_fails_when_called(function: str, call: Callable[..., Any], pair: Pair) -> None:
    if has(function):
        pytest.skip("is there")
    with qnet.Hub() as hub, pytest.raises(AttributeError, match=function):
        call(hub, pair[0])


@pytest.mark.skipif(not has("qnet_capture_open"), reason="no captures")
def test_capture_records(pair: Pair, tmp_path: pathlib.Path) -> None:
    with qnet.Capture(tmp_path / "lab.pcapng", snaplen=100) as capture:
        capture.add(pair[0], "vm1")
        with pytest.raises(qnet.Busy):
            capture.add(pair[0])
        capture.note("the first")
        pair[0].send(frame(1))
        capture.remove(pair[0])
        pair[0].send(frame(2))
        assert capture.stats()["frames"] == 1
    written = (tmp_path / "lab.pcapng").read_bytes()
    assert b"vm1" in written and b"the first" in written and frame(1) in written and frame(2) not in written


@pytest.mark.skipif(not has("qnet_capture_open"), reason="no captures")
def test_capture_of_a_hub_goes_to_a_descriptor(pair: Pair) -> None:
    out, to = os.pipe()
    with qnet.Hub() as hub, hub.port() as port, os.fdopen(out, "rb") as reader:
        with qnet.Capture(to) as capture:
            capture.add(hub, "sw")
            hub.attach(pair[1])
            pair[0].send(frame(1))
            assert receives(port) == frame(1)
        assert frame(1) in reader.read()


@pytest.mark.skipif(not has("qnet_set_vlan"), reason="no VLANs")
def test_vlans_keep_ports_apart(tmp_path: pathlib.Path) -> None:
    with qnet.Hub() as hub, hub.port() as a, hub.port() as b, hub.port() as c:
        a.vlan, b.vlan, c.vlan = "access 10", "access 20", "access 10"
        assert a.vlan == "access 10"
        a.send(frame(1))
        assert receives(c) == frame(1)
        b.send(frame(2))
        a.send(frame(3))
        assert receives(c) == frame(3)
        b.vlan = ""
        assert b.vlan == ""


@pytest.mark.skipif(not has("qnet_hub_fdb"), reason="no table")
def test_table_has_what_is_added() -> None:
    with qnet.Hub() as hub, hub.port() as a, hub.port() as b:
        hub.fdb_add(MAC[0], 0, a)
        b.send(frame(1, to=MAC[0], source=MAC[1]))
        assert receives(a) == frame(1, to=MAC[0], source=MAC[1])
        entries = {entry["mac"]: entry for entry in hub.fdb()}
        assert {entries[mac]["conn"] for mac in MAC[:2]} == set(hub.ports())
        assert entries[MAC[0]]["flags"] == qnet.constants["FDB_STATIC"] and entries[MAC[1]]["flags"] == 0
        assert (hub.fdb_remove(), hub.fdb_remove(MAC[0], 0), hub.fdb()) == (1, 1, [])
        with pytest.raises(ValueError):
            hub.fdb_add(b"short", 0, a)


@pytest.mark.skipif(not has("qnet_hub_set_port_handler"), reason="no port handlers")
def test_port_handler_is_told_of_peers(tmp_path: pathlib.Path) -> None:
    told = Heard()
    with qnet.Hub() as hub:
        hub.set_port_handler(told)
        hub.serve(qnet.listen("unix", tmp_path / "sw"))
        with qnet.dial("unix", tmp_path / "sw") as peer:
            conn, attached = told.wait(lambda h: len(h) == 1)[0]
            assert attached is True and conn.impairment(qnet.IN) == ""
            assert conn.peer_cred() == {"uid": os.getuid(), "gid": os.getgid(), "pid": os.getpid()}
            assert peer.peer_cred()["pid"] == os.getpid()
        assert told.wait(lambda h: len(h) == 2)[1] == (conn, False)
        hub.set_port_handler(None)
