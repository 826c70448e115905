-- luajit.lua NETWORK ADDRESS [--leave] - from LuaJIT, whose FFI reads the header itself: asks who has
-- 10.0.2.1, and receives the answer by pulling. With --leave it sends back what comes, and exits in the
-- middle of it without closing anything.
--
-- No handler: Lua's callbacks may not be called on other threads. While one waits in qnet_recv
-- nothing else runs, so a program with more to do uses qnet_poll, or qnet_fd in its event loop.

local ffi = require("ffi")

-- The header without the preprocessor's lines and without what only C++ sees.
local header = assert(io.open(arg[0]:gsub("[^/]*$", "") .. "../../include/qnet.h")):read("*a")
header = header:gsub("\n#ifdef __cplusplus\n.-\n#endif[^\n]*", "\n"):gsub("\n#[^\n]*", "\n")
ffi.cdef(header)
local lib = ffi.load("libqnet.so.0")

-- Returns a call's result, unless it failed. (Not for time-outs, which leave no text.)
local function check(code)
    return code >= 0 and code or error(ffi.string(lib.qnet_last_error()), 2)
end

local function bytes(...)
    return string.char(...)
end

local function arp_request(mac)
    local head = bytes(8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
    return bytes(255, 255, 255, 255, 255, 255) .. mac .. head .. mac .. bytes(10, 0, 2, 15)
        .. bytes(0, 0, 0, 0, 0, 0) .. bytes(10, 0, 2, 1)
end

local function show(how, frame)
    if frame:sub(13, 14) == bytes(8, 6) and frame:byte(22) == 2 then
        print(how .. " 10.0.2.1 is at " .. ("%02x:%02x:%02x:%02x:%02x:%02x"):format(frame:byte(23, 28)))
    end
end

local out = ffi.new("qnet_conn *[1]")
local mac = ffi.new("uint8_t[6]")
local buf = ffi.new("uint8_t[?]", lib.QNET_FRAME_MAX)

local network, address, leave = ...
check(lib.qnet_dial(network, address, out))
local conn = out[0]
check(lib.qnet_hwaddr(conn, mac))
if leave then
    for _ = 1, 100 do
        local length = check(lib.qnet_recv(conn, buf, ffi.sizeof(buf), -1))
        check(lib.qnet_send(conn, buf, length))
    end
    print("leaving")
    return
end
local request = arp_request(ffi.string(mac, 6))
check(lib.qnet_send(conn, request, #request))
local length = check(lib.qnet_recv(conn, buf, ffi.sizeof(buf), -1))
show("pulled:", ffi.string(buf, length))
check(lib.qnet_close(conn))
