/*
 * plugin.h - what hpp.cc finds in the shared object that it loads.
 */
#ifndef PLUGIN_H
#define PLUGIN_H

#include <atomic>

#include "qnet.hpp"

extern "C" {
/* Dials where nobody listens. */
[[gnu::visibility("default")]] void plugin_dial(std::error_code &ec);
[[gnu::visibility("default")]] void plugin_dial_throwing();

/* Whether it takes a code for QNET_ERR_REFUSED. */
[[gnu::visibility("default")]] bool plugin_knows(const std::error_code &ec);

/* Has what comes from a connection counted. */
[[gnu::visibility("default")]] void plugin_count(qnet::conn &conn, std::atomic<int> &frames,
                                                 int &ends);
}

#endif
