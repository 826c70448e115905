/*
 * qnet.hpp - libqnet for C++17 and later: handles that close themselves, functions as handlers,
 * failures as exceptions or as std::error_code. Header only; what a call does, and with which codes
 * it fails, is said of its namesake in qnet.h.
 *
 * What can fail has two forms, as in std::filesystem: one takes a std::error_code last, and throws
 * nothing but std::bad_alloc; the other throws qnet::error, and is left out where exceptions are
 * (-fno-exceptions). Of a failed call the result is 0, false, empty, or -1 for a descriptor.
 *
 * Nothing here blocks, or calls a function of the caller's back on the calling thread, unless it
 * says so. Any thread may call anything at any time; but moving an object, resetting or destroying
 * it, and taking its handle from it is for one thread, while no other uses the same object.
 *
 * Text (networks, addresses, ids) need not end with a NUL; one inside it gives QNET_ERR_INVALID.
 */
#ifndef QNET_HPP
#define QNET_HPP

#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
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

namespace detail {

/* The codes of qnet.h as a category. Each shared object may have one: the name tells that they are
 * the same. */
class codes final : public std::error_category {
public:
    const char *name() const noexcept override { return "qnet"; }
    std::string message(int value) const override { return qnet_strerror(value); }

    std::error_condition default_error_condition(int value) const noexcept override
    {
        switch (value) {
        case QNET_ERR_INVALID: return std::errc::invalid_argument;
        case QNET_ERR_HANDLE: return std::errc::bad_file_descriptor;
        case QNET_ERR_CLOSED: return std::errc::not_connected;
        case QNET_ERR_TIMEOUT: return std::errc::timed_out;
        case QNET_ERR_AGAIN: return std::errc::resource_unavailable_try_again;
        case QNET_ERR_FRAME_SIZE: return std::errc::message_size;
        case QNET_ERR_PROTOCOL: return std::errc::protocol_error;
        case QNET_ERR_OS: return std::errc::io_error;
        case QNET_ERR_BUSY: return std::errc::device_or_resource_busy;
        case QNET_ERR_INTERRUPTED: return std::errc::interrupted;
        case QNET_ERR_UNSUPPORTED: return std::errc::not_supported;
        case QNET_ERR_INTERNAL: return std::errc::state_not_recoverable;
        case QNET_ERR_REFUSED: return std::errc::connection_refused;
        case QNET_ERR_RESOLVE: return std::errc::host_unreachable;
        default: return {value, *this};
        }
    }

    bool equivalent(int value, const std::error_condition &with) const noexcept override
    {
        return default_error_condition(value) == with ||
               (is_same(with.category()) && with.value() == value);
    }
    bool equivalent(const std::error_code &with, int value) const noexcept override
    {
        return is_same(with.category()) && with.value() == value;
    }

    bool is_same(const std::error_category &other) const noexcept
    {
        return &other == this || std::strcmp(other.name(), name()) == 0;
    }
};

} // namespace detail

/*
 * The category of qnet.h's codes. `ec == QNET_ERR_REFUSED` compares with one of them, also where
 * `ec` comes from another shared object; `ec == std::errc::connection_refused` and its like are
 * true where the system has a code for the same.
 */
[[gnu::visibility("default")]] inline const std::error_category &category() noexcept
{
    static const detail::codes the_one{};
    return the_one;
}

} // namespace qnet

namespace std {
template <> struct is_error_code_enum<::qnet_error> : true_type {};
} // namespace std

/* These are beside the enum, where argument-dependent look-up finds them. */
inline std::error_code make_error_code(qnet_error value) noexcept
{
    return {static_cast<int>(value), qnet::category()};
}
inline bool operator==(const std::error_code &ec, qnet_error value) noexcept
{
    return qnet::category().equivalent(ec, value);
}
inline bool operator==(qnet_error value, const std::error_code &ec) noexcept { return ec == value; }
inline bool operator!=(const std::error_code &ec, qnet_error value) noexcept
{
    return !(ec == value);
}
inline bool operator!=(qnet_error value, const std::error_code &ec) noexcept
{
    return !(ec == value);
}

namespace qnet {

/* A call that failed: what() says in full what was attempted and why. */
class [[gnu::visibility("default")]] error : public std::system_error {
public:
    /* Of this thread's last call, which gave `value`. */
    explicit error(int value) : std::system_error(value, category()), text_(text(value)) {}

    const char *what() const noexcept override { return text_.what(); }

private:
    /* Three codes are answers that a caller who polls expects, and leave no text. */
    static const char *text(int value)
    {
        bool is_told = value != QNET_ERR_AGAIN && value != QNET_ERR_TIMEOUT &&
                       value != QNET_ERR_INTERRUPTED;
        return is_told ? qnet_last_error() : qnet_strerror(value);
    }

    std::runtime_error text_; /* whose copies cannot fail */
};

namespace detail {

inline int check(int result, std::error_code &ec) noexcept
{
    ec = result < 0 ? std::error_code(result, category()) : std::error_code();
    return result;
}

inline std::size_t count(int result, std::error_code &ec) noexcept
{
    return check(result, ec) < 0 ? 0 : static_cast<std::size_t>(result);
}

/* Of a call for which that nothing came in its time is an answer, too. */
inline std::optional<std::size_t> came(int result, std::error_code &ec) noexcept
{
    bool is_nothing = result == QNET_ERR_AGAIN || result == QNET_ERR_TIMEOUT;
    if (check(is_nothing ? QNET_OK : result, ec) < 0 || is_nothing)
        return std::nullopt;
    return static_cast<std::size_t>(result);
}

#ifdef __cpp_exceptions
/* Calls the form that takes a std::error_code, and throws what it was told. */
template <class Call> auto or_throw(Call call)
{
    std::error_code ec;
    if constexpr (std::is_void_v<decltype(call(ec))>) {
        call(ec);
        if (ec)
            throw error(ec.value());
    } else {
        auto result = call(ec);
        if (ec)
            throw error(ec.value());
        return result;
    }
}
#endif

/* Text as C takes it: NULL where it would be cut short at a NUL. */
class text_for_c {
public:
    explicit text_for_c(std::string_view text) : text_(text) {}

    const char *get() const noexcept
    {
        return text_.find('\0') == std::string::npos ? text_.c_str() : nullptr;
    }
    const char *get_unless_empty() const noexcept { return text_.empty() ? nullptr : get(); }

private:
    std::string text_;
};

/* Text as long as it is: asked for its length, then for itself, in case it grew between. */
template <class Give> std::string text(Give give, std::error_code &ec)
{
    std::string text;
    for (std::size_t len = count(give(nullptr, 0), ec); !ec && text.size() != len;) {
        text.resize(len + 1);
        len = count(give(text.data(), text.size()), ec);
        text.resize(len < text.size() ? len : text.size() - 1);
    }
    return text;
}

template <class T>
inline constexpr bool is_byte = std::is_void_v<T> || std::is_same_v<T, char> ||
                                std::is_same_v<T, signed char> ||
                                std::is_same_v<T, unsigned char> || std::is_same_v<T, std::byte>;

/*
 * Whether a view of T may be of From: of the same, or of what is bytes as well; and never a way
 * round const.
 */
template <class From, class T>
inline constexpr bool is_fit =
    (std::is_const_v<T> || !std::is_const_v<From>) &&
    (std::is_same_v<std::remove_const_t<From>, std::remove_const_t<T>> ||
     (is_byte<std::remove_const_t<From>> && is_byte<std::remove_const_t<T>>));

template <class Container>
using element = std::remove_pointer_t<decltype(std::data(std::declval<Container &>()))>;

/* A literal has a NUL at its end, which nobody means to send. */
template <class Container>
inline constexpr bool is_literal =
    std::is_array_v<Container> &&
    std::is_same_v<std::remove_cv_t<std::remove_extent_t<Container>>, char>;

/* Things in a row, lent for a call. */
template <class T> class view {
public:
    template <class From, std::enable_if_t<is_fit<From, T>, int> = 0>
    view(From *data, std::size_t size) noexcept
        : data_(static_cast<T *>(static_cast<anything *>(data))), size_(size)
    {
    }

    template <class Container,
              std::enable_if_t<is_fit<element<Container>, T> &&
                                   !is_literal<std::remove_reference_t<Container>> &&
                                   !std::is_same_v<std::decay_t<Container>, view>,
                               int> = 0>
    view(Container &&of) noexcept : view(std::data(of), std::size(of))
    {
    }

    T *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }

private:
    using anything = std::conditional_t<std::is_const_v<T>, const void, void>;

    T *data_;
    std::size_t size_;
};

template <class From, class T> using if_fit = std::enable_if_t<is_fit<From, T>, int>;

} // namespace detail

/*
 * Bytes to send: of a pointer and a length, or of what has both, as std::string_view, std::vector,
 * std::array and std::span have. The pointer is one to char, unsigned char (std::uint8_t),
 * std::byte or void; any other has to be cast by who means its bytes.
 */
using bytes = detail::view<const std::uint8_t>;

/* Room to receive into, under the same rules. */
using room = detail::view<std::uint8_t>;

/* Frames to send, and room for frames: a pointer and a count, or what has both. */
using frames = detail::view<const frame>;
using frame_room = detail::view<frame>;

/*
 * How long to wait: a number of milliseconds as in C (-1 without an end, 0 not at all), or a
 * std::chrono duration. That is rounded up to whole milliseconds; one below zero has passed, and
 * one of more than 24 days has no end. Without an end if nothing is given.
 */
class timeout {
public:
    timeout() noexcept = default;
    /* Of nothing that is longer than an int: a size is no time. */
    template <class Int,
              std::enable_if_t<std::is_same_v<decltype(+std::declval<Int>()), int>, int> = 0>
    timeout(Int ms) noexcept : ms_(ms)
    {
    }
    template <class Rep, class Period>
    timeout(const std::chrono::duration<Rep, Period> &time) noexcept
        : ms_(rounded(std::chrono::duration<double, std::milli>(time).count()))
    {
    }

    int ms() const noexcept { return ms_; }

private:
    static int rounded(double ms) noexcept
    {
        if (ms > std::numeric_limits<int>::max())
            return -1;
        return ms > 0 ? static_cast<int>(std::ceil(ms)) : 0;
    }

    int ms_ = -1;
};

/* Options and their values: `{{QNET_OPT_PAD, 1}, ...}`, or any container of such pairs. */
class options {
public:
    options() = default;
    options(std::initializer_list<std::pair<option, std::int64_t>> pairs) { add(pairs); }
    template <class Pairs, class = decltype(std::begin(std::declval<const Pairs &>())->second),
              std::enable_if_t<!std::is_same_v<Pairs, options>, int> = 0>
    options(const Pairs &pairs)
    {
        add(pairs);
    }

    /* As qnet_dial_with() takes them. */
    const std::int64_t *data() const noexcept { return words_.data(); }
    std::size_t size() const noexcept { return words_.size() / 2; }

private:
    template <class Pairs> void add(const Pairs &pairs)
    {
        for (const auto &one : pairs) {
            words_.push_back(one.first);
            words_.push_back(one.second);
        }
    }

    std::vector<std::int64_t> words_{};
};

namespace detail {

/*
 * What is called, by one thread at a time, and may be replaced by any at any time. It lives until
 * it is replaced and its last call has returned.
 */
template <class T> class place {
public:
    place() noexcept = default;
    place(const place &) = delete;
    place &operator=(const place &) = delete;
    ~place() { set(nullptr); }

    void set(std::unique_ptr<T> fresh) noexcept
    {
        T *before = held_.exchange(fresh.release());
        if (before != in_use())
            delete before;
    }

    /* Takes one away, unless another has taken its place. */
    void forget(T *which) noexcept
    {
        if (held_.compare_exchange_strong(which, nullptr))
            delete which;
    }

    /* Takes away what is being called now: it goes when that call returns. */
    void forget_called() noexcept
    {
        T *called = in_use();
        held_.compare_exchange_strong(called, nullptr);
    }

    /* A call, for which it is taken out of its place. Ending the thread ends the call, too. */
    class call {
    public:
        explicit call(place &from) noexcept
            : from_(from), taken_(from.held_.exchange(from.in_use()))
        {
        }
        call(const call &) = delete;
        call &operator=(const call &) = delete;
        ~call()
        {
            T *mark = from_.in_use();
            if (!from_.held_.compare_exchange_strong(mark, taken_))
                delete taken_; /* with which the place itself may go */
        }

        T *get() const noexcept { return taken_; }

    private:
        place &from_;
        T *const taken_;
    };

    /* Somebody's setting of what is called, here and then in the library. */
    class setting {
    public:
        explicit setting(place &of) noexcept
            : of_(of), number_(++of.begun_), was_alone_(of.ended_ == number_ - 1)
        {
        }
        setting(const setting &) = delete;
        setting &operator=(const setting &) = delete;
        ~setting() { ++of_.ended_; }

        /* Whether nobody else was setting meanwhile, so that the library has this one's. */
        bool is_alone() const noexcept { return was_alone_ && of_.begun_ == number_; }

    private:
        place &of_;
        const unsigned number_;
        const bool was_alone_;
    };

private:
    /* What stands in the place of one that is being called. */
    T *in_use() noexcept { return reinterpret_cast<T *>(this); }

    std::atomic<T *> held_{nullptr};
    std::atomic<unsigned> begun_{0};
    std::atomic<unsigned> ended_{0};
};

using frame_function = std::function<void(const std::uint8_t *data, std::size_t len)>;
using batch_function = std::function<void(const frame *all, std::size_t count)>;
using close_function = std::function<void(int reason)>;
using state_function = std::function<void(bool up)>;

/* How many calls of functions this thread is inside of. */
inline thread_local int callbacks = 0;

class callback {
public:
    callback() noexcept { ++callbacks; }
    callback(const callback &) = delete;
    callback &operator=(const callback &) = delete;
    ~callback() { --callbacks; }
};

/*
 * What a connection calls. It is shared by the owner of the connection, by the library until the
 * close handler has returned, which is the last, and by what it holds itself: so it lives while
 * that runs, whatever that does.
 */
class handlers {
public:
    struct drop {
        void operator()(handlers *shared) const noexcept
        {
            if (--shared->shares_ == 0)
                delete shared;
        }
    };
    using share = std::unique_ptr<handlers, drop>;

    /* A function; and its share, which goes after it. */
    template <class F> struct holder {
        share of;
        F function;
    };
    /* One of the two is there. */
    struct frame_functions {
        frame_function one;
        batch_function many;
    };

    template <class F> std::unique_ptr<holder<F>> hold(F function)
    {
        return std::unique_ptr<holder<F>>(new holder<F>{another(), std::move(function)});
    }

    share another() noexcept
    {
        ++shares_;
        return share(this);
    }

    /* Gives the library its share, which its call of the close handler gives back. */
    void join(qnet_conn *conn, std::error_code &ec)
    {
        std::lock_guard<std::mutex> guard(joining_);
        ec.clear();
        if (is_joined_)
            return;
        share library = another();
        if (check(qnet_set_close_handler(conn, closed, library.get()), ec) < 0)
            return;
        is_joined_ = true;
        static_cast<void>(library.release());
    }

    /* Set after the end, it runs now, as of qnet_set_close_handler(): once. */
    void on_close(close_function f)
    {
        {
            std::lock_guard<std::mutex> guard(mutex_);
            if (reason_ == QNET_OK) {
                closed_.swap(f);
                return;
            }
            if (is_told_ || !f)
                return;
            is_told_ = true;
        }
        f(reason_);
    }

    static void frame_came(void *self, const std::uint8_t *data, std::size_t len)
    {
        callback inside;
        place<holder<frame_functions>>::call call(static_cast<handlers *>(self)->receiver);
        if (!call.get())
            return;
        frame_functions &to = call.get()->function;
        if (to.one) {
            to.one(data, len);
        } else {
            frame one{data, len};
            to.many(&one, 1);
        }
    }

    static void batch_came(void *self, const frame *all, std::size_t count)
    {
        callback inside;
        place<holder<frame_functions>>::call call(static_cast<handlers *>(self)->receiver);
        if (!call.get())
            return;
        frame_functions &to = call.get()->function;
        if (to.many) {
            to.many(all, count);
        } else {
            for (std::size_t i = 0; i < count; i++)
                to.one(all[i].data, all[i].len);
        }
    }

    static void state_changed(void *self, int up)
    {
        callback inside;
        place<holder<state_function>>::call call(static_cast<handlers *>(self)->teller);
        if (call.get())
            call.get()->function(up != 0);
    }

    place<holder<frame_functions>> receiver{};
    place<holder<state_function>> teller{};

private:
    static void closed(void *library, int reason)
    {
        callback inside;
        share last(static_cast<handlers *>(library));
        close_function f;
        {
            std::lock_guard<std::mutex> guard(last->mutex_);
            f.swap(last->closed_);
            last->reason_ = reason;
            last->is_told_ = f != nullptr;
        }
        if (f)
            f(reason);
        last->receiver.set(nullptr);
        last->teller.set(nullptr);
    }

    std::atomic<unsigned> shares_{1}; /* the first is the owner's */
    std::mutex joining_{};
    bool is_joined_ = false;
    std::mutex mutex_{}; /* of all below */
    close_function closed_{};
    int reason_ = QNET_OK; /* of the end, once that was told to the library's last call */
    bool is_told_ = false;
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

    /* The handle, for the functions of qnet.h; NULL of an empty one. */
    qnet_conn *get() const noexcept { return handle_; }
    explicit operator bool() const noexcept { return handle_ != nullptr; }
    friend bool operator==(const conn_ref &a, const conn_ref &b) noexcept
    {
        return a.handle_ == b.handle_;
    }
    friend bool operator!=(const conn_ref &a, const conn_ref &b) noexcept { return !(a == b); }

    /* Sends one frame. May block, for as long as QNET_OPT_SEND_TIMEOUT_MS says. */
    void send(bytes one, std::error_code &ec) noexcept
    {
        detail::check(qnet_send(handle_, one.data(), one.size()), ec);
    }
    template <class Byte, detail::if_fit<Byte, const std::uint8_t> = 0>
    void send(Byte *data, std::size_t len, std::error_code &ec) noexcept
    {
        send(bytes(data, len), ec);
    }

    /* Sends frames in order, and tells how many were taken. May block, as send(). */
    std::size_t send_batch(frames all, std::error_code &ec) noexcept
    {
        return detail::count(qnet_send_batch(handle_, all.data(), all.size()), ec);
    }
    std::size_t send_batch(const frame *all, std::size_t count, std::error_code &ec) noexcept
    {
        return send_batch(frames(all, count), ec);
    }

    /* The same of frames in wire format, one after another. May block, as send(). */
    std::size_t send_packed(bytes wire, std::error_code &ec) noexcept
    {
        return detail::count(qnet_send_packed(handle_, wire.data(), wire.size()), ec);
    }
    template <class Byte, detail::if_fit<Byte, const std::uint8_t> = 0>
    std::size_t send_packed(Byte *wire, std::size_t len, std::error_code &ec) noexcept
    {
        return send_packed(bytes(wire, len), ec);
    }

    /* Waits until nothing that was taken is unwritten. May block, as send(). */
    void flush(std::error_code &ec) noexcept { detail::check(qnet_flush(handle_), ec); }

    /*
     * Receives a frame, and tells its length, or nothing where none came in that time. May block
     * for that time. May call back: the function for the end, where this call reports it.
     */
    std::optional<std::size_t> recv(room to, timeout time, std::error_code &ec) noexcept
    {
        return detail::came(qnet_recv(handle_, to.data(), to.size(), time.ms()), ec);
    }
    template <class Byte, detail::if_fit<Byte, std::uint8_t> = 0>
    std::optional<std::size_t> recv(Byte *buf, std::size_t cap, timeout time,
                                    std::error_code &ec) noexcept
    {
        return recv(room(buf, cap), time, ec);
    }

    /*
     * Receives frames, whose bytes are lent until the next receive, and tells how many: none where
     * none came in that time. May block and call back, as recv().
     */
    std::size_t recv_batch(frame_room to, timeout time, std::error_code &ec) noexcept
    {
        int result = qnet_recv_batch(handle_, to.data(), to.size(), time.ms());
        return detail::came(result, ec).value_or(0);
    }
    std::size_t recv_batch(frame *to, std::size_t count, timeout time,
                           std::error_code &ec) noexcept
    {
        return recv_batch(frame_room(to, count), time, ec);
    }

    /*
     * Receives frames in wire format, and tells their bytes: none where none came in that time. May
     * block and call back, as recv().
     */
    std::size_t recv_packed(room to, timeout time, std::error_code &ec) noexcept
    {
        int result = qnet_recv_packed(handle_, to.data(), to.size(), time.ms());
        return detail::came(result, ec).value_or(0);
    }
    template <class Byte, detail::if_fit<Byte, std::uint8_t> = 0>
    std::size_t recv_packed(Byte *buf, std::size_t cap, timeout time,
                            std::error_code &ec) noexcept
    {
        return recv_packed(room(buf, cap), time, ec);
    }

    /* The descriptor to poll, as of qnet_fd(), which stays the library's. */
    int fd(std::error_code &ec) const noexcept
    {
        int fd = detail::check(qnet_fd(handle_), ec);
        return ec ? -1 : fd;
    }

    /* Waits for its end, and tells whether it came in that time. May block for that time. */
    bool wait(timeout time, std::error_code &ec) noexcept
    {
        return detail::came(qnet_wait(handle_, time.ms()), ec).has_value();
    }

    /* QNET_OK while it is open, else how it ended. */
    int close_reason() const noexcept { return qnet_close_reason(handle_); }

    /* Ends it without waiting. May call back: the function for the end. */
    void shutdown(std::error_code &ec) noexcept { detail::check(qnet_shutdown(handle_), ec); }

    /* Its own hardware address, for a program that answers as a device. */
    mac hwaddr(std::error_code &ec) const noexcept
    {
        mac address{};
        detail::check(qnet_hwaddr(handle_, address.data()), ec);
        return address;
    }
    void set_hwaddr(const mac &address, std::error_code &ec) noexcept
    {
        detail::check(qnet_set_hwaddr(handle_, address.data()), ec);
    }

    /* The address of this end, and the peer's. */
    std::string local_addr(std::error_code &ec) const
    {
        return detail::text(
            [this](char *buf, std::size_t cap) { return qnet_local_addr(handle_, buf, cap); }, ec);
    }
    std::string peer_addr(std::error_code &ec) const
    {
        return detail::text(
            [this](char *buf, std::size_t cap) { return qnet_peer_addr(handle_, buf, cap); }, ec);
    }

    /* The -netdev argument for a QEMU (702 is 7.2) at the other end of a datagram connection. */
    std::string netdev(std::string_view id, int qemu_version, std::error_code &ec) const
    {
        detail::text_for_c name(id);
        auto give = [&](char *buf, std::size_t cap) {
            return qnet_netdev(handle_, name.get(), qemu_version, buf, cap);
        };
        return detail::text(give, ec);
    }

    /* Its counts. */
    qnet::stats stats(std::error_code &ec) const noexcept
    {
        qnet::stats counts{};
        detail::check(qnet_get_stats(handle_, &counts, sizeof counts), ec);
        return counts;
    }

    /* Sets an option, or tells its value. */
    void set(option which, std::int64_t value, std::error_code &ec) noexcept
    {
        detail::check(qnet_set(handle_, which, value), ec);
    }
    std::int64_t get(option which, std::error_code &ec) const noexcept
    {
        std::int64_t value = 0;
        detail::check(qnet_get(handle_, which, &value), ec);
        return value;
    }

#ifdef __cpp_exceptions
    /* The same, throwing. */
    void send(bytes one)
    {
        detail::or_throw([&](auto &ec) { send(one, ec); });
    }
    template <class Byte, detail::if_fit<Byte, const std::uint8_t> = 0>
    void send(Byte *data, std::size_t len)
    {
        send(bytes(data, len));
    }
    std::size_t send_batch(frames all)
    {
        return detail::or_throw([&](auto &ec) { return send_batch(all, ec); });
    }
    std::size_t send_batch(const frame *all, std::size_t count)
    {
        return send_batch(frames(all, count));
    }
    std::size_t send_packed(bytes wire)
    {
        return detail::or_throw([&](auto &ec) { return send_packed(wire, ec); });
    }
    template <class Byte, detail::if_fit<Byte, const std::uint8_t> = 0>
    std::size_t send_packed(Byte *wire, std::size_t len)
    {
        return send_packed(bytes(wire, len));
    }
    void flush()
    {
        detail::or_throw([&](auto &ec) { flush(ec); });
    }
    std::optional<std::size_t> recv(room to, timeout time = {})
    {
        return detail::or_throw([&](auto &ec) { return recv(to, time, ec); });
    }
    template <class Byte, detail::if_fit<Byte, std::uint8_t> = 0>
    std::optional<std::size_t> recv(Byte *buf, std::size_t cap, timeout time = {})
    {
        return recv(room(buf, cap), time);
    }
    std::size_t recv_batch(frame_room to, timeout time = {})
    {
        return detail::or_throw([&](auto &ec) { return recv_batch(to, time, ec); });
    }
    std::size_t recv_batch(frame *to, std::size_t count, timeout time = {})
    {
        return recv_batch(frame_room(to, count), time);
    }
    std::size_t recv_packed(room to, timeout time = {})
    {
        return detail::or_throw([&](auto &ec) { return recv_packed(to, time, ec); });
    }
    template <class Byte, detail::if_fit<Byte, std::uint8_t> = 0>
    std::size_t recv_packed(Byte *buf, std::size_t cap, timeout time = {})
    {
        return recv_packed(room(buf, cap), time);
    }
    int fd() const
    {
        return detail::or_throw([&](auto &ec) { return fd(ec); });
    }
    bool wait(timeout time = {})
    {
        return detail::or_throw([&](auto &ec) { return wait(time, ec); });
    }
    void shutdown()
    {
        detail::or_throw([&](auto &ec) { shutdown(ec); });
    }
    mac hwaddr() const
    {
        return detail::or_throw([&](auto &ec) { return hwaddr(ec); });
    }
    void set_hwaddr(const mac &address)
    {
        detail::or_throw([&](auto &ec) { set_hwaddr(address, ec); });
    }
    std::string local_addr() const
    {
        return detail::or_throw([&](auto &ec) { return local_addr(ec); });
    }
    std::string peer_addr() const
    {
        return detail::or_throw([&](auto &ec) { return peer_addr(ec); });
    }
    std::string netdev(std::string_view id, int qemu_version) const
    {
        return detail::or_throw([&](auto &ec) { return netdev(id, qemu_version, ec); });
    }
    qnet::stats stats() const
    {
        return detail::or_throw([&](auto &ec) { return stats(ec); });
    }
    void set(option which, std::int64_t value)
    {
        detail::or_throw([&](auto &ec) { set(which, value, ec); });
    }
    std::int64_t get(option which) const
    {
        return detail::or_throw([&](auto &ec) { return get(which, ec); });
    }
#endif

private:
    qnet_conn *handle_ = nullptr;
};

/*
 * A connection that closes itself. Closing it, by reset(), by its destructor or by giving it
 * another, may block, as qnet_close() does, and may call back: the function for its end.
 *
 * The functions that it is given must not throw; they may do anything with the connection, closing
 * it included. One that is replaced is freed when no call of it is running any more, and all are
 * when that for the end has returned, or where there is none, at the end: so a function may own
 * what owns the connection, until then.
 */
class conn : public conn_ref {
public:
    conn() noexcept = default;
    /* Takes over a handle. */
    explicit conn(qnet_conn *handle) noexcept : conn_ref(handle) {}
    conn(conn &&other) noexcept
        : conn_ref(other.take_handle()), handlers_(other.handlers_.exchange(nullptr))
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
        handlers_ = other.handlers_.exchange(handlers_);
    }

    /* Closes it now. */
    void reset() noexcept
    {
        if (*this)
            qnet_close(take_handle());
        forget_handlers();
    }

    /*
     * Gives up the handle, which is the caller's to close with qnet_close(). The functions that
     * were set go on being called until the end. Who sets a close handler by qnet.h, or by another
     * conn that takes the handle over, takes the place of them all as far as the end is concerned,
     * and they are never freed.
     */
    [[nodiscard]] qnet_conn *release() noexcept
    {
        forget_handlers();
        return take_handle();
    }

    /* Dials. May block, as long as the system does, or as QNET_OPT_DIAL_TIMEOUT_MS says. */
    static conn dial(std::string_view network, std::string_view address, const options &with,
                     std::error_code &ec)
    {
        qnet_conn *handle = nullptr;
        detail::text_for_c kind(network), where(address);
        detail::check(
            qnet_dial_with(kind.get(), where.get(), with.data(), with.size(), &handle), ec);
        return conn(handle);
    }

    /* Two that are each other's peer. */
    static std::pair<conn, conn> pair(std::error_code &ec) noexcept
    {
        qnet_conn *a = nullptr, *b = nullptr;
        detail::check(qnet_socketpair(&a, &b), ec);
        return {conn(a), conn(b)};
    }

    /* One whose other end is a descriptor, for a child QEMU. It is the caller's. */
    static std::pair<conn, int> pair_with_fd(std::error_code &ec) noexcept
    {
        qnet_conn *handle = nullptr;
        int fd = -1;
        detail::check(qnet_socketpair_fd(&handle, &fd), ec);
        return {conn(handle), fd};
    }

    /* One of a connected socket or an open TAP, which is still the caller's if this fails. */
    static conn from_fd(int fd, std::error_code &ec) noexcept
    {
        qnet_conn *handle = nullptr;
        detail::check(qnet_from_fd(fd, &handle), ec);
        return conn(handle);
    }

    /*
     * One of datagrams. An empty address is NULL of qnet_dgram(): as the remote, whoever sends first.
     * May block, to look up a name.
     */
    static conn dgram(std::string_view network, std::string_view local, std::string_view remote,
                      std::error_code &ec)
    {
        qnet_conn *handle = nullptr;
        detail::text_for_c kind(network), here(local), there(remote);
        detail::check(qnet_dgram(kind.get(), here.get_unless_empty(), there.get_unless_empty(),
                                 &handle),
                      ec);
        return conn(handle);
    }

    /* One of a TAP. If the name is empty the system gives it one: local_addr(). */
    static conn tap(std::string_view name, std::error_code &ec)
    {
        qnet_conn *handle = nullptr;
        detail::check(qnet_tap(detail::text_for_c(name).get(), &handle), ec);
        return conn(handle);
    }

    /*
     * Has a function called with each frame received, or with as many frames as are there, on a
     * thread of the connection's own; one takes the other's place. An empty function (nullptr)
     * stops receiving.
     *
     * May block: outside of functions that the library calls, and unless QNET_OPT_WAIT is 0, it
     * returns when the one before is not running, and never will again; that has then been freed.
     * Inside, one that is taken away, and not replaced, may have a last call to come, and is kept
     * until that or the end.
     */
    void on_frame(detail::frame_function f, std::error_code &ec)
    {
        auto handler = f ? detail::handlers::frame_came : nullptr;
        set_receiver(qnet_set_handler, handler, {std::move(f), nullptr}, ec);
    }
    void on_batch(detail::batch_function f, std::error_code &ec)
    {
        auto handler = f ? detail::handlers::batch_came : nullptr;
        set_receiver(qnet_set_batch_handler, handler, {nullptr, std::move(f)}, ec);
    }

    /*
     * Has a function called when the connection, of those that are dialled again
     * (QNET_OPT_RECONNECT_MS), has gone down, and when it is up again; nullptr for none. May block
     * as on_frame().
     */
    void on_state(detail::state_function f, std::error_code &ec)
    {
        auto handler = f ? detail::handlers::state_changed : nullptr;
        auto shared = joined(ec);
        if (!ec)
            set_in(shared->teller, qnet_set_state_handler, handler, shared.get(),
                   handler ? shared->hold(std::move(f)) : nullptr, ec);
    }

    /*
     * Has a function called once when the connection has ended, as qnet_set_close_handler() says;
     * nullptr for none. May call back: that function, where the end came before and was not told to
     * another.
     */
    void on_close(detail::close_function f, std::error_code &ec)
    {
        auto shared = joined(ec);
        if (!ec)
            shared->on_close(std::move(f));
    }

#ifdef __cpp_exceptions
    /* The same, throwing. */
    static conn dial(std::string_view network, std::string_view address, const options &with = {})
    {
        return detail::or_throw([&](auto &ec) { return dial(network, address, with, ec); });
    }
    static std::pair<conn, conn> pair()
    {
        return detail::or_throw([](auto &ec) { return pair(ec); });
    }
    static std::pair<conn, int> pair_with_fd()
    {
        return detail::or_throw([](auto &ec) { return pair_with_fd(ec); });
    }
    static conn from_fd(int fd)
    {
        return detail::or_throw([&](auto &ec) { return from_fd(fd, ec); });
    }
    static conn dgram(std::string_view network, std::string_view local, std::string_view remote)
    {
        return detail::or_throw([&](auto &ec) { return dgram(network, local, remote, ec); });
    }
    static conn tap(std::string_view name = {})
    {
        return detail::or_throw([&](auto &ec) { return tap(name, ec); });
    }
    void on_frame(detail::frame_function f)
    {
        detail::or_throw([&](auto &ec) { on_frame(std::move(f), ec); });
    }
    void on_batch(detail::batch_function f)
    {
        detail::or_throw([&](auto &ec) { on_batch(std::move(f), ec); });
    }
    void on_state(detail::state_function f)
    {
        detail::or_throw([&](auto &ec) { on_state(std::move(f), ec); });
    }
    void on_close(detail::close_function f)
    {
        detail::or_throw([&](auto &ec) { on_close(std::move(f), ec); });
    }
#endif

private:
    qnet_conn *take_handle() noexcept
    {
        qnet_conn *handle = get();
        static_cast<conn_ref &>(*this) = conn_ref();
        return handle;
    }

    void forget_handlers() noexcept
    {
        detail::handlers::share own(handlers_.exchange(nullptr));
    }

    /* Of threads that come at once one makes it, and all have it known to the library. */
    detail::handlers::share joined(std::error_code &ec)
    {
        detail::handlers *shared = handlers_;
        if (!shared) {
            detail::handlers::share fresh(new detail::handlers);
            if (handlers_.compare_exchange_strong(shared, fresh.get()))
                shared = fresh.release();
        }
        shared->join(get(), ec);
        return shared->another();
    }

    template <class InC, class Handler>
    void set_receiver(InC in_c, Handler handler, detail::handlers::frame_functions f,
                      std::error_code &ec)
    {
        auto shared = joined(ec);
        if (!ec)
            set_in(shared->receiver, in_c, handler, shared.get(),
                   handler ? shared->hold(std::move(f)) : nullptr, ec);
    }

    /*
     * Sets what is called: first here, so that the library finds it, or last where it is nothing.
     */
    template <class T, class InC, class Handler>
    void set_in(detail::place<T> &at, InC in_c, Handler handler, detail::handlers *shared,
                std::unique_ptr<T> fresh, std::error_code &ec)
    {
        typename detail::place<T>::setting setting(at);
        T *mine = fresh.get();
        if (mine)
            at.set(std::move(fresh));
        detail::check(in_c(get(), handler, mine ? shared : nullptr), ec);
        if (mine && ec)
            at.forget(mine);
        if (mine || ec || !setting.is_alone())
            return;
        if (has_waited())
            at.set(nullptr);
        else
            at.forget_called();
    }

    /* Whether setting a handler has waited for the one before. */
    bool has_waited() const noexcept
    {
        std::error_code ec;
        return detail::callbacks == 0 && get(QNET_OPT_WAIT, ec) != 0;
    }

    std::atomic<detail::handlers *> handlers_{nullptr};
};

/*
 * Waits until some of the connections (conn or conn_ref, in any container) have a frame or an end
 * to give, and tells which: their places among those given, counted from 0, in order. None where
 * none had in that time. May block for that time.
 */
template <class Conns>
std::vector<std::size_t> poll(const Conns &conns, timeout time, std::error_code &ec)
{
    std::vector<qnet_conn *> handles;
    for (const conn_ref &one : conns)
        handles.push_back(one.get());
    std::vector<std::uint8_t> ready(handles.size());
    detail::check(qnet_poll(handles.data(), ready.data(), handles.size(), time.ms()), ec);
    std::vector<std::size_t> places;
    for (std::size_t i = 0; !ec && i < ready.size(); i++)
        if (ready[i])
            places.push_back(i);
    return places;
}
inline std::vector<std::size_t> poll(std::initializer_list<conn_ref> conns, timeout time,
                                     std::error_code &ec)
{
    return poll<std::initializer_list<conn_ref>>(conns, time, ec);
}

#ifdef __cpp_exceptions
template <class Conns> std::vector<std::size_t> poll(const Conns &conns, timeout time = {})
{
    return detail::or_throw([&](auto &ec) { return poll(conns, time, ec); });
}
inline std::vector<std::size_t> poll(std::initializer_list<conn_ref> conns, timeout time = {})
{
    return poll<std::initializer_list<conn_ref>>(conns, time);
}
#endif

/*
 * A listener that closes itself. Its socket file goes with it; its connections live on.
 */
class listener {
public:
    listener() noexcept = default;
    /* Takes over a handle. */
    explicit listener(qnet_listener *handle) noexcept : handle_(handle) {}

    /* Closes it now. */
    void reset() noexcept { handle_.reset(); }

    /* Gives up the handle, which is the caller's to close with qnet_listener_close(). */
    [[nodiscard]] qnet_listener *release() noexcept { return handle_.release(); }

    /* Listens at an address. May block, to look up a name. */
    static listener listen(std::string_view network, std::string_view address, std::error_code &ec)
    {
        qnet_listener *handle = nullptr;
        detail::text_for_c kind(network), where(address);
        detail::check(qnet_listen(kind.get(), where.get(), &handle), ec);
        return listener(handle);
    }

    /* One of a listening socket, which is still the caller's if this fails. */
    static listener from_fd(int fd, std::error_code &ec) noexcept
    {
        qnet_listener *handle = nullptr;
        detail::check(qnet_listener_from_fd(fd, &handle), ec);
        return listener(handle);
    }

    /*
     * A connection of a peer; an empty one where nobody came in that time. May block for that time.
     */
    conn accept(timeout time, std::error_code &ec) noexcept
    {
        qnet_conn *handle = nullptr;
        detail::came(qnet_accept(get(), time.ms(), &handle), ec);
        return conn(handle);
    }

    /* The handle, for the functions of qnet.h; NULL of an empty one. */
    qnet_listener *get() const noexcept { return handle_.get(); }
    explicit operator bool() const noexcept { return handle_ != nullptr; }

    /* The descriptor to poll: readable when somebody waits. It stays the library's. */
    int fd(std::error_code &ec) const noexcept
    {
        int fd = detail::check(qnet_listener_fd(get()), ec);
        return ec ? -1 : fd;
    }

    /* Its address, as dial() takes it. */
    std::string addr(std::error_code &ec) const
    {
        return detail::text(
            [this](char *buf, std::size_t cap) { return qnet_listener_addr(get(), buf, cap); }, ec);
    }

    /* The -netdev argument with which a QEMU (702 is 7.2) joins. */
    std::string netdev(std::string_view id, int qemu_version, std::error_code &ec) const
    {
        detail::text_for_c name(id);
        auto give = [&](char *buf, std::size_t cap) {
            return qnet_listener_netdev(get(), name.get(), qemu_version, buf, cap);
        };
        return detail::text(give, ec);
    }

    /* Sets an option, its own or one that its connections start with, or tells its value. */
    void set(option which, std::int64_t value, std::error_code &ec) noexcept
    {
        detail::check(qnet_listener_set(get(), which, value), ec);
    }
    std::int64_t get(option which, std::error_code &ec) const noexcept
    {
        std::int64_t value = 0;
        detail::check(qnet_listener_get(get(), which, &value), ec);
        return value;
    }

#ifdef __cpp_exceptions
    /* The same, throwing. */
    static listener listen(std::string_view network, std::string_view address)
    {
        return detail::or_throw([&](auto &ec) { return listen(network, address, ec); });
    }
    static listener from_fd(int fd)
    {
        return detail::or_throw([&](auto &ec) { return from_fd(fd, ec); });
    }
    conn accept(timeout time = {})
    {
        return detail::or_throw([&](auto &ec) { return accept(time, ec); });
    }
    int fd() const
    {
        return detail::or_throw([&](auto &ec) { return fd(ec); });
    }
    std::string addr() const
    {
        return detail::or_throw([&](auto &ec) { return addr(ec); });
    }
    std::string netdev(std::string_view id, int qemu_version) const
    {
        return detail::or_throw([&](auto &ec) { return netdev(id, qemu_version, ec); });
    }
    void set(option which, std::int64_t value)
    {
        detail::or_throw([&](auto &ec) { set(which, value, ec); });
    }
    std::int64_t get(option which) const
    {
        return detail::or_throw([&](auto &ec) { return get(which, ec); });
    }
#endif

private:
    struct close {
        void operator()(qnet_listener *handle) const noexcept { qnet_listener_close(handle); }
    };

    std::unique_ptr<qnet_listener, close> handle_{};
};

/*
 * A switch that closes itself. Closing it, by reset(), by its destructor or by giving it another,
 * may block, and may call back, as closing the connections that it served does.
 */
class hub {
public:
    /* None. */
    hub(std::nullptr_t) noexcept {}
    /* Takes over a handle. */
    explicit hub(qnet_hub *handle) noexcept : handle_(handle) {}
    /* A new one; none if that fails. */
    explicit hub(std::error_code &ec) noexcept
    {
        qnet_hub *handle = nullptr;
        detail::check(qnet_hub_new(&handle), ec);
        handle_.reset(handle);
    }

    /* Closes it now. */
    void reset() noexcept { handle_.reset(); }

    /* Gives up the handle, which is the caller's to close with qnet_hub_close(). */
    [[nodiscard]] qnet_hub *release() noexcept { return handle_.release(); }

    /* Attaches a connection, or detaches it, which may block while the hub is forwarding. */
    void attach(const conn_ref &port, std::error_code &ec) noexcept
    {
        detail::check(qnet_hub_attach(get(), port.get()), ec);
    }
    void detach(const conn_ref &port, std::error_code &ec) noexcept
    {
        detail::check(qnet_hub_detach(get(), port.get()), ec);
    }

    /* The program's own device on it. */
    conn port(std::error_code &ec) noexcept
    {
        qnet_conn *handle = nullptr;
        detail::check(qnet_hub_port(get(), &handle), ec);
        return conn(handle);
    }

    /* Accepts in the background. The hub closes the listener, unless that was closed before. */
    void serve(const listener &from, std::error_code &ec) noexcept
    {
        detail::check(qnet_hub_serve(get(), from.get()), ec);
    }

    /* What is attached, in no order. */
    std::vector<conn_ref> ports(std::error_code &ec) const
    {
        std::vector<qnet_conn *> handles;
        std::size_t count = detail::count(qnet_hub_ports(get(), nullptr, 0), ec);
        while (count > handles.size()) {
            handles.resize(count);
            count = detail::count(qnet_hub_ports(get(), handles.data(), handles.size()), ec);
        }
        handles.resize(count);
        return std::vector<conn_ref>(handles.begin(), handles.end());
    }

    /* The handle, for the functions of qnet.h; NULL of none. */
    qnet_hub *get() const noexcept { return handle_.get(); }
    explicit operator bool() const noexcept { return handle_ != nullptr; }

    /* Its counts. */
    hub_stats stats(std::error_code &ec) const noexcept
    {
        hub_stats counts{};
        detail::check(qnet_hub_get_stats(get(), &counts, sizeof counts), ec);
        return counts;
    }

    /* Sets an option, or tells its value. */
    void set(option which, std::int64_t value, std::error_code &ec) noexcept
    {
        detail::check(qnet_hub_set(get(), which, value), ec);
    }
    std::int64_t get(option which, std::error_code &ec) const noexcept
    {
        std::int64_t value = 0;
        detail::check(qnet_hub_get(get(), which, &value), ec);
        return value;
    }

#ifdef __cpp_exceptions
    /* The same, throwing. */
    hub() : hub(nullptr)
    {
        *this = detail::or_throw([](auto &ec) { return hub(ec); });
    }
    void attach(const conn_ref &port)
    {
        detail::or_throw([&](auto &ec) { attach(port, ec); });
    }
    void detach(const conn_ref &port)
    {
        detail::or_throw([&](auto &ec) { detach(port, ec); });
    }
    conn port()
    {
        return detail::or_throw([&](auto &ec) { return port(ec); });
    }
    void serve(const listener &from)
    {
        detail::or_throw([&](auto &ec) { serve(from, ec); });
    }
    std::vector<conn_ref> ports() const
    {
        return detail::or_throw([&](auto &ec) { return ports(ec); });
    }
    hub_stats stats() const
    {
        return detail::or_throw([&](auto &ec) { return stats(ec); });
    }
    void set(option which, std::int64_t value)
    {
        detail::or_throw([&](auto &ec) { set(which, value, ec); });
    }
    std::int64_t get(option which) const
    {
        return detail::or_throw([&](auto &ec) { return get(which, ec); });
    }
#endif

private:
    struct close {
        void operator()(qnet_hub *handle) const noexcept { qnet_hub_close(handle); }
    };

    std::unique_ptr<qnet_hub, close> handle_{};
};

/* A cable between two connections; and taking it out, which may block while it is forwarding. */
inline void link(const conn_ref &a, const conn_ref &b, std::error_code &ec) noexcept
{
    detail::check(qnet_link(a.get(), b.get()), ec);
}
inline void unlink(const conn_ref &one, std::error_code &ec) noexcept
{
    detail::check(qnet_unlink(one.get()), ec);
}

#ifdef __cpp_exceptions
inline void link(const conn_ref &a, const conn_ref &b)
{
    detail::or_throw([&](auto &ec) { link(a, b, ec); });
}
inline void unlink(const conn_ref &one)
{
    detail::or_throw([&](auto &ec) { unlink(one, ec); });
}
#endif

} // namespace qnet

#endif
