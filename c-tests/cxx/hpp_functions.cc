/*
 * hpp_functions.cc - qnet.hpp: which function is called, and when it is
 * destroyed.
 */
#include <atomic>
#include <thread>

#include "hpp/hpp.h"

using counter = std::atomic<int>;

/* An object for a function to hold, which tells whether it is still held. */
class held {
public:
    std::shared_ptr<counter> take() { return std::exchange(strong_, nullptr); }
    bool is_free() const { return weak_.expired(); }

private:
    std::shared_ptr<counter> strong_ = std::make_shared<counter>(0);
    std::weak_ptr<counter> weak_ = strong_;
};

/* A function for frames that does nothing but hold something. */
static auto holding(held &what)
{
    return [kept = what.take()](const std::uint8_t *, std::size_t) { ++*kept; };
}

/* What a function holds lives until it can never be called again. */
static void handlers_let_go()
{
    auto [a, b] = qnet::conn::pair();
    auto held = std::make_shared<int>(0);
    std::weak_ptr<int> alive = held;
    int reason = 0, sum = 0;

    b.on_close([&reason, &sum, held](int why) { reason = why, sum = *held; });
    b.on_frame([held](const std::uint8_t *, std::size_t len) { *held += static_cast<int>(len); });
    held.reset();
    a.send(some_frame, 64);
    a.send(some_frame, 20);
    a.reset();
    CHECK(b.wait());
    CHECK_INT(reason, QNET_ERR_CLOSED);
    CHECK_INT(sum, 84);
    CHECK(alive.expired());
}

static void handlers_are_replaced()
{
    auto [a, b] = qnet::conn::pair();
    int first = 0, second = 0;
    auto frames = [&conn = b] { return conn.stats().rx_frames; };

    b.on_frame([&](const std::uint8_t *, std::size_t) { first++; });
    a.send(some_frame, 64);
    await([&] { return frames() == 1; });
    b.on_batch([&](const qnet::frame *, std::size_t count) { second += static_cast<int>(count); });
    a.send(some_frame, 64);
    await([&] { return frames() == 2; });
    b.on_batch(nullptr);
    CHECK_INT(first, 1);
    CHECK_INT(second, 1);
    a.send(some_frame, 64);
    std::uint8_t buf[100];
    CHECK(b.recv(buf, sizeof buf).has_value());
}

/* An empty function removes the one before, as NULL does in C. */
static void empty_functions_take_away()
{
    auto listener = qnet::listener::listen("tcp", "127.0.0.1:0");
    auto a = qnet::conn::dial("tcp", listener.addr(), {{QNET_OPT_RECONNECT_MS, 1}});
    auto b = listener.accept();
    std::uint8_t buf[100];
    int calls = 0;

    a.on_frame(nullptr);
    a.on_batch(std::function<void(const qnet::frame *, std::size_t)>());
    a.on_state(nullptr);
    a.on_close(nullptr);
    for (int i = 0; i < 3; i++) {
        a.on_frame([&](const std::uint8_t *, std::size_t) { calls++; });
        if (i == 1)
            a.on_batch(nullptr);
        else
            a.on_frame(nullptr);
        b.send(some_frame);
        CHECK(a.recv(buf, sizeof buf).has_value());
    }
    a.on_state([&](bool) { calls++; });
    a.on_state({});
    a.on_close([&](int) { calls++; });
    a.on_close(std::function<void(int)>());
    b.reset();
    await([&] { return !a.recv(buf, sizeof buf, 0) && (b = listener.accept(0)); });
    b.send(some_frame);
    CHECK(a.recv(buf, sizeof buf).has_value());
    a.reset();
    CHECK_INT(calls, 0);
}

static void reconnecting_is_told()
{
    auto listener = qnet::listener::listen("tcp", "127.0.0.1:0");
    auto a = qnet::conn::dial("tcp", listener.addr(), {{QNET_OPT_RECONNECT_MS, 1}});
    std::atomic<int> downs(0), ups(0);

    a.on_state([&](bool up) { (up ? ups : downs)++; });
    a.on_frame([](const std::uint8_t *, std::size_t) {});
    listener.accept().reset();
    await([&] { return ups >= 1; });
    CHECK_INT(downs, 1);
    CHECK_INT(a.stats().reconnects, 1);
    a.reset();
}

/* A connection may be closed inside its own handler, which lives until it has returned. */
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
    await([&] { return alive.expired(); });
}

/* If a handler removes itself and closes its connection, the close handler runs inside its call. */
static void ends_inside_its_handler()
{
    auto [a, b] = qnet::conn::pair();
    auto own = std::make_shared<qnet::conn>(std::move(b));
    std::atomic<int> reason(0), inside(0);
    held one, other;

    own->on_close([&, kept = other.take()](int why) { reason = why; });
    own->on_frame([&, own, kept = one.take()](const std::uint8_t *, std::size_t) {
        own->on_frame(nullptr);
        own->reset();
        inside = reason + ++*kept;
    });
    own.reset();
    a.send(some_frame);
    await([&] { return one.is_free(); });
    CHECK(other.is_free());
    CHECK_INT(inside, QNET_ERR_CLOSED + 1);
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

/*
 * A close handler set after the end is called once, as with
 * qnet_set_close_handler(), also if another kind of handler was set when the
 * connection ended.
 */
static void close_handlers_set_after_the_end()
{
    auto [a, b] = qnet::conn::pair();
    int calls = 0, reason = 0;
    held never;

    a.on_frame([](const std::uint8_t *, std::size_t) {});
    b.reset();
    CHECK(a.wait());
    a.on_close([&](int why) { calls++; reason = why; });
    CHECK_INT(calls, 1);
    CHECK_INT(reason, QNET_ERR_CLOSED);
    a.on_close([&, kept = never.take()](int) { calls++; });
    CHECK(never.is_free());
    a.reset();
    CHECK_INT(calls, 1);
}

/* Two threads set the first functions of two kinds at once, and neither function is lost. */
static void functions_set_at_once_are_all_called()
{
    for (int i = 0; i < rounds(2000); i++) {
        auto [a, b] = qnet::conn::pair();
        std::atomic<int> frames(0), ends(0), ready(0);
        auto together = [&] {
            ready++;
            while (ready != 2) /* brings them closer than a sleep would */
                continue;
        };
        std::thread other([&, conn = &b] {
            together();
            conn->on_close([&](int) { ends++; });
        });

        together();
        b.on_frame([&](const std::uint8_t *, std::size_t) { frames++; });
        other.join();
        a.send(some_frame);
        a.reset();
        CHECK(b.wait());
        CHECK_INT(frames, 1);
        CHECK_INT(ends, 1);
    }
}

static void replaced_functions_are_let_go_at_once()
{
    auto [a, b] = qnet::conn::pair();
    auto alive = std::make_shared<counter>(0);

    for (int i = 0; i < 1000; i++) {
        b.on_frame([alive](const std::uint8_t *, std::size_t) { ++*alive; });
        if (i % 100 == 0) {
            a.send(some_frame);
            await([&] { return *alive == i / 100 + 1; });
        }
        b.on_close([alive](int) {});
        CHECK_INT(alive.use_count(), 3);
    }
    b.on_batch([alive](const qnet::frame *, std::size_t) {});
    CHECK_INT(alive.use_count(), 3);
    b.on_batch(nullptr);
    b.on_close(nullptr);
    CHECK_INT(alive.use_count(), 1);
}

/* A function that cannot be set is destroyed at once, whatever the reason. */
static void functions_that_cannot_be_set_are_let_go()
{
    auto [a, b] = qnet::conn::pair();
    qnet::hub hub;
    std::error_code ec;
    held plugged, undialled, ended, none;

    hub.attach(a);
    a.on_frame(holding(plugged), ec);
    CHECK(ec == QNET_ERR_BUSY);
    CHECK(plugged.is_free());
    a.on_state([kept = undialled.take()](bool) {}, ec);
    CHECK(ec == QNET_ERR_UNSUPPORTED);
    CHECK(undialled.is_free());
    hub.detach(a);
    b.reset();
    a.on_frame([](const std::uint8_t *, std::size_t) {});
    CHECK(a.wait());
    a.on_frame(holding(ended), ec);
    CHECK(ec == QNET_ERR_CLOSED);
    CHECK(ended.is_free());
    a.reset();
    a.on_frame(holding(none), ec);
    CHECK(ec == QNET_ERR_HANDLE);
    CHECK(none.is_free());
}

/*
 * A function that replaces itself is destroyed when its call returns, and not
 * before; others that are set and replaced inside that call are destroyed at
 * once.
 */
static void replaced_inside_its_own_call()
{
    auto [a, b] = qnet::conn::pair();
    qnet::conn &own = b;
    held first, between, last;
    std::atomic<int> inside(0);

    own.on_frame([&, kept = first.take()](const std::uint8_t *, std::size_t) {
        own.on_batch([kept = between.take()](const qnet::frame *, std::size_t) {});
        own.on_frame(holding(last));
        inside = ++*kept + (between.is_free() ? 10 : 0) + (last.is_free() ? 100 : 0);
    });
    a.send(some_frame);
    await([&] { return first.is_free(); });
    CHECK_INT(inside, 11);
    CHECK(!last.is_free());
    own.on_frame([&](const std::uint8_t *, std::size_t) {
        own.on_frame(nullptr);
        inside = 5;
    });
    CHECK(last.is_free());
    a.send(some_frame);
    await([&] { return inside == 5; });
}

/*
 * Replacing a function inside another connection's function does not wait: one
 * that is running is destroyed when its call returns.
 */
static void replaced_inside_anothers_call()
{
    auto [a, b] = qnet::conn::pair();
    auto [c, d] = qnet::conn::pair();
    qnet::conn &one = b;
    held running, idle;
    std::atomic<bool> is_in(false), goes_on(false);
    std::atomic<int> replaced(0);

    one.on_frame([&, kept = running.take()](const std::uint8_t *, std::size_t) {
        is_in = true;
        await([&] { return goes_on.load(); });
        ++*kept;
    });
    d.on_frame([&](const std::uint8_t *, std::size_t) {
        one.on_frame(holding(idle));
        replaced = 1;
        await([&] { return replaced == 2; });
        for (int i = 0; i < 1000; i++)
            one.on_frame([](const std::uint8_t *, std::size_t) {});
        replaced = 3;
    });
    a.send(some_frame);
    await([&] { return is_in.load(); });
    c.send(some_frame);
    await([&] { return replaced == 1; });
    CHECK(!running.is_free());
    goes_on = true;
    await([&] { return running.is_free(); });
    CHECK(!idle.is_free());
    replaced = 2;
    await([&] { return replaced == 3; });
    CHECK(idle.is_free());
    d.reset();
}

/* A session that its connection's functions own is destroyed when the peer has left. */
struct session {
    explicit session(qnet::conn own) : conn(std::move(own)) {}

    qnet::conn conn;
};

static void sessions_go_with_their_peers()
{
    auto [a, b] = qnet::conn::pair();
    std::weak_ptr<session> alive;
    qnet_conn *handle = b.get();

    {
        auto self = std::make_shared<session>(std::move(b));
        self->conn.on_frame([self](const std::uint8_t *, std::size_t) {});
        alive = self;
    }
    a.send(some_frame);
    CHECK(is_live(handle));
    a.reset();
    await([&] { return alive.expired(); });
    CHECK(!is_live(handle));
}

/*
 * A session that its connection's functions own may end itself, in its frame
 * handler or in its close handler.
 */
static void sessions_end_themselves()
{
    for (int way = 0; way < 4; way++) {
        auto [a, b] = qnet::conn::pair();
        std::weak_ptr<session> alive;
        qnet_conn *handle = b.get();

        {
            auto self = std::make_shared<session>(std::move(b));
            alive = self;
            self->conn.on_close([self, way](int) {
                if (way == 3)
                    self->conn.reset();
            });
            self->conn.on_frame([self, way](const std::uint8_t *, std::size_t) {
                if (way == 0)
                    self->conn.on_frame(nullptr);
                if (way <= 1)
                    self->conn.shutdown();
                if (way == 2)
                    self->conn.reset();
            });
        }
        a.send(some_frame);
        if (way == 3)
            a.reset();
        await([&] { return alive.expired(); });
        await([&] { return !is_live(handle); });
    }
}

/*
 * A state handler is destroyed once it is replaced and its call has returned,
 * and at the final end.
 */
static void state_functions_are_let_go()
{
    auto listener = qnet::listener::listen("tcp", "127.0.0.1:0");
    auto a = qnet::conn::dial("tcp", listener.addr(), {{QNET_OPT_RECONNECT_MS, 1}});
    held first, second, third;
    std::atomic<int> told(0);

    a.on_state([kept = first.take()](bool) {});
    a.on_state([&, kept = second.take()](bool up) {
        if (up) {
            a.on_state([kept = third.take()](bool) {});
            told = second.is_free() ? -1 : 1;
        }
    });
    CHECK(first.is_free());
    a.on_frame([](const std::uint8_t *, std::size_t) {});
    listener.accept().reset();
    await([&] { return told != 0; });
    CHECK_INT(told, 1);
    await([&] { return second.is_free(); });
    CHECK(!third.is_free());
    a.shutdown();
    CHECK(a.wait());
    CHECK(third.is_free());
}

/*
 * Threads set, replace and remove functions at once: each frame comes to one of
 * the functions or waits to be received, and in the end nothing is held.
 */
static void functions_change_under_traffic(std::int64_t waits)
{
    const int count = rounds(20000);
    auto [a, b] = qnet::conn::pair();
    auto got = std::make_shared<counter>(0);
    qnet::conn &from = a, &to = b;
    std::atomic<bool> is_over(false);
    std::vector<std::thread> setters;

    to.set(QNET_OPT_WAIT, waits);
    for (int i = 0; i < 2; i++)
        setters.emplace_back([&, got] {
            while (!is_over) {
                to.on_frame([got](const std::uint8_t *, std::size_t) { ++*got; });
                to.on_batch([got](const qnet::frame *, std::size_t count_of) {
                    *got += static_cast<int>(count_of);
                });
                to.on_batch(nullptr);
            }
        });
    for (int i = 0; i < count; i++)
        from.send(some_frame);
    is_over = true;
    for (std::thread &one : setters)
        one.join();
    to.on_frame([got](const std::uint8_t *, std::size_t) { ++*got; });
    await([&] { return *got == count; });
    from.reset();
    CHECK(to.wait());
    CHECK_INT(*got, count);
    to.reset();
    await([&] { return got.use_count() == 1; });
}

static void functions_change_and_calls_wait() { functions_change_under_traffic(1); }
static void functions_change_and_no_call_waits() { functions_change_under_traffic(0); }

/*
 * A function that is removed inside another connection's function may have one
 * more call to come, whose frame is not lost.
 */
static void taken_away_inside_anothers_call()
{
    auto [a, b] = qnet::conn::pair();
    auto [c, d] = qnet::conn::pair();
    qnet::conn &one = b;
    std::atomic<int> got(0), turns(0);
    const int burst = 1000, count = rounds(300);
    std::vector<std::uint8_t> wire, buf(100);

    for (int i = 0; i < burst; i++) {
        wire.insert(wire.end(), {0, 0, 0, 14});
        wire.insert(wire.end(), some_frame, some_frame + 14);
    }
    d.on_frame([&](const std::uint8_t *, std::size_t) {
        one.on_frame(nullptr);
        ++turns;
    });
    for (int i = 0; i < count; i++) {
        one.on_frame([&](const std::uint8_t *, std::size_t) { ++got; });
        CHECK_INT(a.send_packed(wire), burst);
        c.send(some_frame);
        await([&] { return turns == i + 1; });
    }
    one.on_frame(nullptr);
    while (one.recv(buf, 0))
        ++got;
    CHECK_INT(got, count * burst);
    d.reset();
}

int main()
{
    RUN(handlers_let_go);
    RUN(handlers_are_replaced);
    RUN(empty_functions_take_away);
    RUN(reconnecting_is_told);
    RUN(closes_inside_its_handler);
    RUN(ends_inside_its_handler);
    RUN(a_close_handler_alone_is_called);
    RUN(close_handlers_set_after_the_end);
    RUN(functions_set_at_once_are_all_called);
    RUN(replaced_functions_are_let_go_at_once);
    RUN(functions_that_cannot_be_set_are_let_go);
    RUN(replaced_inside_its_own_call);
    RUN(replaced_inside_anothers_call);
    RUN(sessions_go_with_their_peers);
    RUN(sessions_end_themselves);
    RUN(state_functions_are_let_go);
    RUN(functions_change_and_calls_wait);
    RUN(functions_change_and_no_call_waits);
    RUN(taken_away_inside_anothers_call);
    return check_done();
}
