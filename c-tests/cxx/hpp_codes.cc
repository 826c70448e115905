/*
 * hpp_codes.cc - qnet.hpp without exceptions (-fno-exceptions): every form that takes a
 * std::error_code, where it succeeds and where it fails.
 */
#include <list>

#include "hpp/hpp.h"
#include "hpp/takes.h"

static_assert(!std::is_default_constructible<qnet::hub>::value, "what would throw is left out");

/* Makes a call, or a check of its result, which has to replace the code in `ec` with `code`. */
#define CHECK_CODE(call, code)                                                 \
    do {                                                                       \
        ec = QNET_ERR_INTERNAL;                                                \
        call;                                                                  \
        CHECK(ec == (code));                                                   \
    } while (0)
#define CHECK_OK(call) CHECK_CODE(call, std::error_code())

static void frames_go_and_come()
{
    std::error_code ec;
    auto [a, b] = qnet::conn::pair(ec);
    std::vector<std::uint8_t> buf(1000);
    std::array<qnet::frame, 2> frames{{{some_frame, 64}, {some_frame, 20}}}, got;
    std::size_t bytes = 0;

    CHECK_OK(a.send(some_frame, ec));
    CHECK_OK(a.send(some_frame, 20, ec));
    CHECK_OK(CHECK_INT(b.recv(buf, 1000, ec).value(), 64));
    CHECK_OK(CHECK_INT(b.recv(buf.data(), buf.size(), -1, ec).value(), 20));
    CHECK_OK(CHECK_INT(a.send_batch(frames, ec), 2));
    CHECK_OK(CHECK_INT(a.send_batch(frames.data(), 2, ec), 2));
    CHECK_OK(a.flush(ec));
    CHECK_OK(CHECK_INT(b.recv_batch(got, -1, ec), 2));
    CHECK_OK(bytes = b.recv_packed(buf.data(), buf.size(), -1, ec));
    CHECK_OK(CHECK_INT(b.send_packed(buf.data(), bytes, ec), 2));
    CHECK_OK(CHECK(!b.recv(buf, 0, ec)));
    CHECK_OK(CHECK(!b.wait(0, ec)));
    CHECK_OK(CHECK(b.fd(ec) >= 0));
    CHECK_OK(CHECK_INT(b.stats(ec).tx_frames, 2));
    CHECK_OK(CHECK_INT(qnet::poll({a, b}, 0, ec).size(), 1));
    CHECK_OK(a.set(QNET_OPT_PAD, 1, ec));
    CHECK_OK(CHECK_INT(a.get(QNET_OPT_PAD, ec), 1));
    CHECK_OK(a.set_hwaddr({2, 3, 4, 5, 6, 7}, ec));
    CHECK_OK(CHECK_INT(a.hwaddr(ec)[5], 7));
    CHECK_OK(CHECK(a.local_addr(ec).empty() && a.peer_addr(ec).empty()));
    CHECK_OK(a.shutdown(ec));
    CHECK_CODE(a.send(some_frame, ec), QNET_ERR_CLOSED);
    CHECK_INT(a.close_reason(), QNET_ERR_CLOSED);
}

static void functions_are_set()
{
    std::error_code ec;
    auto listener = qnet::listener::listen("tcp", "127.0.0.1:0", ec);
    auto a = qnet::conn::dial("tcp", listener.addr(ec), {}, ec);
    auto b = listener.accept(-1, ec);
    std::atomic<int> frames(0), ends(0);

    CHECK_OK(a.on_frame([&](const std::uint8_t *, std::size_t) { ++frames; }, ec));
    CHECK_OK(b.send(some_frame, ec));
    await([&] { return frames == 1; });
    CHECK_OK(a.on_batch([&](const qnet::frame *, std::size_t) { ++frames; }, ec));
    CHECK_OK(a.on_state([&](bool) { ++frames; }, ec));
    CHECK_OK(a.on_close([&](int) { ++ends; }, ec));
    CHECK_OK(a.on_batch(nullptr, ec));
    CHECK_OK(a.on_state(nullptr, ec));
    CHECK_CODE(b.on_state([](bool) {}, ec), QNET_ERR_UNSUPPORTED);
    a.reset();
    CHECK_INT(frames, 1);
    CHECK_INT(ends, 1);
}

static void the_other_ways_to_connect()
{
    std::error_code ec;
    auto [a, fd] = qnet::conn::pair_with_fd(ec);
    auto b = qnet::conn::from_fd(fd, ec);
    auto listener = qnet::listener::listen("tcp", "127.0.0.1:0", ec);
    auto c = qnet::conn::dgram("udp", "127.0.0.1:0", "127.0.0.1:9", ec);

    CHECK(a && b && c && !ec);
    CHECK_OK(CHECK(c.netdev("n0", 702, ec).find("dgram,id=n0") == 0));
    CHECK_OK(CHECK(listener.netdev("n0", 702, ec).find("stream,id=n0") == 0));
    CHECK_OK(CHECK(listener.fd(ec) >= 0));
    CHECK_OK(listener.set(QNET_OPT_PAD, 1, ec));
    CHECK_OK(CHECK_INT(listener.get(QNET_OPT_PAD, ec), 1));
    CHECK_OK(CHECK(!listener.accept(0, ec)));
    CHECK_CODE(qnet::conn::from_fd(-1, ec), QNET_ERR_INVALID);
    CHECK_CODE(qnet::listener::from_fd(-1, ec), QNET_ERR_INVALID);
    CHECK_CODE(qnet::conn::tap("a/b", ec), QNET_ERR_INVALID);
    CHECK_CODE(qnet::conn::dgram("udp", "nonsense", "nonsense", ec), QNET_ERR_INVALID);
}

static void forwarding()
{
    std::error_code ec;
    qnet::hub hub(ec);
    auto [a, b] = qnet::conn::pair(ec);
    auto [c, d] = qnet::conn::pair(ec);
    auto port = hub.port(ec);
    auto listener = qnet::listener::listen("tcp", "127.0.0.1:0", ec);
    std::uint8_t buf[100];

    CHECK(hub && port && !ec);
    CHECK_OK(hub.attach(a, ec));
    CHECK_OK(CHECK_INT(hub.ports(ec).size(), 2));
    CHECK_OK(CHECK_INT(hub.stats(ec).ports, 2));
    CHECK_OK(hub.detach(a, ec));
    CHECK_CODE(hub.detach(a, ec), QNET_ERR_INVALID);
    CHECK_OK(hub.set(QNET_OPT_MAC_MAX, 9, ec));
    CHECK_OK(CHECK_INT(hub.get(QNET_OPT_MAC_MAX, ec), 9));
    CHECK_OK(CHECK_INT(port.peer_cred(ec).pid, getpid()));
    CHECK_OK(hub.set_port_handler(nullptr, nullptr, ec));
    CHECK_OK(hub.serve(listener, ec));
    CHECK_OK(qnet::link(b, c, ec));
    CHECK_OK(d.send(some_frame, ec));
    CHECK_OK(CHECK(a.recv(buf, sizeof buf, -1, ec).has_value()));
    CHECK_OK(qnet::unlink(b, ec));
    CHECK_CODE(qnet::unlink(b, ec), QNET_ERR_INVALID);
}

static void captures()
{
    std::error_code ec;
    qnet::hub hub(ec);
    auto [a, b] = qnet::conn::pair(ec);

    auto capture = qnet::capture::open("/dev/null", {}, ec);
    CHECK(capture && !ec);
    CHECK_OK(capture.add(a, "a", ec));
    CHECK_CODE(capture.add(a, "", ec), QNET_ERR_BUSY);
    CHECK_OK(capture.add(hub, "", ec));
    CHECK_OK(capture.note("x", ec));
    CHECK_OK(a.send(some_frame, ec));
    CHECK_OK(CHECK_INT(capture.stats(ec).frames, 1));
    CHECK_OK(capture.remove(a, ec));
    CHECK_CODE(capture.remove(a, ec), QNET_ERR_INVALID);
    CHECK_CODE(CHECK(!qnet::capture::open_fd(-1, {}, ec)), QNET_ERR_INVALID);
    CHECK_CODE(CHECK(!qnet::capture::open("/", {}, ec)), QNET_ERR_OS);
}

static void clocks()
{
    std::error_code ec;
    qnet::clock clock(ec), none(nullptr);
    qnet::hub hub(ec);
    auto [a, b] = qnet::conn::pair(ec);
    auto [c, d] = qnet::conn::pair(ec);
    std::uint8_t buf[100];

    CHECK(clock && !ec);
    CHECK_OK(hub.set_clock(clock, ec));
    CHECK_OK(hub.set_clock(nullptr, ec));
    CHECK_OK(qnet::link(clock, b, c, ec));
    CHECK_OK(d.send(some_frame, ec));
    CHECK_OK(CHECK_INT(clock.advance(5, ec), 1));
    CHECK_OK(CHECK(a.recv(buf, sizeof buf, 0, ec).has_value()));
    CHECK_OK(CHECK_INT(clock.times(ec).now, 5));
    CHECK_CODE(CHECK_INT(clock.advance(4, ec), 0), QNET_ERR_INVALID);
    CHECK_CODE(CHECK_INT(none.advance(4, ec), 0), QNET_ERR_HANDLE);
    CHECK_CODE(CHECK(none.times(ec).next == INT64_MAX), QNET_ERR_HANDLE);
    CHECK_CODE(qnet::link(none, b, c, ec), QNET_ERR_HANDLE);
    CHECK_OK(qnet::unlink(b, ec));
}

/* The result of a failed call is empty, or 0, or -1 for a descriptor. */
static void nothing_comes_of_failures()
{
    qnet::conn none;
    qnet::listener nobody;
    qnet::hub nowhere(nullptr);
    std::uint8_t buf[100];
    qnet::frame frames[2];
    auto is = QNET_ERR_HANDLE;
    std::error_code ec;

    CHECK_CODE(none.send(some_frame, ec), is);
    CHECK_CODE(CHECK_INT(none.send_batch(frames, ec), 0), is);
    CHECK_CODE(CHECK_INT(none.send_packed(buf, ec), 0), is);
    CHECK_CODE(none.flush(ec), is);
    CHECK_CODE(CHECK(!none.recv(buf, sizeof buf, -1, ec)), is);
    CHECK_CODE(CHECK_INT(none.recv_batch(frames, -1, ec), 0), is);
    CHECK_CODE(CHECK_INT(none.recv_packed(buf, -1, ec), 0), is);
    CHECK_CODE(CHECK_INT(none.fd(ec), -1), is);
    CHECK_CODE(CHECK(!none.wait(-1, ec)), is);
    CHECK_CODE(none.shutdown(ec), is);
    CHECK_CODE(CHECK_INT(none.hwaddr(ec)[0], 0), is);
    CHECK_CODE(none.set_hwaddr({}, ec), is);
    CHECK_CODE(CHECK(none.local_addr(ec).empty()), is);
    CHECK_CODE(CHECK(none.peer_addr(ec).empty()), is);
    CHECK_CODE(CHECK(none.netdev("n0", 702, ec).empty()), is);
    CHECK_CODE(CHECK_INT(none.stats(ec).rx_frames, 0), is);
    CHECK_CODE(none.set(QNET_OPT_PAD, 1, ec), is);
    CHECK_CODE(CHECK_INT(none.get(QNET_OPT_PAD, ec), 0), is);
    CHECK_CODE(none.on_frame([](const std::uint8_t *, std::size_t) {}, ec), is);
    CHECK_CODE(none.on_batch(nullptr, ec), is);
    CHECK_CODE(none.on_state(nullptr, ec), is);
    CHECK_CODE(none.on_close([](int) {}, ec), is);
    CHECK_CODE(CHECK(!nobody.accept(-1, ec)), is);
    CHECK_CODE(CHECK_INT(nobody.fd(ec), -1), is);
    CHECK_CODE(CHECK(nobody.addr(ec).empty()), is);
    CHECK_CODE(nobody.set(QNET_OPT_PAD, 1, ec), is);
    CHECK_CODE(CHECK_INT(nobody.get(QNET_OPT_PAD, ec), 0), is);
    CHECK_CODE(nowhere.attach(none, ec), is);
    CHECK_CODE(CHECK(!nowhere.port(ec)), is);
    CHECK_CODE(nowhere.serve(nobody, ec), is);
    CHECK_CODE(CHECK(nowhere.ports(ec).empty()), is);
    CHECK_CODE(CHECK_INT(nowhere.stats(ec).ports, 0), is);
    CHECK_CODE(nowhere.set(QNET_OPT_MAC_MAX, 1, ec), is);
    CHECK_CODE(CHECK_INT(nowhere.get(QNET_OPT_MAC_MAX, ec), 0), is);
    CHECK_CODE(qnet::link(none, none, ec), is);
    CHECK_CODE(CHECK(qnet::poll(std::list<qnet::conn_ref>(), 0, ec).empty()), QNET_ERR_INVALID);
    CHECK_CODE(CHECK(!qnet::conn::dial("unix", "/nonexistent", {}, ec)), QNET_ERR_REFUSED);
    CHECK_CODE(CHECK(!qnet::conn::dial("unix", "x", {{QNET_OPT_PAD, 7}}, ec)), QNET_ERR_INVALID);
}

int main()
{
    RUN(frames_go_and_come);
    RUN(functions_are_set);
    RUN(the_other_ways_to_connect);
    RUN(forwarding);
    RUN(captures);
    RUN(clocks);
    RUN(nothing_comes_of_failures);
    return check_done();
}
