/*
 * qnet.hpp - libqnet for C++17: handles that close themselves, functions as handlers, failures as
 * exceptions or as std::error_code. Header only; the functions' contracts are those of qnet.h.
 *
 * What can fail has two forms, as in std::filesystem: one throws qnet::error, the other takes a
 * std::error_code and throws nothing but std::bad_alloc.
 */
#ifndef QNET_HPP
#define QNET_HPP

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "qnet.h"

namespace qnet {

using code = ::qnet_error;
using option = ::qnet_option;
using frame = ::qnet_frame;
using stats = ::qnet_stats;
using hub_stats = ::qnet_hub_stats;
using mac = std::array<std::uint8_t, 6>;

/* The codes of qnet.h as a category of their own. */
inline const std::error_category &category() noexcept
{
    struct kind final : std::error_category {
        const char *name() const noexcept override { return "qnet"; }
        std::string message(int value) const override { return qnet_strerror(value); }
    };
    static const kind the_one;
    return the_one;
}

} // namespace qnet

namespace std {
template <> struct is_error_code_enum<::qnet_error> : true_type {};
} // namespace std

/* Beside the enum, where argument-dependent look-up finds it. */
inline std::error_code make_error_code(qnet_error value) noexcept
{
    return {static_cast<int>(value), qnet::category()};
}

namespace qnet {

/* A call that failed: what() says in full what was attempted and why. */
class error : public std::system_error {
public:
    explicit error(int value) : std::system_error(value, category(), text(value)) {}

private:
    /* Three codes are answers that a caller who polls expects, and leave no text. */
    static const char *text(int value)
    {
        bool is_told = value != QNET_ERR_AGAIN && value != QNET_ERR_TIMEOUT &&
                       value != QNET_ERR_INTERRUPTED;
        return is_told ? qnet_last_error() : "libqnet";
    }
};

namespace detail {

/* A handle that closes itself. */
template <typename T, int (*close)(T *)>
struct closer {
    void operator()(T *handle) const noexcept { close(handle); }
};
template <typename T, int (*close)(T *)>
using owned = std::unique_ptr<T, closer<T, close>>;

inline int check(int result)
{
    if (result < 0)
        throw error(result);
    return result;
}

inline int check(int result, std::error_code &ec) noexcept
{
    ec = result < 0 ? std::error_code(result, category()) : std::error_code();
    return result;
}

inline std::size_t taken(int result, std::error_code &ec) noexcept
{
    return check(result, ec) < 0 ? 0 : static_cast<std::size_t>(result);
}

inline bool is_nothing_yet(int result) noexcept
{
    return result == QNET_ERR_AGAIN || result == QNET_ERR_TIMEOUT;
}

inline std::optional<std::size_t> came(int result)
{
    if (is_nothing_yet(result))
        return std::nullopt;
    return static_cast<std::size_t>(check(result));
}

inline std::optional<std::size_t> came(int result, std::error_code &ec) noexcept
{
    if (is_nothing_yet(result)) {
        ec.clear();
        return std::nullopt;
    }
    if (check(result, ec) < 0)
        return std::nullopt;
    return static_cast<std::size_t>(result);
}

/* Text as long as it is: asked for its length, then for itself, in case it grew between. */
template <class Give> std::string text(Give give)
{
    std::string text;
    for (std::size_t len = check(give(nullptr, 0)); text.size() != len;) {
        text.resize(len + 1);
        len = check(give(&text[0], text.size()));
        text.resize(len < text.size() ? len : text.size() - 1);
    }
    return text;
}

using frame_function = std::function<void(const std::uint8_t *data, std::size_t len)>;
using batch_function = std::function<void(const frame *frames, std::size_t count)>;
using close_function = std::function<void(int reason)>;
using state_function = std::function<void(bool up)>;

/*
 * What a connection's handlers call. The library shares it from the first handler on until the close
 * handler has returned, which is the last; so functions that were replaced live until then, too.
 */
class handlers {
public:
    frame_function *add(frame_function f) { return add_to(frames_, std::move(f)); }
    batch_function *add(batch_function f) { return add_to(batches_, std::move(f)); }
    state_function *add(state_function f) { return add_to(states_, std::move(f)); }

    /* Set after the end, it runs now, as of qnet_set_close_handler(). */
    void on_close(close_function f)
    {
        std::optional<int> reason;
        {
            std::lock_guard<std::mutex> guard(mutex_);
            if (f)
                reason = std::exchange(untold_, std::nullopt);
            if (!reason)
                closed_ = std::move(f);
        }
        if (reason)
            f(*reason);
    }

    static void frame_came(void *f, const std::uint8_t *data, std::size_t len)
    {
        (*static_cast<frame_function *>(f))(data, len);
    }

    static void batch_came(void *f, const frame *frames, std::size_t count)
    {
        (*static_cast<batch_function *>(f))(frames, count);
    }

    static void state_changed(void *f, int up)
    {
        (*static_cast<state_function *>(f))(up != 0);
    }

    /* `shared` is the library's own share. */
    static void closed(void *shared, int reason)
    {
        std::unique_ptr<std::shared_ptr<handlers>> last(
            static_cast<std::shared_ptr<handlers> *>(shared));
        close_function f;
        {
            std::lock_guard<std::mutex> guard((*last)->mutex_);
            f = std::move((*last)->closed_);
            if (!f)
                (*last)->untold_ = reason;
        }
        if (f)
            f(reason);
    }

private:
    template <class F> F *add_to(std::list<F> &all, F f)
    {
        std::lock_guard<std::mutex> guard(mutex_);
        all.push_back(std::move(f));
        return &all.back();
    }

    std::mutex mutex_;
    std::list<frame_function> frames_;
    std::list<batch_function> batches_;
    std::list<state_function> states_;
    close_function closed_;
    std::optional<int> untold_; /* the reason, where the end found nobody to tell */
};

} // namespace detail

/*
 * A connection that is somebody else's to close: what hub::ports() tells. A copy is the same
 * connection; a stale one gives QNET_ERR_HANDLE.
 */
class conn_ref {
public:
    conn_ref() noexcept = default;
    explicit conn_ref(qnet_conn *handle) noexcept : handle_(handle) {}

    qnet_conn *get() const noexcept { return handle_; }
    explicit operator bool() const noexcept { return handle_ != nullptr; }

    void send(const void *data, std::size_t len) { detail::check(qnet_send(handle_, data, len)); }
    void send(const void *data, std::size_t len, std::error_code &ec) noexcept
    {
        detail::check(qnet_send(handle_, data, len), ec);
    }

    /* How many were taken. */
    std::size_t send(const frame *frames, std::size_t count)
    {
        return detail::check(qnet_send_batch(handle_, frames, count));
    }
    std::size_t send(const frame *frames, std::size_t count, std::error_code &ec) noexcept
    {
        return detail::taken(qnet_send_batch(handle_, frames, count), ec);
    }
    std::size_t send_packed(const void *wire, std::size_t len)
    {
        return detail::check(qnet_send_packed(handle_, wire, len));
    }
    std::size_t send_packed(const void *wire, std::size_t len, std::error_code &ec) noexcept
    {
        return detail::taken(qnet_send_packed(handle_, wire, len), ec);
    }

    void flush() { detail::check(qnet_flush(handle_)); }
    void flush(std::error_code &ec) noexcept { detail::check(qnet_flush(handle_), ec); }

    /* The frame's length, or nothing where none came in that time. */
    std::optional<std::size_t> recv(void *buf, std::size_t cap, int timeout_ms = -1)
    {
        return detail::came(qnet_recv(handle_, buf, cap, timeout_ms));
    }
    std::optional<std::size_t> recv(void *buf, std::size_t cap, int timeout_ms,
                                    std::error_code &ec) noexcept
    {
        return detail::came(qnet_recv(handle_, buf, cap, timeout_ms), ec);
    }

    /* How many; their bytes are lent until the next receive. None where none came in that time. */
    std::size_t recv(frame *frames, std::size_t count, int timeout_ms = -1)
    {
        return detail::came(qnet_recv_batch(handle_, frames, count, timeout_ms)).value_or(0);
    }
    std::size_t recv(frame *frames, std::size_t count, int timeout_ms,
                     std::error_code &ec) noexcept
    {
        return detail::came(qnet_recv_batch(handle_, frames, count, timeout_ms), ec).value_or(0);
    }
    std::size_t recv_packed(void *buf, std::size_t cap, int timeout_ms = -1)
    {
        return detail::came(qnet_recv_packed(handle_, buf, cap, timeout_ms)).value_or(0);
    }
    std::size_t recv_packed(void *buf, std::size_t cap, int timeout_ms,
                            std::error_code &ec) noexcept
    {
        return detail::came(qnet_recv_packed(handle_, buf, cap, timeout_ms), ec).value_or(0);
    }

    int fd() const { return detail::check(qnet_fd(handle_)); }

    /* Whether it has ended in that time. */
    bool wait(int timeout_ms = -1)
    {
        return detail::came(qnet_wait(handle_, timeout_ms)).has_value();
    }
    bool wait(int timeout_ms, std::error_code &ec) noexcept
    {
        return detail::came(qnet_wait(handle_, timeout_ms), ec).has_value();
    }

    /* QNET_OK while it is open. */
    int close_reason() const noexcept { return qnet_close_reason(handle_); }
    void shutdown() { detail::check(qnet_shutdown(handle_)); }
    void shutdown(std::error_code &ec) noexcept { detail::check(qnet_shutdown(handle_), ec); }

    mac hwaddr() const
    {
        mac address;
        detail::check(qnet_hwaddr(handle_, address.data()));
        return address;
    }
    void set_hwaddr(const mac &address)
    {
        detail::check(qnet_set_hwaddr(handle_, address.data()));
    }

    std::string local_addr() const
    {
        return detail::text(
            [this](char *buf, std::size_t cap) { return qnet_local_addr(handle_, buf, cap); });
    }
    std::string peer_addr() const
    {
        return detail::text(
            [this](char *buf, std::size_t cap) { return qnet_peer_addr(handle_, buf, cap); });
    }
    /* The -netdev argument for a QEMU at the other end of a datagram connection. */
    std::string netdev(const std::string &id, int qemu_version) const
    {
        return detail::text([&](char *buf, std::size_t cap) {
            return qnet_netdev(handle_, id.c_str(), qemu_version, buf, cap);
        });
    }

    qnet::stats stats() const
    {
        qnet::stats counts;
        detail::check(qnet_get_stats(handle_, &counts, sizeof counts));
        return counts;
    }

    void set(option which, std::int64_t value)
    {
        detail::check(qnet_set(handle_, which, value));
    }
    std::int64_t get(option which) const
    {
        std::int64_t value;
        detail::check(qnet_get(handle_, which, &value));
        return value;
    }

private:
    qnet_conn *handle_ = nullptr;
};

/* A connection that closes itself. Closing waits as qnet_close() does. */
class conn : public conn_ref {
public:
    conn() noexcept = default;
    /* Takes over a handle. */
    explicit conn(qnet_conn *handle) noexcept : conn_ref(handle) {}
    conn(conn &&other) noexcept
        : conn_ref(other.release_handle()), handlers_(std::move(other.handlers_))
    {
    }
    conn &operator=(conn &&other) noexcept
    {
        conn moved(std::move(other));
        swap(moved);
        return *this;
    }
    conn(const conn &) = delete;
    conn &operator=(const conn &) = delete;
    ~conn() { reset(); }

    void swap(conn &other) noexcept
    {
        std::swap(static_cast<conn_ref &>(*this), static_cast<conn_ref &>(other));
        handlers_.swap(other.handlers_);
    }

    /* Closes it now. */
    void reset() noexcept
    {
        if (*this)
            qnet_close(release_handle());
        handlers_.reset();
    }

    static conn dial(const std::string &network, const std::string &address,
                     std::initializer_list<std::pair<option, std::int64_t>> options = {})
    {
        qnet_conn *handle;
        detail::check(dial(network, address, options, handle));
        return conn(handle);
    }
    static conn dial(const std::string &network, const std::string &address,
                     std::initializer_list<std::pair<option, std::int64_t>> options,
                     std::error_code &ec)
    {
        qnet_conn *handle;
        detail::check(dial(network, address, options, handle), ec);
        return conn(handle);
    }

    static std::pair<conn, conn> pair()
    {
        qnet_conn *a, *b;
        detail::check(qnet_socketpair(&a, &b));
        return {conn(a), conn(b)};
    }

    /* The other end is a descriptor, the caller's. */
    static std::pair<conn, int> pair_with_fd()
    {
        qnet_conn *handle;
        int fd;
        detail::check(qnet_socketpair_fd(&handle, &fd));
        return {conn(handle), fd};
    }

    /* The descriptor is still the caller's where this throws. */
    static conn from_fd(int fd)
    {
        qnet_conn *handle;
        detail::check(qnet_from_fd(fd, &handle));
        return conn(handle);
    }

    /* `local` may be empty for "mcast". */
    static conn dgram(const std::string &network, const std::string &local,
                      const std::string &remote)
    {
        qnet_conn *handle;
        detail::check(qnet_dgram(network.c_str(), local.c_str(), remote.c_str(), &handle));
        return conn(handle);
    }

    /* Without a name the system gives it one: local_addr(). */
    static conn tap(const std::string &name = "")
    {
        qnet_conn *handle;
        detail::check(qnet_tap(name.c_str(), &handle));
        return conn(handle);
    }

    /*
     * The functions are called as qnet_set_handler() and its kin say, and must not throw. One that is
     * replaced is kept until the connection has closed.
     */
    void on_frame(detail::frame_function f)
    {
        detail::check(qnet_set_handler(get(), detail::handlers::frame_came,
                                       shared().add(std::move(f))));
    }
    void on_batch(detail::batch_function f)
    {
        detail::check(qnet_set_batch_handler(get(), detail::handlers::batch_came,
                                             shared().add(std::move(f))));
    }
    /* Of one that is dialled again (QNET_OPT_RECONNECT_MS). */
    void on_state(detail::state_function f)
    {
        detail::check(qnet_set_state_handler(get(), detail::handlers::state_changed,
                                             shared().add(std::move(f))));
    }
    void on_close(detail::close_function f)
    {
        if (handlers_) {
            handlers_->on_close(std::move(f));
            return;
        }
        auto fresh = std::make_shared<detail::handlers>();
        fresh->on_close(std::move(f));
        share(fresh);
    }
    /* Stops receiving by handler. */
    void no_handler() { detail::check(qnet_set_handler(get(), nullptr, nullptr)); }

private:
    static int dial(const std::string &network, const std::string &address,
                    std::initializer_list<std::pair<option, std::int64_t>> options,
                    qnet_conn *&handle)
    {
        std::vector<std::int64_t> pairs;
        for (const auto &one : options) {
            pairs.push_back(one.first);
            pairs.push_back(one.second);
        }
        return qnet_dial_with(network.c_str(), address.c_str(), pairs.data(), options.size(),
                              &handle);
    }

    qnet_conn *release_handle() noexcept
    {
        qnet_conn *handle = get();
        static_cast<conn_ref &>(*this) = conn_ref();
        return handle;
    }

    detail::handlers &shared()
    {
        if (!handlers_)
            share(std::make_shared<detail::handlers>());
        return *handlers_;
    }

    /* Gives the library its share, which its call of the close handler gives back. */
    void share(std::shared_ptr<detail::handlers> fresh)
    {
        auto share = std::make_unique<std::shared_ptr<detail::handlers>>(fresh);
        handlers_ = std::move(fresh);
        int result = qnet_set_close_handler(get(), detail::handlers::closed, share.get());
        if (result == QNET_OK)
            share.release();
        else
            handlers_.reset();
        detail::check(result);
    }

    std::shared_ptr<detail::handlers> handlers_;
};

/* A listener that closes itself. */
class listener {
public:
    listener() noexcept = default;
    explicit listener(qnet_listener *handle) noexcept : handle_(handle) {}

    /* Closes it now. */
    void reset() noexcept { handle_.reset(); }

    static listener listen(const std::string &network, const std::string &address)
    {
        qnet_listener *handle;
        detail::check(qnet_listen(network.c_str(), address.c_str(), &handle));
        return listener(handle);
    }
    static listener listen(const std::string &network, const std::string &address,
                           std::error_code &ec)
    {
        qnet_listener *handle;
        detail::check(qnet_listen(network.c_str(), address.c_str(), &handle), ec);
        return listener(handle);
    }

    /* The descriptor is still the caller's where this throws. */
    static listener from_fd(int fd)
    {
        qnet_listener *handle;
        detail::check(qnet_listener_from_fd(fd, &handle));
        return listener(handle);
    }

    /* An empty one where nobody came in that time. */
    conn accept(int timeout_ms = -1)
    {
        qnet_conn *handle;
        return detail::came(qnet_accept(get(), timeout_ms, &handle)) ? conn(handle) : conn();
    }
    conn accept(int timeout_ms, std::error_code &ec) noexcept
    {
        qnet_conn *handle;
        return detail::came(qnet_accept(get(), timeout_ms, &handle), ec) ? conn(handle) : conn();
    }

    qnet_listener *get() const noexcept { return handle_.get(); }
    explicit operator bool() const noexcept { return handle_ != nullptr; }
    int fd() const { return detail::check(qnet_listener_fd(get())); }

    std::string addr() const
    {
        return detail::text(
            [this](char *buf, std::size_t cap) { return qnet_listener_addr(get(), buf, cap); });
    }
    std::string netdev(const std::string &id, int qemu_version) const
    {
        return detail::text([&](char *buf, std::size_t cap) {
            return qnet_listener_netdev(get(), id.c_str(), qemu_version, buf, cap);
        });
    }

    void set(option which, std::int64_t value)
    {
        detail::check(qnet_listener_set(get(), which, value));
    }
    std::int64_t get(option which) const
    {
        std::int64_t value;
        detail::check(qnet_listener_get(get(), which, &value));
        return value;
    }

private:
    detail::owned<qnet_listener, qnet_listener_close> handle_;
};

/* A switch that closes itself. */
class hub {
public:
    hub()
    {
        qnet_hub *handle;
        detail::check(qnet_hub_new(&handle));
        handle_.reset(handle);
    }

    /* Closes it now. */
    void reset() noexcept { handle_.reset(); }

    void attach(const conn_ref &port) { detail::check(qnet_hub_attach(get(), port.get())); }
    void detach(const conn_ref &port) { detail::check(qnet_hub_detach(get(), port.get())); }

    /* The program's own device on it. */
    conn port()
    {
        qnet_conn *handle;
        detail::check(qnet_hub_port(get(), &handle));
        return conn(handle);
    }

    /* The hub closes the listener from now on, unless that was closed before. */
    void serve(const listener &from) { detail::check(qnet_hub_serve(get(), from.get())); }

    std::vector<conn_ref> ports() const
    {
        std::vector<qnet_conn *> handles;
        std::size_t count = detail::check(qnet_hub_ports(get(), nullptr, 0));
        do {
            handles.resize(count);
            count = detail::check(qnet_hub_ports(get(), handles.data(), handles.size()));
        } while (count > handles.size());
        handles.resize(count);
        return std::vector<conn_ref>(handles.begin(), handles.end());
    }

    qnet_hub *get() const noexcept { return handle_.get(); }

    hub_stats stats() const
    {
        hub_stats counts;
        detail::check(qnet_hub_get_stats(get(), &counts, sizeof counts));
        return counts;
    }
    void set(option which, std::int64_t value)
    {
        detail::check(qnet_hub_set(get(), which, value));
    }
    std::int64_t get(option which) const
    {
        std::int64_t value;
        detail::check(qnet_hub_get(get(), which, &value));
        return value;
    }

private:
    detail::owned<qnet_hub, qnet_hub_close> handle_;
};

/* A cable between two connections. */
inline void link(const conn_ref &a, const conn_ref &b)
{
    detail::check(qnet_link(a.get(), b.get()));
}

inline void unlink(const conn_ref &one)
{
    detail::check(qnet_unlink(one.get()));
}

} // namespace qnet

#endif
