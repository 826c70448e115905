/*
 * plugin.cc - a shared object with a qnet.hpp of its own (-fvisibility=hidden), which hpp.cc loads.
 */
#include "plugin.h"

void plugin_dial(std::error_code &ec)
{
    qnet::conn::dial("unix", "/nonexistent/vm.sock", {}, ec);
}

void plugin_dial_throwing()
{
    qnet::conn::dial("unix", "/nonexistent/vm.sock");
}

bool plugin_knows(const std::error_code &ec)
{
    return ec == QNET_ERR_REFUSED && ec == std::errc::connection_refused && !(ec == QNET_ERR_OS);
}

void plugin_count(qnet::conn &conn, std::atomic<int> &frames, int &ends)
{
    conn.on_frame([&frames](const std::uint8_t *, std::size_t) { ++frames; });
    conn.on_close([&ends](int) { ++ends; });
}
