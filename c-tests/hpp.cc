/*
 * hpp.cc - qnet.hpp: what it owns and when it lets go, and how failures come.
 */
#include <atomic>
#include <type_traits>

#include "check.h"
#include "qnet.hpp"

static const std::uint8_t some_frame[64] = { 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1 };

static_assert(!std::is_copy_constructible<qnet::conn>::value, "a connection has one owner");
static_assert(!std::is_copy_constructible<qnet::listener>::value, "so has a listener");
static_assert(!std::is_copy_constructible<qnet::hub>::value, "so has a hub");
static_assert(std::is_nothrow_move_constructible<qnet::conn>::value, "vectors move");
static_assert(std::is_nothrow_move_assignable<qnet::listener>::value, "vectors move");

/* Whether a handle is live. */
static int is_live(qnet_conn *handle)
{
    return qnet_close_reason(handle) != QNET_ERR_HANDLE;
}

static void closes_itself()
{
    qnet_conn *handle;
    {
        auto [a, b] = qnet::conn::pair();

        handle = a.get();
        CHECK(is_live(handle));
    }
    CHECK(!is_live(handle));
}

static void moves()
{
    auto [a, b] = qnet::conn::pair();
    qnet_conn *handle = a.get(), *other = b.get();
    qnet::conn moved(std::move(a));

    CHECK(!a);
    CHECK(moved.get() == handle);
    b = std::move(moved);
    CHECK(!is_live(other));
    CHECK(b.get() == handle && is_live(handle));
    b.reset();
    CHECK(!is_live(handle));
}

static void takes_over_handles()
{
    qnet_conn *a, *b;

    CHECK_INT(qnet_socketpair(&a, &b), QNET_OK);
    {
        qnet::conn one(a), other(b);
        qnet::conn_ref same(a);

        same.send(some_frame, sizeof some_frame);
        CHECK_INT(other.stats().rx_frames, 0);
    }
    CHECK(!is_live(a) && !is_live(b));
}

static void sends_and_receives()
{
    auto [a, b] = qnet::conn::pair();
    std::uint8_t buf[1000];
    qnet::frame frames[3] = { { some_frame, 64 }, { some_frame, 20 }, { some_frame, 14 } }, got[3];

    a.send(some_frame, sizeof some_frame);
    auto len = b.recv(buf, sizeof buf);
    CHECK(len && *len == sizeof some_frame && memcmp(buf, some_frame, *len) == 0);
    CHECK_INT(a.send(frames, 3), 3);
    a.flush();
    CHECK_INT(b.recv(got, 3), 3);
    CHECK_INT(got[1].len, 20);
    CHECK_INT(a.send(frames, 3), 3);
    std::size_t bytes = b.recv_packed(buf, sizeof buf);
    CHECK_INT(bytes, 64 + 20 + 14 + 3 * 4);
    CHECK_INT(b.send_packed(buf, bytes), 3);
    CHECK_INT(b.stats().tx_frames, 3);
}

static void nothing_yet_is_no_failure()
{
    auto [a, b] = qnet::conn::pair();
    std::uint8_t buf[100];
    qnet::frame frames[2];
    std::error_code ec = QNET_ERR_OS;

    CHECK(!a.recv(buf, sizeof buf, 0));
    CHECK(!a.recv(buf, sizeof buf, 1));
    CHECK_INT(a.recv(frames, 2, 0), 0);
    CHECK_INT(a.recv_packed(buf, sizeof buf, 0), 0);
    CHECK(!a.wait(0));
    CHECK(!a.recv(buf, sizeof buf, 0, ec));
    CHECK(!ec);
    CHECK(!qnet::listener::listen("tcp", "127.0.0.1:0").accept(0));
}

static void failures_are_exceptions()
{
    auto [a, b] = qnet::conn::pair();

    try {
        qnet::conn::dial("unix", "/nonexistent/vm.sock");
        CHECK(!"reached");
    } catch (const qnet::error &e) {
        CHECK(e.code() == QNET_ERR_REFUSED);
        CHECK(strstr(e.what(), "dial unix /nonexistent/vm.sock: No such file"));
    }
    try {
        a.send(some_frame, 13);
        CHECK(!"reached");
    } catch (const std::system_error &e) {
        CHECK(e.code() == QNET_ERR_FRAME_SIZE);
    }
}

static void failures_are_codes()
{
    auto [a, b] = qnet::conn::pair();
    std::uint8_t buf[100];
    std::error_code ec;

    CHECK(!qnet::conn::dial("unix", "/nonexistent/vm.sock", {}, ec));
    CHECK(ec == QNET_ERR_REFUSED);
    CHECK(ec.message() == qnet_strerror(QNET_ERR_REFUSED));
    CHECK(!qnet::listener::listen("tcp", "nonsense", ec));
    CHECK(ec == QNET_ERR_INVALID);
    a.send(some_frame, sizeof some_frame, ec);
    CHECK(!ec);
    a.reset();
    CHECK(b.recv(buf, sizeof buf, -1, ec) && !ec);
    CHECK(!b.recv(buf, sizeof buf, -1, ec));
    CHECK(ec == QNET_ERR_CLOSED);
}

static void dials_with_options()
{
    auto listener = qnet::listener::listen("tcp", "127.0.0.1:0");
    auto a = qnet::conn::dial("tcp", listener.addr(),
                              { { QNET_OPT_MAX_FRAME, 1514 }, { QNET_OPT_PAD, 1 } });
    auto b = listener.accept();

    CHECK_INT(a.get(QNET_OPT_MAX_FRAME), 1514);
    CHECK(b.local_addr() == listener.addr());
    CHECK(a.peer_addr() == listener.addr());
    a.send(some_frame, 14);
    std::uint8_t buf[100];
    CHECK_INT(b.recv(buf, sizeof buf).value(), 60);
}

/* What a handler holds lives until it can never be called again. */
static void handlers_let_go()
{
    auto [a, b] = qnet::conn::pair();
    auto held = std::make_shared<int>(0);
    std::weak_ptr<int> alive = held;
    int reason = 0;

    b.on_close([&reason, held](int why) { reason = why; });
    b.on_frame([held](const std::uint8_t *, std::size_t len) { *held += (int)len; });
    held.reset();
    a.send(some_frame, 64);
    a.send(some_frame, 20);
    a.reset();
    CHECK(b.wait());
    CHECK_INT(reason, QNET_ERR_CLOSED);
    CHECK_INT(*alive.lock(), 84);
    b.reset();
    CHECK(alive.expired());
}

static void handlers_are_replaced()
{
    auto [a, b] = qnet::conn::pair();
    int first = 0, second = 0;

    b.on_frame([&](const std::uint8_t *, std::size_t) { first++; });
    a.send(some_frame, 64);
    while (b.stats().rx_frames < 1)
        usleep(100);
    b.on_batch([&](const qnet::frame *, std::size_t count) { second += (int)count; });
    a.send(some_frame, 64);
    while (b.stats().rx_frames < 2)
        usleep(100);
    b.no_handler();
    CHECK_INT(first, 1);
    CHECK_INT(second, 1);
    a.send(some_frame, 64);
    std::uint8_t buf[100];
    CHECK(b.recv(buf, sizeof buf).has_value());
}

static void reconnecting_is_told()
{
    auto listener = qnet::listener::listen("tcp", "127.0.0.1:0");
    auto a = qnet::conn::dial("tcp", listener.addr(), { { QNET_OPT_RECONNECT_MS, 1 } });
    std::atomic<int> downs(0), ups(0);

    a.on_state([&](bool up) { (up ? ups : downs)++; });
    a.on_frame([](const std::uint8_t *, std::size_t) {});
    listener.accept().reset();
    while (ups < 1)
        usleep(100);
    CHECK_INT(downs, 1);
    CHECK_INT(a.stats().reconnects, 1);
    a.reset();
}

/* A connection may go inside its own handler, which lives until it has returned. */
static void closes_inside_its_handler()
{
    auto [a, b] = qnet::conn::pair();
    auto held = std::make_shared<int>(0);
    auto own = std::make_shared<qnet::conn>(std::move(b));
    std::weak_ptr<int> alive = held;

    own->on_frame([own, held](const std::uint8_t *, std::size_t) {
        own->reset();
        ++*held;
    });
    own.reset();
    held.reset();
    a.send(some_frame, 64);
    while (!alive.expired())
        usleep(100);
}

static void a_close_handler_alone_is_called()
{
    auto [a, b] = qnet::conn::pair();
    int calls = 0;

    a.on_close([&](int) { calls = -1; });
    a.on_close([&](int) { calls++; });
    a.reset();
    CHECK_INT(calls, 1);
}

/* As of qnet_set_close_handler(): once, also where another handler was there when it ended. */
static void close_handlers_set_after_the_end()
{
    auto [a, b] = qnet::conn::pair();
    int calls = 0, reason = 0;

    a.on_frame([](const std::uint8_t *, std::size_t) {});
    b.reset();
    CHECK(a.wait());
    a.on_close([&](int why) { calls++; reason = why; });
    CHECK_INT(calls, 1);
    CHECK_INT(reason, QNET_ERR_CLOSED);
    a.on_close([&](int) { calls++; });
    a.reset();
    CHECK_INT(calls, 1);
}

static void hubs_forward()
{
    qnet::hub hub;
    auto a = hub.port(), b = hub.port();
    auto listener = qnet::listener::listen("tcp", "127.0.0.1:0");
    std::uint8_t buf[100];

    hub.serve(listener);
    auto c = qnet::conn::dial("tcp", listener.addr());
    while (hub.stats().ports < 3)
        usleep(100);
    CHECK_INT(hub.ports().size(), 3);
    a.send(some_frame, sizeof some_frame);
    CHECK(b.recv(buf, sizeof buf).has_value());
    CHECK(c.recv(buf, sizeof buf).has_value());
    hub.reset();
    CHECK(c.wait());
    CHECK_INT(qnet_listener_fd(listener.get()), QNET_ERR_HANDLE);
}

static void links_forward()
{
    auto [a, b] = qnet::conn::pair();
    auto [c, d] = qnet::conn::pair();
    std::uint8_t buf[100];

    qnet::link(b, c);
    a.send(some_frame, sizeof some_frame);
    CHECK(d.recv(buf, sizeof buf).has_value());
    qnet::unlink(b);
    CHECK(!d.recv(buf, sizeof buf, 0));
}

static void datagrams_and_their_netdev()
{
    auto a = qnet::conn::dgram("udp", "127.0.0.1:0", "127.0.0.1:9");
    auto b = qnet::conn::dgram("udp", "127.0.0.1:0", a.local_addr());

    CHECK(b.peer_addr() == a.local_addr());
    CHECK(b.netdev("n0", 702).find("dgram,id=n0,local.type=inet") == 0);
    try {
        b.netdev("", 702);
        CHECK(!"reached");
    } catch (const qnet::error &e) {
        CHECK(e.code() == QNET_ERR_INVALID);
    }
}

static void descriptors_change_hands()
{
    auto [a, fd] = qnet::conn::pair_with_fd();
    auto b = qnet::conn::from_fd(fd);
    std::uint8_t buf[100];

    b.send(some_frame, sizeof some_frame);
    CHECK(a.recv(buf, sizeof buf).has_value());
    CHECK_INT(b.fd(), fd);
}

int main()
{
    RUN(closes_itself);
    RUN(moves);
    RUN(takes_over_handles);
    RUN(sends_and_receives);
    RUN(nothing_yet_is_no_failure);
    RUN(failures_are_exceptions);
    RUN(failures_are_codes);
    RUN(dials_with_options);
    RUN(handlers_let_go);
    RUN(handlers_are_replaced);
    RUN(reconnecting_is_told);
    RUN(closes_inside_its_handler);
    RUN(a_close_handler_alone_is_called);
    RUN(close_handlers_set_after_the_end);
    RUN(hubs_forward);
    RUN(links_forward);
    RUN(datagrams_and_their_netdev);
    RUN(descriptors_change_hands);
    return check_done();
}
