/*
 * qnet.hpp - libqnet for C++17 and later. Handles close themselves, handlers are std::function, and
 * failures are exceptions or std::error_code. The header is all there is; what a call does, and
 * with which codes it fails, is described at the function of the same name in qnet.h.
 *
 * Every function that can fail has two forms, as in std::filesystem. One takes a std::error_code as
 * its last argument and throws nothing but std::bad_alloc; the other throws qnet::error, and does
 * not exist under -fno-exceptions. When a call fails, its result is 0, false, empty, or -1 for a
 * descriptor.
 *
 * A function blocks only if its comment says so, and calls a function of the program on the calling
 * thread only if its comment says so. Any thread may call anything at any time, with one exception:
 * moving, resetting or destroying an object, and taking its handle from it, must not happen while
 * another thread uses the same object.
 *
 * Text (networks, addresses, ids) need not end with a NUL. A NUL inside it gives QNET_ERR_INVALID.
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
using impair_stats = ::qnet_impair_stats;
using capture_stats = ::qnet_capture_stats;
using cred = ::qnet_cred;
using direction = ::qnet_direction;
using fdb_entry = ::qnet_fdb_entry;
using mac = std::array<std::uint8_t, 6>;

namespace detail {

/*
 * The codes of qnet.h as an error category. Each shared object may have an instance of its own, so
 * categories are compared by name.
 */
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
 * The category of qnet.h's codes. `ec == QNET_ERR_REFUSED` compares an error with one of them, even
 * if `ec` comes from another shared object. `ec == std::errc::connection_refused` works too, for
 * the codes that have an equivalent in std::errc.
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

/* These stand beside the enum, where argument-dependent lookup finds them. */
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

/* Thrown when a call has failed. what() says in full what was attempted and why it failed. */
class [[gnu::visibility("default")]] error : public std::system_error {
public:
    /* For this thread's last call, which returned `value`. */
    explicit error(int value) : std::system_error(value, category()), text_(text(value)) {}

    const char *what() const noexcept override { return text_.what(); }

private:
    /*
     * A program that polls expects these three codes, and they leave no text in qnet_last_error().
     */
    static const char *text(int value)
    {
        bool is_told = value != QNET_ERR_AGAIN && value != QNET_ERR_TIMEOUT &&
                       value != QNET_ERR_INTERRUPTED;
        return is_told ? qnet_last_error() : qnet_strerror(value);
    }

    std::runtime_error text_; /* an exception, because copying one does not throw */
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

/* For calls where it is a result, and not a failure, that nothing came in time. */
inline std::optional<std::size_t> came(int result, std::error_code &ec) noexcept
{
    bool is_nothing = result == QNET_ERR_AGAIN || result == QNET_ERR_TIMEOUT;
    if (check(is_nothing ? QNET_OK : result, ec) < 0 || is_nothing)
        return std::nullopt;
    return static_cast<std::size_t>(result);
}

#ifdef __cpp_exceptions
/* Calls the form that takes a std::error_code, and throws if it reports a failure. */
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

/* A C string; NULL if the text contains a NUL, which would cut it short. */
class text_for_c {
public:
    explicit text_for_c(std::string_view text) : text_(text) {}

    const char *get() const noexcept
    {
        return text_.find('\0') == std::string::npos ? text_.c_str() : nullptr;
    }
    /* The text, or one that is not understood: NULL would be understood, as none. */
    const char *get_as_spec() const noexcept { return get() ? get() : "\\0"; }
    /* NULL for none, or one that is no name, as it is not UTF-8: NULL would be none. */
    const char *get_as_name() const noexcept { return text_.empty() ? nullptr : get() ? get() : "\xff"; }
    const char *get_unless_empty() const noexcept { return text_.empty() ? nullptr : get(); }

private:
    std::string text_;
};

/*
 * Gets a text of any length: asks for the length, then for the text, and again if it has grown in
 * between.
 */
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
 * Whether a view of T may refer to elements of type From: both are the same type, or both are kinds
 * of byte; and const is never removed.
 */
template <class From, class T>
inline constexpr bool is_fit =
    (std::is_const_v<T> || !std::is_const_v<From>) &&
    (std::is_same_v<std::remove_const_t<From>, std::remove_const_t<T>> ||
     (is_byte<std::remove_const_t<From>> && is_byte<std::remove_const_t<T>>));

template <class Container>
using element = std::remove_pointer_t<decltype(std::data(std::declval<Container &>()))>;

/* A string literal ends with a NUL, which nobody means to send. */
template <class Container>
inline constexpr bool is_literal =
    std::is_array_v<Container> &&
    std::is_same_v<std::remove_cv_t<std::remove_extent_t<Container>>, char>;

/* Contiguous elements that are lent for the duration of a call. */
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
 * Bytes to send: a pointer and a length, or anything that has both, such as std::string_view,
 * std::vector, std::array or std::span. The elements are char, unsigned char (std::uint8_t) or
 * std::byte, or the pointer is to void. Pointers to other types have to be cast.
 */
using bytes = detail::view<const std::uint8_t>;

/* A buffer to receive into. The same types are accepted as for bytes. */
using room = detail::view<std::uint8_t>;

/*
 * Frames to send, and an array to receive frames into: a pointer and a count, or anything that has
 * both.
 */
using frames = detail::view<const frame>;
using frame_room = detail::view<frame>;

/*
 * How long to wait: a number of milliseconds as in C (-1 waits without limit, 0 does not wait) or a
 * std::chrono duration. A duration is rounded up to whole milliseconds; a negative one counts as 0,
 * and one of more than 24 days as unlimited. The default is to wait without limit.
 */
class timeout {
public:
    timeout() noexcept = default;
    /* Does not accept types wider than int, because a size is not a time. */
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

    /* The pairs in the form that qnet_dial_with() takes. */
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
 * Holds a function that one thread at a time calls and that any thread may replace at any time. The
 * function lives until it has been replaced and its last call has returned.
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

    /* Removes this function, unless another has replaced it. */
    void forget(T *which) noexcept
    {
        if (held_.compare_exchange_strong(which, nullptr))
            delete which;
    }

    /* Removes the function that is being called now; it is freed when that call returns. */
    void forget_called() noexcept
    {
        T *called = in_use();
        held_.compare_exchange_strong(called, nullptr);
    }

    /*
     * A call in progress, during which the function is not in its place. If the thread ends inside
     * the call, the call ends too.
     */
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
                delete taken_; /* this may also destroy the place itself */
        }

        T *get() const noexcept { return taken_; }

    private:
        place &from_;
        T *const taken_;
    };

    /* One caller setting the function: first here, then in the library. */
    class setting {
    public:
        explicit setting(place &of) noexcept
            : of_(of), number_(++of.begun_), was_alone_(of.ended_ == number_ - 1)
        {
        }
        setting(const setting &) = delete;
        setting &operator=(const setting &) = delete;
        ~setting() { ++of_.ended_; }

        /*
         * Whether no other caller was setting at the same time, so that the library has this
         * caller's.
         */
        bool is_alone() const noexcept { return was_alone_ && of_.begun_ == number_; }

    private:
        place &of_;
        const unsigned number_;
        const bool was_alone_;
    };

private:
    /* Marks the place while its function is being called. */
    T *in_use() noexcept { return reinterpret_cast<T *>(this); }

    std::atomic<T *> held_{nullptr};
    std::atomic<unsigned> begun_{0};
    std::atomic<unsigned> ended_{0};
};

using frame_function = std::function<void(const std::uint8_t *data, std::size_t len)>;
using batch_function = std::function<void(const frame *all, std::size_t count)>;
using close_function = std::function<void(int reason)>;
using state_function = std::function<void(bool up)>;

/* How many calls of handlers the current thread is inside of. */
inline thread_local int callbacks = 0;

class callback {
public:
    callback() noexcept { ++callbacks; }
    callback(const callback &) = delete;
    callback &operator=(const callback &) = delete;
    ~callback() { --callbacks; }
};

/*
 * The handlers of a connection. The object has three kinds of owners: the conn, the library (until
 * the close handler, the last of all, has returned), and each handler that it holds. So it lives as
 * long as any handler runs, whatever that handler does.
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

    /* A function, and a share in the handlers that is given up after it. */
    template <class F> struct holder {
        share of;
        F function;
    };
    /* One of the two is set. */
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

    /* Gives the library its share, which is given back when the library calls the close handler. */
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

    /*
     * If the connection has already ended, the handler runs now, once, as described at
     * qnet_set_close_handler().
     */
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

    std::atomic<unsigned> shares_{1}; /* the first belongs to the conn */
    std::mutex joining_{};
    bool is_joined_ = false;
    std::mutex mutex_{}; /* protects everything below */
    close_function closed_{};
    int reason_ = QNET_OK; /* why the connection ended, once the library has called closed() */
    bool is_told_ = false;
};

} // namespace detail

/*
 * A connection that somebody else closes, such as those that hub::ports() returns. Copies refer to
 * the same connection. If it has been closed, calls give QNET_ERR_HANDLE.
 */
class conn_ref {
public:
    conn_ref() noexcept = default;
    explicit conn_ref(qnet_conn *handle) noexcept : handle_(handle) {}

    /* The handle, for use with the functions of qnet.h; NULL if this is empty. */
    qnet_conn *get() const noexcept { return handle_; }
    explicit operator bool() const noexcept { return handle_ != nullptr; }
    friend bool operator==(const conn_ref &a, const conn_ref &b) noexcept
    {
        return a.handle_ == b.handle_;
    }
    friend bool operator!=(const conn_ref &a, const conn_ref &b) noexcept { return !(a == b); }

    /* Sends one frame. May block, for at most QNET_OPT_SEND_TIMEOUT_MS. */
    void send(bytes one, std::error_code &ec) noexcept
    {
        detail::check(qnet_send(handle_, one.data(), one.size()), ec);
    }
    template <class Byte, detail::if_fit<Byte, const std::uint8_t> = 0>
    void send(Byte *data, std::size_t len, std::error_code &ec) noexcept
    {
        send(bytes(data, len), ec);
    }

    /* Sends frames in order. Returns how many were taken. May block, as send(). */
    std::size_t send_batch(frames all, std::error_code &ec) noexcept
    {
        return detail::count(qnet_send_batch(handle_, all.data(), all.size()), ec);
    }
    std::size_t send_batch(const frame *all, std::size_t count, std::error_code &ec) noexcept
    {
        return send_batch(frames(all, count), ec);
    }

    /*
     * Sends frames that lie one after another in wire format. Returns how many were taken. May
     * block, as send().
     */
    std::size_t send_packed(bytes wire, std::error_code &ec) noexcept
    {
        return detail::count(qnet_send_packed(handle_, wire.data(), wire.size()), ec);
    }
    template <class Byte, detail::if_fit<Byte, const std::uint8_t> = 0>
    std::size_t send_packed(Byte *wire, std::size_t len, std::error_code &ec) noexcept
    {
        return send_packed(bytes(wire, len), ec);
    }

    /* Waits until every frame that was taken has been written. May block, as send(). */
    void flush(std::error_code &ec) noexcept { detail::check(qnet_flush(handle_), ec); }

    /*
     * Receives one frame. Returns its length, or nothing if none came in time. May block for that
     * time. May call the close handler, if this call reports the end.
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
     * Receives frames whose bytes are lent until the next receive. Returns how many, 0 if none came
     * in time. May block and call the close handler, as recv().
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
     * Receives frames in wire format. Returns how many bytes, 0 if none came in time. May block and
     * call the close handler, as recv().
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

    /* The descriptor to poll; see qnet_fd(). The library still owns it. */
    int fd(std::error_code &ec) const noexcept
    {
        int fd = detail::check(qnet_fd(handle_), ec);
        return ec ? -1 : fd;
    }

    /*
     * Waits for the end of the connection. Returns whether it ended in time. May block for that
     * time.
     */
    bool wait(timeout time, std::error_code &ec) noexcept
    {
        return detail::came(qnet_wait(handle_, time.ms()), ec).has_value();
    }

    /* QNET_OK while the connection is open, otherwise why it ended. */
    int close_reason() const noexcept { return qnet_close_reason(handle_); }

    /* Ends the connection without waiting. May call the close handler. */
    void shutdown(std::error_code &ec) noexcept { detail::check(qnet_shutdown(handle_), ec); }

    /* The connection's own hardware (MAC) address, for programs that act as a device on it. */
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

    /* The addresses of this end and of the peer. */
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

    /*
     * The -netdev argument with which a QEMU of that version (702 is 7.2) joins a datagram
     * connection.
     */
    std::string netdev(std::string_view id, int qemu_version, std::error_code &ec) const
    {
        detail::text_for_c name(id);
        auto give = [&](char *buf, std::size_t cap) {
            return qnet_netdev(handle_, name.get(), qemu_version, buf, cap);
        };
        return detail::text(give, ec);
    }

    /* Who the peer of a connection over a Unix socket is. */
    qnet::cred peer_cred(std::error_code &ec) const noexcept
    {
        qnet::cred who{};
        detail::check(qnet_peer_cred(handle_, &who, sizeof who), ec);
        return who;
    }

    /* The counters. */
    qnet::stats stats(std::error_code &ec) const noexcept
    {
        qnet::stats counts{};
        detail::check(qnet_get_stats(handle_, &counts, sizeof counts), ec);
        return counts;
    }

    /* Sets an option, and gets its value. */
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

    /*
     * Impairs the frames in some direction, as a text asks, which is empty for not at all; gets that
     * text for one direction, with its seed; and the counters of that direction.
     */
    void impair(direction which, std::string_view spec, std::error_code &ec)
    {
        detail::text_for_c text(spec);
        detail::check(qnet_impair(handle_, which, text.get_as_spec()), ec);
    }
    std::string impairment(direction which, std::error_code &ec) const
    {
        auto give = [&](char *buf, std::size_t cap) {
            return qnet_impairment(handle_, which, buf, cap);
        };
        return detail::text(give, ec);
    }
    qnet::impair_stats impair_stats(direction which, std::error_code &ec) const noexcept
    {
        qnet::impair_stats counts{};
        detail::check(qnet_get_impair_stats(handle_, which, &counts, sizeof counts), ec);
        return counts;
    }

    /* Sets its VLANs as the port of a hub, as a text, which is empty for none; and gets that text. */
    void set_vlan(std::string_view spec, std::error_code &ec)
    {
        detail::text_for_c text(spec);
        detail::check(qnet_set_vlan(handle_, text.get_as_spec()), ec);
    }
    std::string vlan(std::error_code &ec) const
    {
        auto give = [&](char *buf, std::size_t cap) { return qnet_vlan(handle_, buf, cap); };
        return detail::text(give, ec);
    }

#ifdef __cpp_exceptions
    /* The forms that throw. */
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
    qnet::cred peer_cred() const
    {
        return detail::or_throw([&](auto &ec) { return peer_cred(ec); });
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
    void impair(direction which, std::string_view spec)
    {
        detail::or_throw([&](auto &ec) { impair(which, spec, ec); });
    }
    std::string impairment(direction which) const
    {
        return detail::or_throw([&](auto &ec) { return impairment(which, ec); });
    }
    qnet::impair_stats impair_stats(direction which) const
    {
        return detail::or_throw([&](auto &ec) { return impair_stats(which, ec); });
    }
    void set_vlan(std::string_view spec)
    {
        detail::or_throw([&](auto &ec) { set_vlan(spec, ec); });
    }
    std::string vlan() const
    {
        return detail::or_throw([&](auto &ec) { return vlan(ec); });
    }
#endif

private:
    qnet_conn *handle_ = nullptr;
};

/*
 * A connection that closes itself. Closing it, by reset(), by destroying it or by assigning another
 * to it, may block, as qnet_close() does, and may call the close handler.
 *
 * The handlers must not throw. They may do anything with the connection, including closing it. A
 * handler that is replaced is freed when no call of it is running any more. All handlers are freed
 * when the close handler has returned, or at the end if there is none. So until then a handler may
 * own the object that owns the connection.
 */
class conn : public conn_ref {
public:
    conn() noexcept = default;
    /* Takes ownership of a handle. */
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
     * Releases the handle, which the caller then closes with qnet_close(). The handlers that were
     * set are still called until the end. If a close handler is set afterwards, by
     * qnet_set_close_handler() or by another conn that takes the handle, it replaces the one that
     * frees them all, and they are never freed.
     */
    [[nodiscard]] qnet_conn *release() noexcept
    {
        forget_handlers();
        return take_handle();
    }

    /* Connects to a peer. May block, as long as the system does or for QNET_OPT_DIAL_TIMEOUT_MS. */
    static conn dial(std::string_view network, std::string_view address, const options &with,
                     std::error_code &ec)
    {
        qnet_conn *handle = nullptr;
        detail::text_for_c kind(network), where(address);
        detail::check(
            qnet_dial_with(kind.get(), where.get(), with.data(), with.size(), &handle), ec);
        return conn(handle);
    }

    /* Creates two connections that are each other's peer. */
    static std::pair<conn, conn> pair(std::error_code &ec) noexcept
    {
        qnet_conn *a = nullptr, *b = nullptr;
        detail::check(qnet_socketpair(&a, &b), ec);
        return {conn(a), conn(b)};
    }

    /*
     * Creates a connection whose peer is a descriptor, for a child QEMU. The caller owns the
     * descriptor.
     */
    static std::pair<conn, int> pair_with_fd(std::error_code &ec) noexcept
    {
        qnet_conn *handle = nullptr;
        int fd = -1;
        detail::check(qnet_socketpair_fd(&handle, &fd), ec);
        return {conn(handle), fd};
    }

    /*
     * Creates a connection from a connected socket or an open TAP. If that fails, the caller still
     * owns it.
     */
    static conn from_fd(int fd, std::error_code &ec) noexcept
    {
        qnet_conn *handle = nullptr;
        detail::check(qnet_from_fd(fd, &handle), ec);
        return conn(handle);
    }

    /*
     * Creates a datagram connection. An empty address stands for NULL in qnet_dgram(): an empty
     * remote means the first sender. May block, to resolve a name.
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

    /*
     * Creates a connection to a TAP. If the name is empty, the system chooses one; see
     * local_addr().
     */
    static conn tap(std::string_view name, std::error_code &ec)
    {
        qnet_conn *handle = nullptr;
        detail::check(qnet_tap(detail::text_for_c(name).get(), &handle), ec);
        return conn(handle);
    }

    /*
     * Sets the handler that is called with each frame received, or with as many frames as have
     * arrived, on a thread that the library runs for this connection. The two kinds replace each
     * other. An empty function (nullptr) stops receiving.
     *
     * May block: the call returns when the previous handler is not running and never will again,
     * and has been freed. It does not wait inside a handler or with QNET_OPT_WAIT 0; a handler that
     * is removed there may be called once more, and is kept until that call or the end.
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
     * Sets the handler that is called when a reconnecting connection (QNET_OPT_RECONNECT_MS) has
     * gone down, and when it is up again; nullptr for none. May block, as on_frame().
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
     * Sets the handler that is called once when the connection has ended, as described at
     * qnet_set_close_handler(); nullptr for none. May call the handler, if the connection has
     * already ended and no other handler was told.
     */
    void on_close(detail::close_function f, std::error_code &ec)
    {
        auto shared = joined(ec);
        if (!ec)
            shared->on_close(std::move(f));
    }

#ifdef __cpp_exceptions
    /* The forms that throw. */
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

    /*
     * If several threads come at the same time, one creates the handlers, and each makes sure that
     * the library knows them.
     */
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
     * Sets a handler. A function is stored here before the library is told; an empty one after, so
     * that the library never calls an empty place.
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

    /* Whether setting a handler has waited for the previous one. */
    bool has_waited() const noexcept
    {
        std::error_code ec;
        return detail::callbacks == 0 && get(QNET_OPT_WAIT, ec) != 0;
    }

    std::atomic<detail::handlers *> handlers_{nullptr};
};

/*
 * Waits until at least one of the connections (conn or conn_ref, in any container) has a frame or
 * an end to report. Returns the positions of those that do in the container, counted from 0, in
 * order; none if the time has passed. May block for that time.
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

/* A listener that closes itself. Its socket file is removed with it; its connections stay open. */
class listener {
public:
    listener() noexcept = default;
    /* Takes ownership of a handle. */
    explicit listener(qnet_listener *handle) noexcept : handle_(handle) {}

    /* Closes it now. */
    void reset() noexcept { handle_.reset(); }

    /* Releases the handle, which the caller then closes with qnet_listener_close(). */
    [[nodiscard]] qnet_listener *release() noexcept { return handle_.release(); }

    /* Listens at an address. May block, to resolve a name. */
    static listener listen(std::string_view network, std::string_view address, std::error_code &ec)
    {
        qnet_listener *handle = nullptr;
        detail::text_for_c kind(network), where(address);
        detail::check(qnet_listen(kind.get(), where.get(), &handle), ec);
        return listener(handle);
    }

    /* Creates a listener from a listening socket. If that fails, the caller still owns it. */
    static listener from_fd(int fd, std::error_code &ec) noexcept
    {
        qnet_listener *handle = nullptr;
        detail::check(qnet_listener_from_fd(fd, &handle), ec);
        return listener(handle);
    }

    /*
     * Accepts a peer. Returns its connection, or an empty one if nobody came in time. May block for
     * that time.
     */
    conn accept(timeout time, std::error_code &ec) noexcept
    {
        qnet_conn *handle = nullptr;
        detail::came(qnet_accept(get(), time.ms(), &handle), ec);
        return conn(handle);
    }

    /* The handle, for use with the functions of qnet.h; NULL if this is empty. */
    qnet_listener *get() const noexcept { return handle_.get(); }
    explicit operator bool() const noexcept { return handle_ != nullptr; }

    /* The descriptor to poll: it is readable when a peer is waiting. The library still owns it. */
    int fd(std::error_code &ec) const noexcept
    {
        int fd = detail::check(qnet_listener_fd(get()), ec);
        return ec ? -1 : fd;
    }

    /* The address of the listener, in the form that dial() takes. */
    std::string addr(std::error_code &ec) const
    {
        return detail::text(
            [this](char *buf, std::size_t cap) { return qnet_listener_addr(get(), buf, cap); }, ec);
    }

    /* The -netdev argument with which a QEMU of that version (702 is 7.2) connects. */
    std::string netdev(std::string_view id, int qemu_version, std::error_code &ec) const
    {
        detail::text_for_c name(id);
        auto give = [&](char *buf, std::size_t cap) {
            return qnet_listener_netdev(get(), name.get(), qemu_version, buf, cap);
        };
        return detail::text(give, ec);
    }

    /*
     * Sets an option of the listener, or one with which its connections start, and gets its value.
     */
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

    /* Sets the impairment with which its connections start, and gets that of one direction. */
    void impair(direction which, std::string_view spec, std::error_code &ec)
    {
        detail::text_for_c text(spec);
        detail::check(qnet_listener_impair(get(), which, text.get_as_spec()), ec);
    }
    std::string impairment(direction which, std::error_code &ec) const
    {
        auto give = [&](char *buf, std::size_t cap) {
            return qnet_listener_impairment(get(), which, buf, cap);
        };
        return detail::text(give, ec);
    }

    /* Sets the VLANs with which its connections start, and gets them. */
    void set_vlan(std::string_view spec, std::error_code &ec)
    {
        detail::text_for_c text(spec);
        detail::check(qnet_listener_set_vlan(get(), text.get_as_spec()), ec);
    }
    std::string vlan(std::error_code &ec) const
    {
        auto give = [&](char *buf, std::size_t cap) { return qnet_listener_vlan(get(), buf, cap); };
        return detail::text(give, ec);
    }

#ifdef __cpp_exceptions
    /* The forms that throw. */
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
    void impair(direction which, std::string_view spec)
    {
        detail::or_throw([&](auto &ec) { impair(which, spec, ec); });
    }
    std::string impairment(direction which) const
    {
        return detail::or_throw([&](auto &ec) { return impairment(which, ec); });
    }
    void set_vlan(std::string_view spec)
    {
        detail::or_throw([&](auto &ec) { set_vlan(spec, ec); });
    }
    std::string vlan() const
    {
        return detail::or_throw([&](auto &ec) { return vlan(ec); });
    }
#endif

private:
    struct close {
        void operator()(qnet_listener *handle) const noexcept { qnet_listener_close(handle); }
    };

    std::unique_ptr<qnet_listener, close> handle_{};
};

/* What time it is by a clock, and when something is due, in nanoseconds. */
struct clock_times {
    std::int64_t now = 0;
    std::int64_t next = INT64_MAX;
};

/*
 * A clock that the program moves, and which closes itself. It must live longer than the hubs and
 * links on it: while there are any, closing fails.
 */
class clock {
public:
    /* An empty object, which refers to no clock. */
    clock(std::nullptr_t) noexcept {}
    /* Takes ownership of a handle. */
    explicit clock(qnet_clock *handle) noexcept : handle_(handle) {}
    /* Creates a clock. The object is empty if that fails. */
    explicit clock(std::error_code &ec) noexcept
    {
        qnet_clock *handle = nullptr;
        detail::check(qnet_clock_new(&handle), ec);
        handle_.reset(handle);
    }

    /* Closes it now. */
    void reset() noexcept { handle_.reset(); }

    /* Releases the handle, which the caller then closes with qnet_clock_close(). */
    [[nodiscard]] qnet_clock *release() noexcept { return handle_.release(); }

    /* Advances it, and calls close handlers. Returns how many frames were forwarded. */
    std::size_t advance(std::int64_t to_ns, std::error_code &ec)
    {
        return detail::count(qnet_clock_advance(get(), to_ns), ec);
    }

    /* What time it is, and when something is due. */
    clock_times times(std::error_code &ec) const noexcept
    {
        clock_times times{};
        detail::check(qnet_clock_next(get(), &times.now, &times.next), ec);
        return times;
    }

    /* The handle, for use with the functions of qnet.h; NULL if this is empty. */
    qnet_clock *get() const noexcept { return handle_.get(); }
    explicit operator bool() const noexcept { return handle_ != nullptr; }

#ifdef __cpp_exceptions
    /* The forms that throw. */
    clock() : clock(nullptr)
    {
        *this = detail::or_throw([](auto &ec) { return clock(ec); });
    }
    std::size_t advance(std::int64_t to_ns)
    {
        return detail::or_throw([&](auto &ec) { return advance(to_ns, ec); });
    }
    clock_times times() const
    {
        return detail::or_throw([&](auto &ec) { return times(ec); });
    }
#endif

private:
    struct close {
        void operator()(qnet_clock *handle) const noexcept { qnet_clock_close(handle); }
    };

    std::unique_ptr<qnet_clock, close> handle_{};
};

/*
 * A hub that closes itself. Closing it, by reset(), by destroying it or by assigning another to it,
 * may block and may call close handlers, because it closes the connections that it served.
 */
class hub {
public:
    /* An empty object, which refers to no hub. */
    hub(std::nullptr_t) noexcept {}
    /* Takes ownership of a handle. */
    explicit hub(qnet_hub *handle) noexcept : handle_(handle) {}
    /* Creates a hub. The object is empty if that fails. */
    explicit hub(std::error_code &ec) noexcept
    {
        qnet_hub *handle = nullptr;
        detail::check(qnet_hub_new(&handle), ec);
        handle_.reset(handle);
    }

    /* Closes it now. */
    void reset() noexcept { handle_.reset(); }

    /* Releases the handle, which the caller then closes with qnet_hub_close(). */
    [[nodiscard]] qnet_hub *release() noexcept { return handle_.release(); }

    /* Attaches a connection, and detaches it. Detaching may block while the hub is forwarding. */
    void attach(const conn_ref &port, std::error_code &ec) noexcept
    {
        detail::check(qnet_hub_attach(get(), port.get()), ec);
    }
    void detach(const conn_ref &port, std::error_code &ec) noexcept
    {
        detail::check(qnet_hub_detach(get(), port.get()), ec);
    }

    /* Creates a connection whose other end is attached: the program's own device on the hub. */
    conn port(std::error_code &ec) noexcept
    {
        qnet_conn *handle = nullptr;
        detail::check(qnet_hub_port(get(), &handle), ec);
        return conn(handle);
    }

    /*
     * Accepts peers in the background. The hub closes the listener, unless it has been closed
     * before.
     */
    void serve(const listener &from, std::error_code &ec) noexcept
    {
        detail::check(qnet_hub_serve(get(), from.get()), ec);
    }

    /*
     * Sets the handler that is told of the peers that come and leave; nullptr for none. As with
     * qnet_hub_set_port_handler(), the caller keeps alive what `user` leads to.
     */
    void set_port_handler(qnet_port_handler handler, void *user, std::error_code &ec) noexcept
    {
        detail::check(qnet_hub_set_port_handler(get(), handler, user), ec);
    }

    /* Puts the hub on a clock of the program's, or back on the system's. */
    void set_clock(const clock &on, std::error_code &ec) noexcept
    {
        detail::check(qnet_hub_set_clock(get(), on.get()), ec);
    }
    void set_clock(std::nullptr_t, std::error_code &ec) noexcept
    {
        detail::check(qnet_hub_set_clock(get(), nullptr), ec);
    }

    /* The connections that are attached, in no particular order. */
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

    /* The handle, for use with the functions of qnet.h; NULL if this is empty. */
    qnet_hub *get() const noexcept { return handle_.get(); }
    explicit operator bool() const noexcept { return handle_ != nullptr; }

    /* What is known of addresses, in no particular order. */
    std::vector<fdb_entry> fdb(std::error_code &ec) const
    {
        std::vector<fdb_entry> entries;
        std::size_t count = detail::count(qnet_hub_fdb(get(), nullptr, sizeof(fdb_entry), 0), ec);
        while (count > entries.size()) {
            entries.resize(count);
            int all = qnet_hub_fdb(get(), entries.data(), sizeof(fdb_entry), entries.size());
            count = detail::count(all, ec);
        }
        entries.resize(count);
        return entries;
    }

    /* Adds a static address of a connection's device, in a VLAN or 0. */
    void fdb_add(const mac &address, int vlan, const conn_ref &at, std::error_code &ec) noexcept
    {
        detail::check(qnet_hub_fdb_add(get(), address.data(), vlan, at.get()), ec);
    }

    /* Removes an address, or all that were learned, from a VLAN or, for -1, every one. Returns how many. */
    std::size_t fdb_remove(const mac &address, int vlan, std::error_code &ec) noexcept
    {
        return detail::count(qnet_hub_fdb_remove(get(), address.data(), vlan), ec);
    }
    std::size_t fdb_forget(int vlan, std::error_code &ec) noexcept
    {
        return detail::count(qnet_hub_fdb_remove(get(), nullptr, vlan), ec);
    }

    /* The counters. */
    hub_stats stats(std::error_code &ec) const noexcept
    {
        hub_stats counts{};
        detail::check(qnet_hub_get_stats(get(), &counts, sizeof counts), ec);
        return counts;
    }

    /* Sets an option, and gets its value. */
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
    /* The forms that throw. */
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
    void set_port_handler(qnet_port_handler handler, void *user)
    {
        detail::or_throw([&](auto &ec) { set_port_handler(handler, user, ec); });
    }
    void set_clock(const clock &on)
    {
        detail::or_throw([&](auto &ec) { set_clock(on, ec); });
    }
    void set_clock(std::nullptr_t)
    {
        detail::or_throw([&](auto &ec) { set_clock(nullptr, ec); });
    }
    std::vector<conn_ref> ports() const
    {
        return detail::or_throw([&](auto &ec) { return ports(ec); });
    }
    std::vector<fdb_entry> fdb() const
    {
        return detail::or_throw([&](auto &ec) { return fdb(ec); });
    }
    void fdb_add(const mac &address, int vlan, const conn_ref &at)
    {
        detail::or_throw([&](auto &ec) { fdb_add(address, vlan, at, ec); });
    }
    std::size_t fdb_remove(const mac &address, int vlan)
    {
        return detail::or_throw([&](auto &ec) { return fdb_remove(address, vlan, ec); });
    }
    std::size_t fdb_forget(int vlan)
    {
        return detail::or_throw([&](auto &ec) { return fdb_forget(vlan, ec); });
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

/*
 * Links two connections like a cable, and unlinks them, which may block while the link is
 * forwarding.
 */
inline void link(const conn_ref &a, const conn_ref &b, std::error_code &ec) noexcept
{
    detail::check(qnet_link(a.get(), b.get()), ec);
}
/* The same on a clock of the program's. */
inline void link(const clock &on, const conn_ref &a, const conn_ref &b, std::error_code &ec) noexcept
{
    detail::check(qnet_link_on(on.get(), a.get(), b.get()), ec);
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
inline void link(const clock &on, const conn_ref &a, const conn_ref &b)
{
    detail::or_throw([&](auto &ec) { link(on, a, b, ec); });
}
inline void unlink(const conn_ref &one)
{
    detail::or_throw([&](auto &ec) { unlink(one, ec); });
}
#endif

/*
 * Writes the frames of connections and hubs to a file for Wireshark, and closes itself. Closing
 * blocks until what was recorded is written, for at most a second where a reader is slow.
 */
class capture {
public:
    /* An empty object, which refers to no capture. */
    capture(std::nullptr_t) noexcept {}
    /* Takes ownership of a handle. */
    explicit capture(qnet_capture *handle) noexcept : handle_(handle) {}

    /* Opens a file or a FIFO. The object is empty if that fails. */
    static capture open(std::string_view path, const options &with, std::error_code &ec)
    {
        qnet_capture *handle = nullptr;
        detail::text_for_c where(path);
        detail::check(qnet_capture_open(where.get(), with.data(), with.size(), &handle), ec);
        return capture(handle);
    }
    /* The same for a descriptor, which is the capture's on success. */
    static capture open_fd(int fd, const options &with, std::error_code &ec) noexcept
    {
        qnet_capture *handle = nullptr;
        detail::check(qnet_capture_open_fd(fd, with.data(), with.size(), &handle), ec);
        return capture(handle);
    }

    /* Closes it now. */
    void reset() noexcept { handle_.reset(); }

    /* Releases the handle, which the caller then closes with qnet_capture_close(). */
    [[nodiscard]] qnet_capture *release() noexcept { return handle_.release(); }

    /* Records a connection or a hub from now on; with an empty name, under one that it is given. */
    void add(const conn_ref &one, std::string_view name, std::error_code &ec)
    {
        detail::text_for_c text(name);
        detail::check(qnet_capture_add(get(), one.get(), text.get_as_name()), ec);
    }
    void add(const hub &one, std::string_view name, std::error_code &ec)
    {
        detail::text_for_c text(name);
        detail::check(qnet_capture_add_hub(get(), one.get(), text.get_as_name()), ec);
    }
    void remove(const conn_ref &one, std::error_code &ec) noexcept
    {
        detail::check(qnet_capture_remove(get(), one.get()), ec);
    }

    /* Adds a comment to the next frame. */
    void note(std::string_view text, std::error_code &ec)
    {
        detail::check(qnet_capture_note(get(), detail::text_for_c(text).get()), ec);
    }

    /* The counters. */
    capture_stats stats(std::error_code &ec) const noexcept
    {
        capture_stats counts{};
        detail::check(qnet_capture_get_stats(get(), &counts, sizeof counts), ec);
        return counts;
    }

    /* The handle, for use with the functions of qnet.h; NULL if this is empty. */
    qnet_capture *get() const noexcept { return handle_.get(); }
    explicit operator bool() const noexcept { return handle_ != nullptr; }

#ifdef __cpp_exceptions
    /* The forms that throw. */
    static capture open(std::string_view path, const options &with = {})
    {
        return detail::or_throw([&](auto &ec) { return open(path, with, ec); });
    }
    static capture open_fd(int fd, const options &with = {})
    {
        return detail::or_throw([&](auto &ec) { return open_fd(fd, with, ec); });
    }
    void add(const conn_ref &one, std::string_view name = {})
    {
        detail::or_throw([&](auto &ec) { add(one, name, ec); });
    }
    void add(const hub &one, std::string_view name = {})
    {
        detail::or_throw([&](auto &ec) { add(one, name, ec); });
    }
    void remove(const conn_ref &one)
    {
        detail::or_throw([&](auto &ec) { remove(one, ec); });
    }
    void note(std::string_view text)
    {
        detail::or_throw([&](auto &ec) { note(text, ec); });
    }
    capture_stats stats() const
    {
        return detail::or_throw([&](auto &ec) { return stats(ec); });
    }
#endif

private:
    struct close {
        void operator()(qnet_capture *handle) const noexcept { qnet_capture_close(handle); }
    };

    std::unique_ptr<qnet_capture, close> handle_{};
};

} // namespace qnet

#endif
