/*
 * hpp.cc - qnet.hpp: what its objects own, what they take, and how failures are
 * reported. hpp_functions.cc tests how long functions are kept, and
 * hpp_codes.cc the forms without exceptions.
 */
#include <dlfcn.h>

#include <atomic>
#include <list>
#include <map>
#include <thread>
#include <type_traits>

#include "check.h"
#include "hpp/hpp.h"
#include "hpp/plugin.h"
#include "hpp/takes.h"

using namespace std::chrono_literals;

static_assert(!std::is_copy_constructible<qnet::conn>::value, "a connection has one owner");
static_assert(!std::is_copy_constructible<qnet::listener>::value, "so has a listener");
static_assert(!std::is_copy_constructible<qnet::hub>::value, "so has a hub");
static_assert(std::is_nothrow_move_constructible<qnet::conn>::value, "vectors move");
static_assert(std::is_nothrow_move_assignable<qnet::listener>::value, "vectors move");
static_assert(std::is_nothrow_move_assignable<qnet::hub>::value, "vectors move");

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
    CHECK_INT(a.send_batch(frames, 3), 3);
    a.flush();
    CHECK_INT(b.recv_batch(got, 3), 3);
    CHECK_INT(got[1].len, 20);
    CHECK_INT(a.send_batch(frames), 3);
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
    CHECK_INT(a.recv_batch(frames, 2, 0), 0);
    CHECK_INT(a.recv_batch(frames, 1us), 0);
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
        check_fail(__FILE__, __LINE__, "nothing was thrown");
    } catch (const qnet::error &e) {
        CHECK(e.code() == QNET_ERR_REFUSED);
        CHECK(strcmp(e.what(), "dial unix /nonexistent/vm.sock: No such file or directory "
                               "(os error 2)") == 0);
    }
    try {
        a.send(some_frame, 13);
        check_fail(__FILE__, __LINE__, "nothing was thrown");
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

/* Three codes leave no error text: what() then gives the text of qnet_strerror(). */
static void what_is_said_without_a_text()
{
    auto [a, b] = qnet::conn::pair();
    qnet::error e(QNET_ERR_AGAIN), copy(e);

    CHECK(strcmp(copy.what(), qnet_strerror(QNET_ERR_AGAIN)) == 0);
}

static void codes_are_the_systems()
{
    std::error_code ec = QNET_ERR_REFUSED;

    CHECK(ec == std::errc::connection_refused);
    CHECK(ec != std::errc::timed_out);
    CHECK(make_error_code(QNET_ERR_TIMEOUT) == std::errc::timed_out);
    CHECK(make_error_code(QNET_ERR_AGAIN) == std::errc::operation_would_block);
    CHECK(make_error_code(QNET_ERR_INVALID) == std::errc::invalid_argument);
    CHECK(make_error_code(QNET_ERR_HANDLE) == std::errc::bad_file_descriptor);
    CHECK(make_error_code(QNET_ERR_INTERRUPTED) == std::errc::interrupted);
    CHECK(std::error_code(-99, qnet::category()) != std::errc::io_error);
    CHECK(QNET_ERR_REFUSED == ec && QNET_ERR_OS != ec && ec != QNET_ERR_OS);
    CHECK(std::error_code(QNET_ERR_REFUSED, std::generic_category()) != QNET_ERR_REFUSED);
}

static void *in_plugin(const char *name)
{
    static void *plugin = dlopen(HPP_PLUGIN, RTLD_NOW | RTLD_LOCAL);

    if (!plugin)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(plugin);
    return dlsym(plugin, name);
}
#define IN_PLUGIN(name) reinterpret_cast<decltype(&name)>(in_plugin(#name))

/*
 * A shared object with hidden symbols has an error category of its own, but
 * codes compare as equal.
 */
static void codes_are_the_same_in_a_plugin()
{
    std::error_code ec;

    IN_PLUGIN(plugin_dial)(ec);
    CHECK(ec == QNET_ERR_REFUSED);
    CHECK(ec == std::errc::connection_refused);
    CHECK(ec != QNET_ERR_OS);
    CHECK(IN_PLUGIN(plugin_knows)(QNET_ERR_REFUSED));
    CHECK(qnet::category().equivalent(ec, QNET_ERR_REFUSED));
    try {
        IN_PLUGIN(plugin_dial_throwing)();
        check_fail(__FILE__, __LINE__, "nothing was thrown");
    } catch (const qnet::error &e) {
        CHECK(e.code() == QNET_ERR_REFUSED);
    }
}

static void functions_of_a_plugin()
{
    auto [a, b] = qnet::conn::pair();
    std::atomic<int> theirs(0), mine(0);
    int ends = 0;

    IN_PLUGIN(plugin_count)(b, theirs, ends);
    a.send(some_frame);
    await([&] { return theirs == 1; });
    b.on_frame([&](const std::uint8_t *, std::size_t) { ++mine; });
    a.send(some_frame);
    await([&] { return mine == 1; });
    IN_PLUGIN(plugin_count)(b, theirs, ends);
    a.send(some_frame);
    await([&] { return theirs == 2; });
    b.reset();
    CHECK_INT(ends, 1);
}

static void sends_what_has_bytes()
{
    auto [a, b] = qnet::conn::pair();
    std::vector<std::uint8_t> vector(60), into(1000);
    std::array<std::byte, 40> array{};
    std::string text(30, 'x');
    std::vector<qnet::frame> frames{{vector.data(), 60}, {vector.data(), 59}};
    std::array<qnet::frame, 4> got;

    a.send(vector);
    a.send(array);
    a.send(std::string_view(text).substr(2));
    a.send(static_cast<const void *>(some_frame), 20);
    for (int len : {60, 40, 28, 20})
        CHECK_INT(b.recv(into).value(), len);
    CHECK_INT(a.send_batch(frames), 2);
    CHECK_INT(b.recv_batch(got, 10s), 2);
    CHECK_INT(got[1].len, 59);
#if __cplusplus >= 202002L
    a.send(std::span<const std::uint8_t>(vector).first(33));
    CHECK_INT(b.recv(std::span<std::uint8_t>(into).first(40), 10s).value(), 33);
#endif
}

static void times_are_rounded_up()
{
    using hours = std::chrono::hours;

    CHECK_INT(qnet::timeout().ms(), -1);
    CHECK_INT(qnet::timeout(-1).ms(), -1);
    CHECK_INT(qnet::timeout(7).ms(), 7);
    CHECK_INT(qnet::timeout(0s).ms(), 0);
    CHECK_INT(qnet::timeout(1ns).ms(), 1);
    CHECK_INT(qnet::timeout(1500us).ms(), 2);
    CHECK_INT(qnet::timeout(2s).ms(), 2000);
    CHECK_INT(qnet::timeout(-5s).ms(), 0);
    CHECK_INT(qnet::timeout(2147483647ms).ms(), 2147483647);
    CHECK_INT(qnet::timeout(2147483648ms).ms(), -1);
    CHECK_INT(qnet::timeout(hours::max()).ms(), -1);
    CHECK_INT(qnet::timeout(hours::min()).ms(), 0);
    CHECK_INT(qnet::timeout(std::chrono::duration<double>(0.0101)).ms(), 11);
}

/* Texts need not end with a NUL, and one that has a NUL inside is not cut there. */
static void texts_are_views()
{
    std::string both = "unix@qnet-hpp-" + std::to_string(getpid()) + "-not-this";
    std::string_view network = std::string_view(both).substr(0, 4);
    std::string_view address = std::string_view(both).substr(4, both.size() - 13);
    auto listener = qnet::listener::listen(network, address);
    std::error_code ec;

    CHECK(listener.addr() == address);
    CHECK(qnet::conn::dial(network, address));
    CHECK(!qnet::conn::dial("unix", std::string_view("@a\0b", 4), {}, ec));
    CHECK(ec == QNET_ERR_INVALID);
    CHECK(!qnet::listener::listen("unix", std::string_view("@a\0b", 4), ec));
    CHECK(ec == QNET_ERR_INVALID);
    CHECK(listener.netdev(std::string_view("n0!", 2), 702, ec).find("stream,id=n0,") == 0);
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

    std::vector<std::pair<qnet::option, std::int64_t>> vector{{QNET_OPT_PAD, 1}};
    std::map<qnet::option, int> map{{QNET_OPT_MAX_FRAME, 200}, {QNET_OPT_LINGER_MS, 9}};
    qnet::options kept{{QNET_OPT_MAX_FRAME, 300}}, same(kept);
    CHECK_INT(qnet::conn::dial("tcp", listener.addr(), vector).get(QNET_OPT_PAD), 1);
    CHECK_INT(qnet::conn::dial("tcp", listener.addr(), map).get(QNET_OPT_LINGER_MS), 9);
    CHECK_INT(qnet::conn::dial("tcp", listener.addr(), same).get(QNET_OPT_MAX_FRAME), 300);
    CHECK_INT(qnet::conn::dial("tcp", listener.addr(), {}).get(QNET_OPT_PAD), 0);
}

static void handles_are_released()
{
    auto [a, b] = qnet::conn::pair();
    auto listener = qnet::listener::listen("tcp", "127.0.0.1:0");
    qnet::hub hub;
    qnet_conn *conn = a.release();
    qnet_listener *listening = listener.release();
    qnet_hub *forwarding = hub.release();

    CHECK(!a && !listener && !hub);
    a.reset();
    CHECK(is_live(conn));
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK_INT(qnet_listener_close(listening), QNET_OK);
    CHECK_INT(qnet_hub_close(forwarding), QNET_OK);
}

/* Functions that were set before a handle is released go on being called. */
static void a_released_handle_keeps_its_functions()
{
    auto [a, b] = qnet::conn::pair();
    auto held = std::make_shared<int>(0);
    std::weak_ptr<int> alive = held;
    std::atomic<int> frames(0), ends(0);

    b.on_frame([&, held](const std::uint8_t *, std::size_t) { ++frames; });
    b.on_close([&, held](int) { ++ends; });
    held.reset();
    qnet_conn *handle = b.release();
    a.send(some_frame);
    await([&] { return frames == 1; });
    CHECK_INT(qnet_close(handle), QNET_OK);
    CHECK_INT(ends, 1);
    CHECK(alive.expired());
}

static void hubs_may_be_none()
{
    qnet::hub none(nullptr), hub = nullptr;
    std::error_code ec;

    CHECK(!none);
    none.port(ec);
    CHECK(ec == QNET_ERR_HANDLE);
    hub = qnet::hub();
    CHECK(hub);
    hub.port();
    none = std::move(hub);
    CHECK(none && !hub);
    CHECK(qnet::hub(ec) && !ec);
}

static void polls()
{
    std::vector<qnet::conn> ours, theirs;
    std::error_code ec;

    for (int i = 0; i < 3; i++) {
        auto [a, b] = qnet::conn::pair();
        ours.push_back(std::move(a));
        theirs.push_back(std::move(b));
    }
    CHECK(qnet::poll(ours, 0).empty());
    CHECK(qnet::poll(ours, 1ms, ec).empty() && !ec);
    theirs[2].send(some_frame);
    CHECK(qnet::poll(ours) == std::vector<std::size_t>{2});
    theirs[0].reset();
    CHECK((qnet::poll(ours) == std::vector<std::size_t>{0, 2}));
    CHECK(qnet::poll({ours[1], ours[2]}, 10s) == std::vector<std::size_t>{1});
    CHECK(qnet::poll(std::list<qnet::conn_ref>{ours[2]}) == std::vector<std::size_t>{0});
    CHECK(qnet::poll(std::vector<qnet::conn>(), 0, ec).empty());
    CHECK(ec == QNET_ERR_INVALID);
}

static void references_are_compared()
{
    auto [a, b] = qnet::conn::pair();
    qnet::hub hub;

    hub.attach(a);
    CHECK(hub.ports().at(0) == a);
    CHECK(hub.ports().at(0) != b);
    hub.detach(a);
    CHECK(hub.ports().empty());
}

static void hubs_forward()
{
    qnet::hub hub;
    auto a = hub.port(), b = hub.port();
    auto listener = qnet::listener::listen("tcp", "127.0.0.1:0");
    std::atomic<int> told{0};
    std::uint8_t buf[100];

    hub.set_port_handler([](void *to, qnet_conn *, int) { ++*static_cast<std::atomic<int> *>(to); },
                         &told);
    hub.serve(listener);
    auto c = qnet::conn::dial("tcp", listener.addr());
    while (hub.stats().ports < 3)
        usleep(100);
    CHECK_INT(hub.ports().size(), 3);
    a.send(some_frame, sizeof some_frame);
    CHECK(b.recv(buf, sizeof buf).has_value());
    CHECK(c.recv(buf, sizeof buf).has_value());
    CHECK_INT(a.peer_cred().pid, getpid());
    hub.reset();
    CHECK_INT(told, 2);
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

/* Impairments are texts, of a connection or a listener, and are counted. */
static void links_are_impaired()
{
    auto listener = qnet::listener::listen("tcp", "127.0.0.1:0");
    listener.impair(QNET_BOTH, "loss every 2 seed 7");
    CHECK(listener.impairment(QNET_OUT) == "loss every 2 seed 7");
    auto a = qnet::conn::dial("tcp", listener.addr());
    auto b = listener.accept();
    auto [c, d] = qnet::conn::pair();
    std::uint8_t buf[100];
    std::error_code ec;

    CHECK(b.impairment(QNET_IN) == "loss every 2 seed 7");
    b.impair(QNET_OUT, "");
    CHECK(b.impairment(QNET_OUT).empty());
    c.impair(QNET_OUT, "delay 1ms seed 1");
    CHECK(c.impairment(QNET_OUT) == "delay 1ms seed 1");
    qnet::link(b, c);
    a.send(some_frame, 60);
    a.send(some_frame, 61);
    a.send(some_frame, 62);
    CHECK_INT(d.recv(buf, sizeof buf).value(), 60);
    CHECK_INT(d.recv(buf, sizeof buf).value(), 62);
    qnet::impair_stats stats = b.impair_stats(QNET_IN);
    CHECK_INT(stats.frames, 3);
    CHECK_INT(stats.lost, 1);
    CHECK_INT(c.impair_stats(QNET_OUT, ec).passed, 2);
    CHECK(!ec);
    c.impair(QNET_IN, "delay 1", ec);
    CHECK_INT(ec.value(), QNET_ERR_INVALID);
    c.impair(QNET_IN, std::string_view("\0", 1), ec);
    CHECK_INT(ec.value(), QNET_ERR_INVALID);
    listener.impair(QNET_IN, std::string_view("\0", 1), ec);
    CHECK_INT(ec.value(), QNET_ERR_INVALID);
    listener.impair(static_cast<qnet::direction>(0), "", ec);
    CHECK_INT(ec.value(), QNET_ERR_INVALID);
    c.impairment(QNET_BOTH, ec);
    CHECK_INT(ec.value(), QNET_ERR_INVALID);
    listener.impairment(QNET_BOTH, ec);
    CHECK_INT(ec.value(), QNET_ERR_INVALID);
}

/* VLANs are texts, of a connection or a listener, and a hub's table is a vector. */
static void hubs_have_vlans()
{
    qnet::hub hub;
    auto listener = qnet::listener::listen("tcp", "127.0.0.1:0");
    auto device = hub.port();
    const qnet::mac mac{2, 0, 0, 0, 0, 7}, group{3};
    std::error_code ec;

    listener.set_vlan("Trunk 3,1");
    CHECK(listener.vlan() == "trunk 1,3");
    listener.set_vlan(std::string_view("\0", 1), ec);
    CHECK_INT(ec.value(), QNET_ERR_INVALID);
    device.set_vlan("access 10");
    CHECK(device.vlan() == "access 10");
    CHECK(hub.ports().at(0).vlan() == "access 10");
    device.set_vlan(std::string_view("\0", 1), ec);
    CHECK_INT(ec.value(), QNET_ERR_INVALID);
    CHECK(hub.fdb().empty());
    hub.fdb_add(mac, 10, device);
    hub.fdb_add(mac, 20, device);
    CHECK_INT(hub.fdb().size(), 2);
    CHECK(hub.fdb()[0].conn == device.get());
    CHECK_INT(hub.fdb()[0].flags, QNET_FDB_STATIC);
    CHECK_INT(hub.fdb_forget(-1), 0);
    CHECK_INT(hub.fdb_remove(mac, 10), 1);
    CHECK_INT(hub.fdb().at(0).vlan, 20);
    hub.fdb_add(group, 0, device, ec);
    CHECK_INT(ec.value(), QNET_ERR_INVALID);
    CHECK_INT(hub.fdb_remove(group, 0, ec), 0);
    CHECK_INT(ec.value(), QNET_ERR_INVALID);
    hub.fdb_forget(4095, ec);
    CHECK_INT(ec.value(), QNET_ERR_INVALID);
    device.set_vlan("");
    CHECK(device.vlan().empty());
    CHECK_INT(hub.fdb(ec).size(), 0);
    CHECK(!ec);
}

static void clocks_move()
{
    qnet::clock clock;
    qnet::hub hub;
    auto [a, b] = qnet::conn::pair();
    auto [c, d] = qnet::conn::pair();
    std::uint8_t buf[100];

    hub.set_clock(clock);
    hub.attach(c);
    auto device = hub.port();
    hub.detach(c);
    qnet::link(clock, b, c);
    a.send(some_frame, sizeof some_frame);
    CHECK_INT(clock.advance(1000), 1);
    CHECK(d.recv(buf, sizeof buf, 0).has_value());
    CHECK_INT(clock.times().now, 1000);
    CHECK(clock.times().next == INT64_MAX);
    qnet::unlink(b);
    device.reset();
    clock.advance(1001);
    hub.set_clock(nullptr);
    qnet_clock *handle = clock.release();
    CHECK(!clock);
    clock = qnet::clock(handle);
    clock.reset();
    CHECK_INT(qnet_clock_close(handle), QNET_ERR_HANDLE);
}

static void captures_record()
{
    auto capture = qnet::capture::open("/dev/null", {{QNET_OPT_SNAPLEN, 100}});
    qnet::hub hub;
    auto device = hub.port(), other = hub.port();
    std::uint8_t buf[100];
    std::error_code ec;

    capture.add(hub, "the hub");
    capture.add(device);
    capture.note("one");
    device.send(some_frame, sizeof some_frame);
    CHECK(other.recv(buf, sizeof buf).has_value());
    CHECK_INT(capture.stats().frames, 2);
    capture.remove(device);
    capture.remove(device, ec);
    CHECK_INT(ec.value(), QNET_ERR_INVALID);
    capture.add(hub, "", ec);
    CHECK_INT(ec.value(), QNET_ERR_BUSY);
    capture.add(other, std::string_view("a\0b", 3), ec);
    CHECK_INT(ec.value(), QNET_ERR_INVALID);
    capture.note(std::string_view("\0", 1), ec);
    CHECK_INT(ec.value(), QNET_ERR_INVALID);
    CHECK(!qnet::capture::open_fd(-1, {}, ec));
    CHECK_INT(ec.value(), QNET_ERR_INVALID);
    qnet_capture *handle = capture.release();
    CHECK(!capture);
    capture = qnet::capture(handle);
    capture.reset();
    CHECK_INT(qnet_capture_close(handle), QNET_ERR_HANDLE);
}

static void datagrams_and_their_netdev()
{
    auto a = qnet::conn::dgram("udp", "127.0.0.1:0", "127.0.0.1:9");
    auto b = qnet::conn::dgram("udp", "127.0.0.1:0", a.local_addr());

    CHECK(b.peer_addr() == a.local_addr());
    CHECK(b.netdev("n0", 702).find("dgram,id=n0,local.type=inet") == 0);
    try {
        b.netdev("", 702);
        check_fail(__FILE__, __LINE__, "nothing was thrown");
    } catch (const qnet::error &e) {
        CHECK(e.code() == QNET_ERR_INVALID);
    }
}

/* An empty remote is NULL in C: the remote is then whoever sends first. */
static void datagrams_of_whoever_sends_first()
{
    auto a = qnet::conn::dgram("udp", "127.0.0.1:0", "");
    auto b = qnet::conn::dgram("udp", "127.0.0.1:0", a.local_addr());
    std::uint8_t buf[100];

    b.send(some_frame);
    CHECK(a.recv(buf, sizeof buf).has_value());
    CHECK(a.peer_addr() == b.local_addr());
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
    RUN(what_is_said_without_a_text);
    RUN(codes_are_the_systems);
    RUN(codes_are_the_same_in_a_plugin);
    RUN(functions_of_a_plugin);
    RUN(sends_what_has_bytes);
    RUN(times_are_rounded_up);
    RUN(texts_are_views);
    RUN(dials_with_options);
    RUN(handles_are_released);
    RUN(a_released_handle_keeps_its_functions);
    RUN(hubs_may_be_none);
    RUN(polls);
    RUN(references_are_compared);
    RUN(hubs_forward);
    RUN(links_forward);
    RUN(links_are_impaired);
    RUN(hubs_have_vlans);
    RUN(clocks_move);
    RUN(captures_record);
    RUN(datagrams_and_their_netdev);
    RUN(datagrams_of_whoever_sends_first);
    RUN(descriptors_change_hands);
    return check_done();
}
