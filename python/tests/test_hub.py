"""Links, hubs, clocks and captures."""

import gc
import os
import pathlib
import time
import warnings
from typing import Any, Callable, List, Tuple

import pytest
import qnet

from .conftest import LONG, Heard, frame, receives

Pair = Tuple[qnet.Conn, qnet.Conn]
MAC = [b"\x02\0\0\0\0" + bytes([n]) for n in range(4)]


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
            assert {entry["mac"]: entry["conn"] for entry in hub.fdb()} == dict(zip(MAC, (one, two, pair[1])))
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


def test_capture_of_a_hub_goes_to_a_descriptor(pair: Pair) -> None:
    out, to = os.pipe()
    with qnet.Hub() as hub, hub.port() as port, os.fdopen(out, "rb") as reader:
        with qnet.Capture(to) as capture:
            capture.add(hub, "sw")
            hub.attach(pair[1])
            pair[0].send(frame(1))
            assert receives(port) == frame(1)
        assert frame(1) in reader.read()


def test_captures_have_options(pair: Pair, tmp_path: pathlib.Path) -> None:
    with qnet.Capture(tmp_path / "lab.pcapng", snaplen=64, file_bytes=65536, files=2) as capture:
        capture.add(pair[0])
        for n in range(2000):
            pair[0].send(frame(n, size=1000))
            receives(pair[1])
    left = sorted(tmp_path.iterdir())
    assert len(left) == 2 and left[-1].name > "lab_00002.pcapng"
    assert frame(1999, size=64) in left[-1].read_bytes() and frame(1999, size=65) not in left[-1].read_bytes()
    with pytest.raises(qnet.Invalid):
        qnet.Capture(tmp_path / "x.pcapng", link=1)


def test_vlans_keep_ports_apart() -> None:
    with qnet.Hub() as hub, hub.port() as a, hub.port() as b, hub.port() as c, hub.port() as trunk:
        a.vlan, b.vlan, c.vlan, trunk.vlan = "access 10", "access 20", "access 10", "trunk 20"
        assert a.vlan == "access 10"
        b.send(frame(1))
        assert receives(trunk) == frame(1)[:12] + b"\x81\0\0\x14" + frame(1)[12:]
        a.send(frame(2))
        assert receives(c) == frame(2)
        for port in b, trunk:
            with pytest.raises(qnet.Again):
                port.recv(0)
        assert {(entry["vlan"], entry["conn"]) for entry in hub.fdb()} == {(10, a), (20, b)}
        assert (hub.fdb_remove(vlan=30), hub.fdb_remove(vlan=20), len(hub.fdb())) == (0, 1, 1)
        trunk.vlan = None
        assert trunk.vlan == ""
        with pytest.raises(qnet.Invalid, match="access"):
            b.vlan = "nonsense"


def test_options_of_ports_are_those_of_connections() -> None:
    with qnet.Hub() as hub, hub.port() as a, hub.port() as b, hub.port() as c:
        a.set(isolated=1)
        b.set(isolated=1)
        assert (a.get("isolated"), c.get("isolated"), c.get("flood")) == (1, 0, 7)
        a.send(frame(1, source=MAC[0]))
        assert receives(c) == frame(1, source=MAC[0])
        for number, to in enumerate((MAC[0], MAC[3])):
            b.send(frame(number, to=to, source=MAC[1]))
        assert receives(c) == frame(1, to=MAC[3], source=MAC[1])
        assert hub.stats()["refused_isolated"] == 1
        c.send(frame(2))
        assert receives(b) == receives(a) == frame(2)


def test_listeners_give_their_peers_vlans_and_options(tmp_path: pathlib.Path) -> None:
    with qnet.Hub(move_ms=200) as hub, hub.port() as trunk:
        trunk.vlan = "trunk 10"
        listener = qnet.listen("unix", tmp_path / "sw", isolated=1)
        listener.vlan = "access 10"
        assert listener.vlan == "access 10"
        hub.serve(listener)
        with qnet.dial("unix", tmp_path / "sw") as a, qnet.dial("unix", tmp_path / "sw") as b:
            while hub.stats()["ports"] < 3:
                time.sleep(0.001)
            a.send(frame(1, source=MAC[1]))
            assert receives(trunk)[12:16] == b"\x81\0\0\x0a"
            b.send(frame(2, source=MAC[1]))  # too soon elsewhere
            b.send(frame(3, to=MAC[1], source=MAC[2]))  # which is isolated, too
            b.send(frame(4, source=MAC[2]))
            assert receives(trunk)[18:22] == frame(4)[14:18]
            assert (hub.stats()["refused_move"], hub.stats()["refused_isolated"]) == (1, 1)
            assert {conn.vlan for conn in hub.ports()} == {"trunk 10", "access 10"}


def test_table_has_what_is_added() -> None:
    with qnet.Hub() as hub, hub.port() as a, hub.port() as b:
        hub.fdb_add(MAC[0], 0, a)
        b.send(frame(1, to=MAC[0], source=MAC[1]))
        assert receives(a) == frame(1, to=MAC[0], source=MAC[1])
        entries = {entry["mac"]: entry for entry in hub.fdb()}
        assert [entries[mac]["conn"] for mac in MAC[:2]] == [a, b]
        assert entries[MAC[0]]["flags"] == qnet.constants["FDB_STATIC"] and entries[MAC[1]]["flags"] == 0
        assert (hub.fdb_remove(), hub.fdb_remove(MAC[0], 0), hub.fdb()) == (1, 1, [])
        with pytest.raises(ValueError):
            hub.fdb_add(b"short", 0, a)


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


def test_port_handler_sets_what_holds_from_the_first_frame_on_and_refuses(tmp_path: pathlib.Path) -> None:
    peers = Heard()

    def admit(conn: qnet.Conn, attached: bool) -> None:
        if not attached:
            return
        peers(conn)
        if len(peers) == 1:
            conn.vlan = "access 7"
        else:
            conn.close()

    with qnet.Hub() as hub, hub.port() as port, qnet.listen("tcp", "127.0.0.1:0") as listener:
        port.vlan = "trunk 7"
        hub.set_port_handler(admit)
        hub.serve(listener)
        with qnet.dial("tcp", listener.addr) as first:
            first.send(frame(1))
            assert receives(port) == frame(1)[:12] + b"\x81\0\0\x07" + frame(1)[12:]
            with qnet.dial("tcp", listener.addr) as second:
                with pytest.raises(qnet.Closed):
                    receives(second)
            with pytest.raises(qnet.Unsupported):
                first.peer_cred()
        assert len(peers) == 2
