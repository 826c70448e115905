/*
 * hpp.h - what the tests of qnet.hpp share.
 */
#ifndef HPP_H
#define HPP_H

#include "check.h"
#include "qnet.hpp"

inline const std::uint8_t some_frame[64] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1};

/* Whether a handle is live. */
inline bool is_live(qnet_conn *handle)
{
    return qnet_close_reason(handle) != QNET_ERR_HANDLE;
}

/* Waits until `is` returns true. */
template <class Is> void await(Is is)
{
    while (!is())
        usleep(100);
}

#endif
