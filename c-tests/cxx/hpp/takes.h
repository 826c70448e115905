/*
 * takes.h - what can be sent, and what can be received into: the test is that all else does not
 * compile.
 *
 * An array of frames must not be taken for an array of bytes: its own bytes, with addresses among
 * them, are no frame.
 */
#ifndef TAKES_H
#define TAKES_H

#include <sys/uio.h>

#include <type_traits>
#if __cplusplus >= 202002L
#include <span>
#endif

#include "qnet.hpp"

namespace takes {

using bytes = const std::uint8_t *;
using size = std::size_t;
using code = std::error_code &;

struct send {
    template <class... Args>
    auto operator()(Args &&...args)
        -> decltype(std::declval<qnet::conn &>().send(std::forward<Args>(args)...));
};
struct packed {
    template <class... Args>
    auto operator()(Args &&...args)
        -> decltype(std::declval<qnet::conn &>().send_packed(std::forward<Args>(args)...));
};
struct batch {
    template <class... Args>
    auto operator()(Args &&...args)
        -> decltype(std::declval<qnet::conn &>().send_batch(std::forward<Args>(args)...));
};
struct recv {
    template <class... Args>
    auto operator()(Args &&...args)
        -> decltype(std::declval<qnet::conn &>().recv(std::forward<Args>(args)...));
};
struct recv_packed {
    template <class... Args>
    auto operator()(Args &&...args)
        -> decltype(std::declval<qnet::conn &>().recv_packed(std::forward<Args>(args)...));
};

template <class Call, class... Args> constexpr bool can = std::is_invocable_v<Call, Args...>;

/* Whether no function that takes bytes takes a pointer of this type. */
template <class Pointer>
constexpr bool is_none_of_bytes =
    !can<send, Pointer, size> && !can<send, Pointer, size, code> && !can<packed, Pointer, size> &&
    !can<packed, Pointer, size, code> && !can<recv, Pointer, size> &&
    !can<recv, Pointer, size, int> && !can<recv, Pointer, size, int, code> &&
    !can<recv_packed, Pointer, size> && !can<recv_packed, Pointer, size, int, code>;

static_assert(is_none_of_bytes<qnet_frame *> && is_none_of_bytes<const qnet_frame *>);
static_assert(is_none_of_bytes<iovec *> && is_none_of_bytes<const iovec *>);
static_assert(is_none_of_bytes<std::uint32_t *> && is_none_of_bytes<void **>);
static_assert(is_none_of_bytes<const std::vector<iovec> *>);
static_assert(!can<send, std::vector<iovec>> && !can<send, std::vector<qnet_frame>> &&
              !can<send, std::vector<int>> && !can<recv, std::vector<iovec> &>);

/* A literal would be sent with its NUL. */
static_assert(!can<send, const char (&)[61]>);

/* Nothing const can be received into. */
#ifdef __cpp_exceptions
static_assert(can<recv, std::uint8_t *, size> && can<recv, void *, size, int> &&
              can<recv, std::vector<std::uint8_t> &> && can<recv, std::uint8_t (&)[9]>);
#endif
static_assert(can<recv, std::uint8_t *, size, int, code> &&
              can<recv, std::vector<std::uint8_t> &, std::chrono::seconds, code>);
static_assert(!can<recv, bytes, size, int, code> && !can<recv, const void *, size, int, code> &&
              !can<recv, const std::vector<std::uint8_t> &, int, code> &&
              !can<recv, std::string_view, int, code>);

/* A capacity is not taken for a timeout. */
static_assert(!can<recv, std::uint8_t *, size, code> &&
              !can<recv, std::uint8_t (&)[9], size, code>);

static_assert(can<send, bytes, size, code> && can<send, void *, size, code> &&
              can<send, const char *, size, code> && can<send, const std::byte *, size, code> &&
              can<send, std::string_view, code> && can<send, std::string, code> &&
              can<send, std::vector<std::uint8_t>, code> &&
              can<send, const std::array<std::byte, 60> &, code> &&
              can<send, const std::uint8_t (&)[60], code>);

static_assert(can<batch, const qnet_frame *, size, code> &&
              can<batch, std::vector<qnet_frame>, code> && !can<batch, iovec *, size, code> &&
              !can<batch, std::vector<iovec>, code> && !can<batch, bytes, size, code>);

#if __cplusplus >= 202002L
static_assert(can<send, std::span<const std::byte>, code> &&
              can<send, std::span<std::uint8_t>, code> &&
              can<recv, std::span<std::uint8_t>, int, code> &&
              can<batch, std::span<const qnet_frame>, code>);
static_assert(!can<recv, std::span<const std::uint8_t>, int, code> &&
              !can<send, std::span<iovec>, code>);
#endif

} // namespace takes

#endif
