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

/* Whether the plugin takes a code for QNET_ERR_REFUSED. */
[[gnu::visibility("default")]] bool plugin_knows(const std::error_code &ec);

/* Sets functions that count a connection's frames and its end. */
[[gnu::visibility("default")]] void plugin_count(qnet::conn &conn, std::atomic<int> &frames,
                                                 int &ends);
}

#endif
