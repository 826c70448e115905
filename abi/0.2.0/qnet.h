/*
 * qnet.h - libqnet, for programs that plug QEMU virtual machines into their own network.
 *
 * Generated from the library's sources; do not edit.
 *
 * Unless a comment says otherwise, a function returns zero or a positive number for success and a
 * negative code of qnet_error for failure. Every function may be called from any thread at any time,
 * except from a signal handler. None raises SIGPIPE. Handles are tokens, not addresses: a stale one
 * gives QNET_ERR_HANDLE and never crashes.
 *
 * A connection is received from in one way at a time: by a handler, which the library calls with
 * each frame (qnet_set_handler()); by calls of the program (qnet_recv() and the like); or by a hub or
 * a link, which forwards the frames to other connections (qnet_hub_attach(), qnet_link()). Until one
 * of these begins, nothing is read, and frames wait in the socket.
 *
 * A frame is "taken" when a call that sends has accepted it. The library then writes it without
 * further calls. It is lost only if the connection ends or is down, or if nobody receives a datagram,
 * and then it is counted (qnet_stats.tx_dropped).
 *
 * Each function's comment ends with two lines that a script can search for:
 *   "Blocks: yes" or "Blocks: no" says whether the call may wait for a peer, for time to pass or
 *   for a handler on another thread. A lock that is held during a system call does not count.
 *   "Calls back: yes" or "Calls back: no" says whether the call may run one of the program's
 *   handlers on the calling thread before it returns. It then takes as long as that handler.
 * A language binding should release its interpreter's lock around calls that block or call back.
 */

#ifndef QNET_H
#define QNET_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * The version of this header, for use in #if. QNET_VERSION is a single number that can be compared:
 * 10000 * major + 100 * minor + patch, so that 10203 is version 1.2.3.
 */
#define QNET_VERSION_MAJOR 0
#define QNET_VERSION_MINOR 2
#define QNET_VERSION_PATCH 0
#define QNET_VERSION 200

/**
 * The shortest and the longest frame, in bytes.
 */
typedef enum qnet_limit {
    /**
     * The length of an Ethernet header. Shorter frames are neither sent nor delivered.
     */
    QNET_FRAME_MIN = 14,
    /**
     * The longest frame that QEMU can send or receive (its NET_BUFSIZE, 4096 + 65536). A buffer of
     * this size holds any frame; one frame in packed format needs 4 bytes more.
     */
    QNET_FRAME_MAX = 69632,
} qnet_limit;

/**
 * The options that qnet_set(), qnet_listener_set(), qnet_hub_set() and qnet_dial_with() take.
 * Where a comment does not say otherwise, an option belongs to connections, and a listener passes
 * it on to the connections that it accepts.
 *
 * Functions take int rather than this type, which only names the values.
 */
typedef enum qnet_option {
    /**
     * How long a send waits for a peer that does not read, in milliseconds: -1 (the default) waits
     * without limit, 0 does not wait.
     */
    QNET_OPT_SEND_TIMEOUT_MS = 1,
    /**
     * Coalescing: how long a send may be held back so that later sends can join it in one write,
     * in microseconds: 0 (the default, not at all) to 1000000. Frames are held until the time has
     * passed or 64 KiB have accumulated. A send that follows no other closely is written at once.
     */
    QNET_OPT_TX_USECS = 2,
    /**
     * 1 (the default): sends on this connection that are made inside a handler, while the handler
     * has more frames to come, are held back and written together, after at most 1 ms or 64 KiB.
     * 0: they are written at once.
     */
    QNET_OPT_CORK = 3,
    /**
     * The longest frame that may be sent, in bytes: 14 to QNET_FRAME_MAX. The default is 65535,
     * which is the most that passt, pktkit and others accept.
     */
    QNET_OPT_MAX_FRAME = 4,
    /**
     * 1: frames shorter than 60 bytes are padded with zeroes to 60 when they are sent. The default
     * is 0.
     */
    QNET_OPT_PAD = 5,
    /**
     * How long closing may take, in milliseconds, to write the frames that were taken and to drain
     * what the peer is still writing. The default is 1000. Closing usually takes much less; see
     * qnet_close().
     */
    QNET_OPT_LINGER_MS = 6,
    /**
     * The size of the socket's send buffer in bytes, as SO_SNDBUF in socket(7). The library
     * chooses one for speed until this is set. Where each message is a frame, one that is longer
     * than the buffer is lost, and counted in qnet_stats.tx_dropped.
     */
    QNET_OPT_SNDBUF = 7,
    /**
     * The size of the socket's receive buffer in bytes, as SO_RCVBUF in socket(7). The library
     * chooses one for speed until this is set.
     */
    QNET_OPT_RCVBUF = 8,
    /**
     * For connections that were dialled: how long after losing its peer the connection dials again
     * instead of ending, in milliseconds; see qnet_set_state_handler(). The default 0 disables
     * reconnecting.
     */
    QNET_OPT_RECONNECT_MS = 9,
    /**
     * For qnet_dial_with() only: how long dialling may take in all, in milliseconds. The default
     * -1 sets no limit. With QNET_OPT_RECONNECT_MS, each later attempt may take as long too, or
     * 10000 ms if this is -1.
     */
    QNET_OPT_DIAL_TIMEOUT_MS = 10,
    /**
     * For listeners: how many accepted connections may exist that have not been closed with
     * qnet_close(), or by the hub that serves the listener: that does so a little after their peers
     * have left. Further peers are disconnected at once. The default is 1024.
     */
    QNET_OPT_MAX_CONNS = 11,
    /**
     * 0: qnet_set_handler(), qnet_close() and other functions do not wait for running handlers of
     * this connection. The default is 1: they do, outside handlers.
     */
    QNET_OPT_WAIT = 12,
    /**
     * For listeners that created a socket file: the permissions of the file. The default is 0600
     * (octal).
     */
    QNET_OPT_UNIX_MODE = 13,
    /**
     * 0: the cable is pulled, as long as the connection is linked or attached to a hub. What comes is
     * read and dropped (rx_refused), what would be forwarded to it is dropped (tx_dropped), and what
     * is in flight (see qnet_impair()) is discarded. A hub forgets the addresses behind it, and a TAP
     * loses its carrier. The default is 1. What qnet_send() sends passes all the same.
     */
    QNET_OPT_LINK = 14,
    /**
     * How many bytes of frames may be in flight (see qnet_impair()), for each direction: from 131072
     * on. When it has so many, its peer (QNET_IN), or the other side of a link (QNET_OUT), is not
     * read; in a hub a frame that finds no room on its way out is dropped. The default is 67108864.
     */
    QNET_OPT_FLIGHT_BYTES = 15,
    /**
     * 1: when the other side of a link ends, this one does not. It stays linked to nothing, which is
     * as a pulled cable (QNET_OPT_LINK), until it is linked to another or unlinked. The default is 0.
     */
    QNET_OPT_OUTLIVE = 16,
    /**
     * For connections of qnet_dgram() that have no remote. 0 (the default): the first sender
     * becomes the remote for good. 1: each later sender becomes the remote in place of the one
     * before.
     */
    QNET_OPT_RELEARN = 17,
    /**
     * For hubs: how long the hub remembers which port an address is behind, in seconds after the
     * last frame from that address, at least 1. The default is 300.
     */
    QNET_OPT_MAC_AGE_S = 20,
    /**
     * For hubs: how many addresses the hub remembers at most, up to 1048576; in each VLAN an address
     * counts anew. 0: nothing is learned, and all frames but those for static addresses
     * (qnet_hub_fdb_add()) are flooded. The default is 8192.
     */
    QNET_OPT_MAC_MAX = 21,
    /**
     * For hubs: how many bytes may be queued for each port whose peer does not read. When the
     * queue is full, further frames for that port are dropped. The default is 1048576.
     */
    QNET_OPT_QUEUE_BYTES = 22,
    /**
     * For hubs: which frames to groups that a switch of the standard keeps to itself are forwarded:
     * bit n for the group 01-80-C2-00-00-0n. With 0, spanning tree (0), pause frames (1), LACP (2),
     * EAPOL (3) and LLDP (E) do not pass. The default is 65535, all.
     */
    QNET_OPT_GROUP_FWD_MASK = 23,
    /**
     * For hubs: how long an address stays at its port after its last frame there, in milliseconds: a
     * frame from it that comes sooner at another port is refused, so that a loop carries nothing.
     * 200 is a good value. The default 0 lets addresses move at once, as VRRP and bonds need it.
     */
    QNET_OPT_MOVE_MS = 24,
    /**
     * 1: the port exchanges nothing with other isolated ports of its hub. The default is 0. This and
     * the next six are in force while the connection is attached to a hub.
     */
    QNET_OPT_ISOLATED = 30,
    /**
     * What is flooded to the port, a sum: 1 for unknown destinations, 2 for multicast, 4 for
     * broadcast. The default is 7, all.
     */
    QNET_OPT_FLOOD = 31,
    /**
     * How many addresses the hub learns behind the port, static ones and each VLAN's included; 0 (the
     * default) sets no limit. Frames from further ones pass, and these are neither learned here nor
     * moved here. A lower limit forgets nothing.
     */
    QNET_OPT_MAC_LIMIT = 32,
    /**
     * 1: frames from addresses that cannot be learned at the port are refused, and addresses known
     * there do not move away until they age: other ports' frames from them are refused. The default
     * is 0.
     */
    QNET_OPT_SECURE = 33,
    /**
     * How many frames a second from the port are flooded, of all classes: a bucket that holds a tenth
     * of them (at least 1), is full at first and gets one more every 10^9 / value ns. Further ones
     * are refused. The default 0 sets no limit.
     */
    QNET_OPT_STORM_FPS = 34,
    /**
     * 1: the port is a mirror. It gets a copy of all that is mirrored (QNET_OPT_MIRRORED), and nothing
     * else, whatever its VLAN; what it sends is refused, and what was known behind it is forgotten.
     * The default is 0.
     */
    QNET_OPT_MIRROR = 35,
    /**
     * What of the port goes to mirrors: 1 (the default) what comes in, as it was read and behind
     * QNET_IN, refused frames too; 2 what goes out, as it is sent and before QNET_OUT; 3 both, in which
     * case a frame to which both apply is copied twice; 0 nothing.
     */
    QNET_OPT_MIRRORED = 36,
    /**
     * For captures (qnet_capture_open()): how many bytes of each frame are recorded at most. The
     * default 0 stands for all.
     */
    QNET_OPT_SNAPLEN = 40,
    /**
     * For captures: how many bytes of frames that were recorded may wait for being written, and about
     * 48 bytes for each frame: from 131072 on. The default is 4194304.
     */
    QNET_OPT_CAPTURE_BYTES = 41,
    /**
     * For captures: how many bytes a file has when another begins, from 65536 on. The default 0
     * stands for one file without limit.
     */
    QNET_OPT_FILE_BYTES = 42,
    /**
     * For captures with QNET_OPT_FILE_BYTES: how many files are kept; the oldest are removed. The
     * default 0 stands for all.
     */
    QNET_OPT_FILES = 43,
} qnet_option;

/**
 * The codes that functions return for failure. They are negative; zero or more is success.
 *
 * Functions return int rather than this type, which only names the values.
 */
typedef enum qnet_error {
    /**
     * Success.
     */
    QNET_OK = 0,
    /**
     * An argument cannot be valid: a NULL, an unknown network, a malformed address, or an option's
     * value out of range.
     */
    QNET_ERR_INVALID = -1,
    /**
     * The handle is not a live one of the expected type: it was closed, is of another type, was
     * invented, or belongs to the process from which this one was forked.
     */
    QNET_ERR_HANDLE = -2,
    /**
     * The connection or listener has ended in an orderly way; either side may have ended it.
     */
    QNET_ERR_CLOSED = -3,
    /**
     * The time-out has passed.
     */
    QNET_ERR_TIMEOUT = -4,
    /**
     * The call would have to wait, and was told not to.
     */
    QNET_ERR_AGAIN = -5,
    /**
     * A frame is shorter than 14 bytes or longer than the limit, or a receive buffer is too small.
     */
    QNET_ERR_FRAME_SIZE = -6,
    /**
     * The peer broke the framing: it sent a length above QNET_FRAME_MAX, or left in the middle of
     * a frame.
     */
    QNET_ERR_PROTOCOL = -7,
    /**
     * The operating system reported an error, such as a reset by the peer; see qnet_last_errno().
     */
    QNET_ERR_OS = -8,
    /**
     * The connection is being received from in another way, the address is in use, or the call
     * would wait for itself.
     */
    QNET_ERR_BUSY = -9,
    /**
     * A signal handler ran during the wait.
     */
    QNET_ERR_INTERRUPTED = -10,
    /**
     * This system, this kind of object or this release of the library does not support it.
     */
    QNET_ERR_UNSUPPORTED = -11,
    /**
     * The call failed because of a bug in the library. The process can continue.
     */
    QNET_ERR_INTERNAL = -12,
    /**
     * Nobody is listening at that address, or not yet.
     */
    QNET_ERR_REFUSED = -13,
    /**
     * The host name could not be resolved to an address.
     */
    QNET_ERR_RESOLVE = -14,
} qnet_error;

/**
 * The directions of a connection; see qnet_impair().
 *
 * Functions take int rather than this type, which only names the values.
 */
typedef enum qnet_direction {
    /**
     * From the connection's peer into the link or hub.
     */
    QNET_IN = 1,
    /**
     * From the link or hub to the connection's peer.
     */
    QNET_OUT = 2,
    /**
     * Both.
     */
    QNET_BOTH = 3,
} qnet_direction;

/**
 * The flags of an entry of a hub's table; see qnet_hub_fdb().
 */
typedef enum qnet_fdb_flag {
    /**
     * It was added by qnet_hub_fdb_add().
     */
    QNET_FDB_STATIC = 1,
    /**
     * It was learned at a secure port (QNET_OPT_SECURE).
     */
    QNET_FDB_SECURE = 2,
} qnet_fdb_flag;

/**
 * Writes the frames of connections and hubs to a file; see qnet_capture_open(). The pointer is a
 * handle, as for qnet_conn.
 */
typedef struct qnet_capture qnet_capture;

/**
 * A clock that the program moves; see qnet_clock_new(). The pointer is a handle, as for qnet_conn.
 */
typedef struct qnet_clock qnet_clock;

/**
 * A connection to a layer-2 device: frames are sent to it and received from it.
 *
 * The pointer is a handle, not an address. Using a stale or invented one gives QNET_ERR_HANDLE.
 */
typedef struct qnet_conn qnet_conn;

/**
 * A hub, which is a learning switch. The pointer is a handle, as for qnet_conn.
 */
typedef struct qnet_hub qnet_hub;

/**
 * A listener, to which peers connect. The pointer is a handle, as for qnet_conn.
 */
typedef struct qnet_listener qnet_listener;

/**
 * The counters of a capture; see qnet_capture_get_stats().
 *
 * Later releases only add members at the end of the struct.
 */
typedef struct qnet_capture_stats {
    /**
     * Frames recorded, each counted once for each connection and hub by which it was: those that
     * wait in the buffer included, those that a FIFO's reader left behind not.
     */
    uint64_t frames;
    /**
     * Bytes of the frames in frames, whatever QNET_OPT_SNAPLEN is.
     */
    uint64_t bytes;
    /**
     * Frames that were not recorded, because the buffer was full or writing had failed.
     */
    uint64_t dropped;
    /**
     * Files begun.
     */
    uint64_t files;
    /**
     * Readers that came to a FIFO.
     */
    uint64_t readers;
    /**
     * The errno of the write that has ended the recording, or 0.
     */
    uint64_t error;
} qnet_capture_stats;

/**
 * Called when a peer that a listener of a hub has accepted is to be attached, and again when it has
 * left; see qnet_hub_set_port_handler(). It must not throw an exception or longjmp out. It may end
 * its thread (pthread_exit): the hub then has no port handler, and the peer is attached.
 *
 * @param user      The pointer that was given to qnet_hub_set_port_handler().
 * @param conn      The peer's connection. It is the hub's, as after qnet_hub_serve().
 * @param attached  1 before it is attached, 0 after it has left.
 */
typedef void (*qnet_port_handler)(void *user, struct qnet_conn *conn, int attached);

/**
 * The counters of a hub since it was created; see qnet_hub_get_stats().
 *
 * Later releases only add members at the end of the struct.
 */
typedef struct qnet_hub_stats {
    /**
     * How many connections are attached now. Those accepted by qnet_hub_serve() and the hub's own
     * ends of qnet_hub_port() are included.
     */
    uint64_t ports;
    /**
     * How many addresses are known now.
     */
    uint64_t macs;
    /**
     * Frames sent to the single port behind which their destination is.
     */
    uint64_t forwarded;
    /**
     * Frames sent to every other port, because they are broadcast or multicast or their
     * destination is unknown. Each frame counts once, however many ports it goes to.
     */
    uint64_t flooded;
    /**
     * Frames that were not sent to a port because its queue was full, because the frame was longer
     * than its QNET_OPT_MAX_FRAME, because its cable was pulled (QNET_OPT_LINK), or because its
     * connection was down or ending; each of these is also counted in that connection's tx_dropped.
     * Also frames whose destination is behind the port that they came from. A flooded frame counts
     * once for each port that drops it, and a copy once for each mirror that does.
     */
    uint64_t dropped;
    /**
     * Frames that came from all ports (behind QNET_IN, see qnet_impair()). While no port drops what is
     * flooded, mirrored or in flight to it, each is counted once in forwarded, flooded, dropped or one of
     * the following that begin with refused_: for the first reason, in the order of mirrors
     * (refused_isolated), refused_vlan, refused_group, refused_secure, refused_move, dropped,
     * refused_isolated, refused_storm.
     */
    uint64_t received;
    /**
     * Frames that the VLANs of their port do not admit, and those for a single port that may not
     * have them: it is not in their VLAN, or they would leave with a tag too many; see
     * qnet_set_vlan().
     */
    uint64_t refused_vlan;
    /**
     * Frames to groups that are not forwarded (QNET_OPT_GROUP_FWD_MASK).
     */
    uint64_t refused_group;
    /**
     * Frames beyond those that may be flooded (QNET_OPT_STORM_FPS).
     */
    uint64_t refused_storm;
    /**
     * Frames from addresses that secure ports keep, or keep out (QNET_OPT_SECURE).
     */
    uint64_t refused_secure;
    /**
     * Frames from addresses that were heard at another port too lately (QNET_OPT_MOVE_MS).
     */
    uint64_t refused_move;
    /**
     * Frames between isolated ports (QNET_OPT_ISOLATED), and those from and for mirrors.
     */
    uint64_t refused_isolated;
    /**
     * Copies of frames that mirrors were sent (QNET_OPT_MIRROR).
     */
    uint64_t mirrored;
    /**
     * How many times a known address was heard at another port, and has moved there.
     */
    uint64_t moves;
} qnet_hub_stats;

/**
 * What became of the frames of one direction of a connection since it was created; see
 * qnet_get_impair_stats(). At any time
 *
 *   frames + duplicated = lost + dropped + discarded + passed + waiting + flying
 *
 * Later releases only add members at the end of the struct.
 */
typedef struct qnet_impair_stats {
    /**
     * Frames that came while there was an impairment, or any were in flight.
     */
    uint64_t frames;
    /**
     * Bytes of the frames in frames.
     */
    uint64_t bytes;
    /**
     * Frames that did not match (`match`), and so passed at once.
     */
    uint64_t bypassed;
    /**
     * Frames that were lost (`loss`).
     */
    uint64_t lost;
    /**
     * Frames marked Congestion Experienced (`ecn`, `mark`).
     */
    uint64_t marked;
    /**
     * Copies made (`duplicate`).
     */
    uint64_t duplicated;
    /**
     * Frames of which a bit was flipped (`corrupt`).
     */
    uint64_t corrupted;
    /**
     * Frames that found too many waiting (`limit`), or in a hub no room (QNET_OPT_FLIGHT_BYTES).
     */
    uint64_t dropped;
    /**
     * Frames that left after one that had come later.
     */
    uint64_t reordered;
    /**
     * Frames that were in flight when the connection ended or was unlinked or detached, or its cable
     * pulled.
     */
    uint64_t discarded;
    /**
     * Frames that got through.
     */
    uint64_t passed;
    /**
     * Bytes of the frames in passed.
     */
    uint64_t passed_bytes;
    /**
     * Frames that wait for the rate now.
     */
    uint64_t waiting;
    /**
     * Frames that are delayed now.
     */
    uint64_t flying;
    /**
     * Bytes of the frames in waiting and flying.
     */
    uint64_t held_bytes;
} qnet_impair_stats;

/**
 * Who the peer of a connection over a Unix socket is; see qnet_peer_cred().
 *
 * Later releases only add members at the end of the struct.
 */
typedef struct qnet_cred {
    /**
     * The number of its user.
     */
    int64_t uid;
    /**
     * The number of its group.
     */
    int64_t gid;
    /**
     * The number of its process; 0 if that is in a PID namespace which this process cannot see.
     */
    int64_t pid;
} qnet_cred;

/**
 * The counters of a connection since it was created; see qnet_get_stats().
 *
 * Bytes are bytes of frames, without length prefixes. Reads and writes are system calls. Later
 * releases only add members at the end of the struct.
 */
typedef struct qnet_stats {
    /**
     * Frames received and given to the program, a hub or a link.
     */
    uint64_t rx_frames;
    /**
     * Bytes of the frames in rx_frames.
     */
    uint64_t rx_bytes;
    /**
     * Frames received that were shorter than 14 bytes and were skipped. On datagram connections
     * also datagrams longer than any frame.
     */
    uint64_t rx_runts;
    /**
     * Reads that returned data.
     */
    uint64_t rx_reads;
    /**
     * Frames sent, that is, written to the socket as a whole. Every frame taken is counted either
     * here or in tx_dropped.
     */
    uint64_t tx_frames;
    /**
     * Bytes of the frames in tx_frames, including padding.
     */
    uint64_t tx_bytes;
    /**
     * Frames that were lost instead of sent: the connection had ended or was down, nobody received
     * a datagram, a hub's queue for the connection was full, or a hub or link had a frame for it
     * that was longer than its QNET_OPT_MAX_FRAME, or for which its cable was pulled (QNET_OPT_LINK).
     */
    uint64_t tx_dropped;
    /**
     * Writes of which the socket accepted at least a part.
     */
    uint64_t tx_writes;
    /**
     * How many times the connection has come up by reconnecting.
     */
    uint64_t reconnects;
    /**
     * Datagrams that were skipped because they did not come from the remote of a qnet_dgram().
     * (For an adopted socket the kernel filters them out, and they are not counted.)
     */
    uint64_t rx_foreign;
    /**
     * Of the frames in rx_frames, those that went nowhere on purpose: the cable was pulled
     * (QNET_OPT_LINK), the connection linked to nothing (QNET_OPT_OUTLIVE), or a hub refused them
     * (refused_vlan and so on of qnet_hub_stats).
     */
    uint64_t rx_refused;
} qnet_stats;

/**
 * What a hub knows of an address; see qnet_hub_fdb().
 *
 * Later releases only add members at the end of the struct.
 */
typedef struct qnet_fdb_entry {
    /**
     * The address.
     */
    uint8_t mac[6];
    /**
     * The VLAN in which it is known; 0 in a hub without VLANs.
     */
    uint16_t vlan;
    /**
     * A sum of enum qnet_fdb_flag.
     */
    uint32_t flags;
    /**
     * How many times it has moved from one port to another since it was learned.
     */
    uint32_t moves;
    /**
     * The connection that it is behind: of qnet_hub_port() the one that the program was given, else as
     * qnet_hub_ports() names it.
     */
    struct qnet_conn *conn;
    /**
     * How long ago its last frame came, in milliseconds; 0 for static ones.
     */
    uint64_t age_ms;
} qnet_fdb_entry;

/**
 * Called with one frame. The handler may call any function of the library, also for its own
 * connection. It must not throw an exception or longjmp out. It may end its thread (pthread_exit);
 * the connection then has no handler.
 *
 * @param user   The pointer that was given to qnet_set_handler().
 * @param frame  The frame. Its bytes are valid until the handler returns. They must not be changed: what
 *               the handler sends on as it is may be written from there, and not copied.
 * @param len    The length of the frame in bytes: 14 to QNET_FRAME_MAX.
 */
typedef void (*qnet_handler)(void *user, const uint8_t *frame, size_t len);

/**
 * One Ethernet frame in memory. It starts with the destination address and contains neither a
 * length prefix nor a checksum.
 *
 * The struct has the same layout as `struct iovec`.
 */
typedef struct qnet_frame {
    /**
     * The first byte of the frame.
     */
    const uint8_t *data;
    /**
     * The length of the frame in bytes.
     */
    size_t len;
} qnet_frame;

/**
 * Called with one or more frames. The rules of qnet_handler apply.
 *
 * @param user    The pointer that was given to qnet_set_batch_handler().
 * @param frames  The frames. The array and the bytes are valid until the handler returns.
 * @param count   The number of frames, at least 1.
 */
typedef void (*qnet_batch_handler)(void *user, const struct qnet_frame *frames, size_t count);

/**
 * Called once when the connection has ended, as the last of its handlers. This is the place to
 * free what `user` points to. The handler may close the connection.
 *
 * @param user    The pointer that was given to qnet_set_close_handler().
 * @param reason  QNET_ERR_CLOSED (an orderly end by either side), QNET_ERR_PROTOCOL or
 *                QNET_ERR_OS.
 */
typedef void (*qnet_close_handler)(void *user, int reason);

/**
 * Called when a reconnecting connection has gone down, and when it is up again. The calls are made
 * in order, one at a time, each on a library thread of its own. The connection is not dialled
 * before the handler has returned; other connections do not wait for it. The handler may call any
 * function of the library, also for its own connection. It must not throw an exception or longjmp
 * out. It may end its thread (pthread_exit); the connection then has no state handler, and still
 * reconnects.
 *
 * @param user  The pointer that was given to qnet_set_state_handler().
 * @param up    1 if the connection is up again, 0 if it has gone down.
 */
typedef void (*qnet_state_handler)(void *user, int up);

/* ---- Connecting (conn) ------------------------------------------------------------ */

/**
 * Connects to a listening QEMU or to any other program that uses the same framing. With
 * "unixpacket" it connects to a SEQPACKET socket, on which each message is one frame, such as that
 * of gvproxy's `-listen-bess`.
 *
 * @param network  "tcp", "tcp4", "tcp6", "unix" or "unixpacket".
 * @param address  For TCP, "host:port", "[v6]:port" or ":port" (this host); every address that a
 *                 host name resolves to is tried. For Unix sockets, a path, or "@name" in the
 *                 abstract namespace. A reconnecting connection resolves a relative path against
 *                 the working directory of each attempt.
 * @param out      Receives the connection, to be closed with qnet_close(); NULL on failure.
 * @return QNET_OK; QNET_ERR_INVALID (a NULL, an unknown network, a malformed address),
 *         QNET_ERR_REFUSED (nobody listens there, or there is no such socket file),
 *         QNET_ERR_RESOLVE, QNET_ERR_INTERRUPTED, QNET_ERR_OS (EPROTOTYPE if a stream socket
 *         listens where SEQPACKET was requested, or the reverse), QNET_ERR_INTERNAL.
 *
 * The call waits as long as the system does; qnet_dial_with() can limit that. The library starts a
 * thread only to resolve a host name, not for a numeric address or a path.
 *
 * Blocks: yes, until the peer has accepted or the attempt has failed.
 * Calls back: no.
 */
int qnet_dial(const char *network, const char *address, qnet_conn **out);

/**
 * Connects like qnet_dial(), with options that are set before connecting.
 *
 * @param network  As for qnet_dial().
 * @param address  As for qnet_dial().
 * @param options  An array of pairs, each an option (enum qnet_option) followed by its value.
 *                 Options of connections and QNET_OPT_DIAL_TIMEOUT_MS are allowed. May be NULL if
 *                 pairs is 0.
 * @param pairs    The number of pairs.
 * @param out      Receives the connection, to be closed with qnet_close(); NULL on failure.
 * @return The codes of qnet_dial(), and QNET_ERR_TIMEOUT, or QNET_ERR_AGAIN if
 *         QNET_OPT_DIAL_TIMEOUT_MS is 0. An unknown option or a value out of range gives
 *         QNET_ERR_INVALID, and an option of other objects QNET_ERR_UNSUPPORTED; nothing is
 *         dialled then.
 *
 * With QNET_OPT_RECONNECT_MS above 0, it is no failure if the peer is not there yet. If nobody
 * listens, the name cannot be resolved, the network or host is unreachable or the time-out passes,
 * the call succeeds with a connection that is down and keeps dialling; see
 * qnet_set_state_handler().
 *
 * Blocks: yes, until the peer has accepted or the attempt has failed, for at most
 * QNET_OPT_DIAL_TIMEOUT_MS.
 * Calls back: no.
 */
int qnet_dial_with(const char *network,
                   const char *address,
                   const int64_t *options,
                   size_t pairs,
                   qnet_conn **out);

/**
 * Creates two connections that are each other's peer, using socketpair(2).
 *
 * @param a  Receives one connection, to be closed with qnet_close(); NULL on failure.
 * @param b  Receives the other connection, to be closed with qnet_close(); NULL on failure.
 * @return QNET_OK; QNET_ERR_INVALID (a NULL, or a equals b), QNET_ERR_OS, QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_socketpair(qnet_conn **a, qnet_conn **b);

/**
 * Creates a connection whose peer is a descriptor, to be inherited by a child QEMU
 * (`-netdev socket,fd=` or `-netdev stream,addr.type=fd,addr.str=`).
 *
 * @param out      Receives the connection, to be closed with qnet_close(); NULL on failure.
 * @param peer_fd  Receives the descriptor of the other end; -1 on failure. The caller owns it and
 *                 closes it. It is close-on-exec, so the child has to clear FD_CLOEXEC.
 * @return QNET_OK; QNET_ERR_INVALID (a NULL), QNET_ERR_OS, QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_socketpair_fd(qnet_conn **out, int *peer_fd);

/**
 * Creates a connection from a connected socket or an open TAP. A stream socket carries QEMU's
 * framing. On a datagram socket, a SEQPACKET socket or a TAP each message is one frame. SEQPACKET
 * is as reliable as a stream: a sender waits for a peer that does not read, and nothing is lost.
 *
 * @param fd   The descriptor. On success the library owns it; on failure it stays the caller's.
 *             The library sets FD_CLOEXEC and leaves O_NONBLOCK as it is.
 * @param out  Receives the connection, to be closed with qnet_close(); NULL on failure.
 * @return QNET_OK; QNET_ERR_INVALID (fd is not open, is neither a socket nor a TAP, is a listening
 *         socket or has no peer; or out is NULL), QNET_ERR_UNSUPPORTED (a TUN, a TAP with
 *         IFF_VNET_HDR, or another kind of socket), QNET_ERR_OS, QNET_ERR_INTERNAL.
 *
 * A TAP has to have been opened with IFF_NO_PI, which the library cannot check.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_from_fd(int fd, qnet_conn **out);

/* ---- Datagrams and TAPs (dgram) --------------------------------------------------- */

/**
 * Creates a datagram connection, on which each datagram is one frame. It is the other end of
 * QEMU's `-netdev dgram`, `-netdev socket,udp=` and `-netdev socket,mcast=`.
 *
 * It is used like any other connection, except that it does not notice when the remote leaves.
 * Frames that nobody receives are lost and counted in tx_dropped; once somebody receives again,
 * sending works again. If the remote exists but does not read, a send waits for up to 40 ms;
 * after that frames are dropped until the remote reads. With QNET_OPT_SEND_TIMEOUT_MS 0 a send
 * gives QNET_ERR_AGAIN instead. The descriptor of qnet_fd() does not show when a Unix remote has
 * room again, so the program has to try again after a while.
 *
 * Datagrams from anyone but the remote are not delivered, and are counted in rx_foreign. A
 * multicast member's own frames and the `VFKT` with which vfkit begins are not delivered either.
 * Datagrams shorter or longer than any frame are counted in rx_runts.
 *
 * If remote is NULL, the first sender becomes the remote, even if what it sends is no frame. Until
 * then frames sent are lost and counted in tx_dropped, and qnet_peer_addr() gives an empty string.
 * With QNET_OPT_RELEARN 1 each later sender takes its place. A sender is noticed when its datagram
 * is read: by a receive, a handler, a hub or a link.
 *
 * @param network  "udp", "udp4", "udp6", "unixgram" or "mcast" (IPv4 multicast).
 * @param local    The address to receive at. For UDP, "host:port", "[v6]:port" or ":port" (every
 *                 interface); with port 0 the system chooses one. For unixgram, a path, or "@name"
 *                 in the abstract namespace. The socket file is created with mode 0600 and removed
 *                 with the connection, and a dead socket file in its place is replaced, as by
 *                 qnet_listen(). For mcast, the address of the interface, or NULL.
 * @param remote   The address to send to. For UDP, "host:port", "[v6]:port" or ":port" (this
 *                 host); "udp" prefers IPv4 where a name has both, because QEMU has no IPv6
 *                 datagrams. For unixgram, a path or "@name", exactly as the remote has bound it;
 *                 a relative path is resolved against the working directory of each send. For
 *                 mcast, the group, such as "230.0.0.1:1234". NULL (not for mcast): the first
 *                 sender.
 * @param out      Receives the connection, to be closed with qnet_close(); NULL on failure.
 * @return QNET_OK; QNET_ERR_INVALID (another argument is NULL, an unknown network, a malformed
 *         address), QNET_ERR_BUSY (the local address is in use, or a file that may not be replaced
 *         is there), QNET_ERR_RESOLVE, QNET_ERR_INTERRUPTED, QNET_ERR_OS, QNET_ERR_INTERNAL.
 *
 * A UDP datagram can carry a frame of up to 65507 bytes (65527 over IPv6).
 *
 * Blocks: yes, while a host name is resolved; not for a numeric address or a path.
 * Calls back: no.
 */
int qnet_dgram(const char *network, const char *local, const char *remote, qnet_conn **out);

/**
 * Creates a connection to a TAP interface: frames sent on the connection arrive at the interface,
 * and frames that the kernel sends through the interface are received. Attached to a hub, it
 * connects the hub to the kernel's bridges, VXLAN, WireGuard and so on. The interface has to be up
 * (`ip link set NAME up`); while it is down, frames sent are lost and counted in tx_dropped.
 *
 * @param name  The interface's name. An existing TAP that belongs to this user (`ip tuntap add`)
 *              is opened. Otherwise one is created, which needs CAP_NET_ADMIN, and is deleted with
 *              the connection. With NULL or "" the system chooses the name, and with a pattern
 *              such as "vm%d" the number; qnet_local_addr() gives the name.
 * @param out   Receives the connection, to be closed with qnet_close(); NULL on failure.
 * @return QNET_OK; QNET_ERR_INVALID (out is NULL, a malformed name, or an interface that is not a
 *         TAP), QNET_ERR_OS (permission denied, or somebody else has it open), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_tap(const char *name, qnet_conn **out);

/**
 * Writes the `-netdev` argument with which QEMU joins a datagram connection. If the connection has
 * no remote and nobody has sent yet, the argument is for a QEMU on this host, which lets its
 * system choose a port; for Unix sockets there is no such argument.
 *
 * @param conn          A connection of qnet_dgram().
 * @param id            The id of the netdev: a letter, then letters, digits, '-', '.' and '_'.
 * @param qemu_version  The version of QEMU, 100 * major + minor: 702 is 7.2. At least 402.
 * @param buf           Receives the argument as snprintf(3) would write it: truncated if
 *                      necessary, always NUL-terminated. May be NULL if cap is 0.
 * @param cap           The size of buf in bytes.
 * @return The length of the whole argument in bytes, without the NUL, even if buf is too small for
 *         it; QNET_ERR_HANDLE, QNET_ERR_INVALID (a NULL, a malformed id, not a version),
 *         QNET_ERR_UNSUPPORTED (the connection is of another kind, or QEMU cannot join it: before
 *         7.2 over Unix sockets; in any version over abstract names or IPv6, with a Unix remote
 *         that is not known yet, or with an absolute path longer than 107 bytes),
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_netdev(qnet_conn *conn, const char *id, int qemu_version, char *buf, size_t cap);

/* ---- Listening (listener) --------------------------------------------------------- */

/**
 * Listens for peers, such as a QEMU with `-netdev stream,server=off` or `-netdev socket,connect=`.
 *
 * @param network  "tcp", "tcp4", "tcp6", "unix" or "unixpacket" (SEQPACKET: each message is one
 *                 frame).
 * @param address  For TCP, "host:port", "[v6]:port" or ":port" (every interface); with port 0 the
 *                 system chooses one, which qnet_listener_addr() gives. For Unix sockets, a path,
 *                 or "@name" in the abstract namespace. The socket file is created with mode 0600
 *                 (see QNET_OPT_UNIX_MODE). A dead socket file in its place is replaced, unless it
 *                 belongs to another user and lies in a directory that others can write to.
 * @param out      Receives the listener, to be closed with qnet_listener_close(); NULL on failure.
 * @return QNET_OK; QNET_ERR_INVALID (a NULL, an unknown network, a malformed address),
 *         QNET_ERR_BUSY (the address is in use, or a file that may not be replaced is there),
 *         QNET_ERR_RESOLVE, QNET_ERR_INTERRUPTED (while a name was resolved), QNET_ERR_OS,
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: yes, while a host name is resolved; not for a numeric address or a path.
 * Calls back: no.
 */
int qnet_listen(const char *network, const char *address, qnet_listener **out);

/**
 * Waits for a peer and accepts it as a new connection. Several threads may accept from one
 * listener.
 *
 * @param timeout_ms  How long to wait, in milliseconds: -1 waits without limit, 0 does not wait.
 * @param out         Receives the connection, to be closed with qnet_close(); NULL on failure. It
 *                    starts with the options that were set on the listener.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (out is NULL, in which case no peer is
 *         accepted; or timeout_ms is below -1), QNET_ERR_AGAIN (timeout_ms is 0 and no peer is
 *         waiting), QNET_ERR_TIMEOUT, QNET_ERR_INTERRUPTED, QNET_ERR_CLOSED (the listener was
 *         closed during the wait), QNET_ERR_OS (returned at once, for example for EMFILE; the
 *         listener keeps working), QNET_ERR_INTERNAL.
 *
 * Blocks: yes, at most for timeout_ms.
 * Calls back: no.
 */
int qnet_accept(qnet_listener *listener, int timeout_ms, qnet_conn **out);

/**
 * Creates a listener from a listening stream or SEQPACKET socket, as systemd's socket activation
 * provides.
 *
 * @param fd   The socket. On success the library owns it; on failure it stays the caller's. The
 *             library sets FD_CLOEXEC, and leaves O_NONBLOCK and the socket file as they are.
 * @param out  Receives the listener, to be closed with qnet_listener_close(); NULL on failure.
 * @return QNET_OK; QNET_ERR_INVALID (fd is not open, is not a socket or does not listen; or out is
 *         NULL), QNET_ERR_UNSUPPORTED (another kind of socket), QNET_ERR_OS, QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_listener_from_fd(int fd, qnet_listener **out);

/**
 * Gets the address of the listener, in the form that qnet_dial() takes.
 *
 * @param buf  Receives the address as snprintf(3) would write it: truncated if necessary, always
 *             NUL-terminated. May be NULL if cap is 0.
 * @param cap  The size of buf in bytes.
 * @return The length of the whole address in bytes, without the NUL, even if buf is too small for
 *         it; QNET_ERR_HANDLE, QNET_ERR_INVALID (buf is NULL), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_listener_addr(qnet_listener *listener, char *buf, size_t cap);

/**
 * Writes the `-netdev` argument with which QEMU connects to the listener: `socket` before version
 * 7.2, `stream` from then on, and from 8.0 on with the option that makes QEMU reconnect after
 * losing this program. For a listener on every interface, the argument names this host's loopback
 * address.
 *
 * @param id            The id of the netdev: a letter, then letters, digits, '-', '.' and '_'.
 * @param qemu_version  The version of QEMU, 100 * major + minor: 702 is 7.2. At least 402.
 * @param buf           Receives the argument as snprintf(3) would write it: truncated if
 *                      necessary, always NUL-terminated. May be NULL if cap is 0.
 * @param cap           The size of buf in bytes.
 * @return The length of the whole argument in bytes, without the NUL, even if buf is too small for
 *         it; QNET_ERR_HANDLE, QNET_ERR_INVALID (buf or id is NULL, a malformed id, not a
 *         version), QNET_ERR_UNSUPPORTED (QEMU cannot connect: before 4.2 in any way; before 7.2
 *         over Unix sockets or IPv6; in any version to a SEQPACKET socket or an absolute path
 *         longer than 107 bytes), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_listener_netdev(qnet_listener *listener,
                         const char *id,
                         int qemu_version,
                         char *buf,
                         size_t cap);

/**
 * Gets the listener's descriptor, for poll, epoll or another event loop. It is readable when a
 * peer is waiting to be accepted. The library still owns it.
 *
 * @return The descriptor; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_listener_fd(qnet_listener *listener);

/**
 * Closes a listener and invalidates its handle. Every qnet_accept() that is waiting returns
 * QNET_ERR_CLOSED. A socket file that the listener created is removed. Connections that it
 * accepted stay open. The descriptor is closed when the call returns.
 *
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
 *
 * Blocks: yes, until the woken calls of other threads have let go of the listener, which takes
 * only a moment.
 * Calls back: no.
 */
int qnet_listener_close(qnet_listener *listener);

/**
 * Sets an option of the listener, or an option with which the connections that it accepts from now
 * on start.
 *
 * @param option  One of enum qnet_option: an option of connections, QNET_OPT_MAX_CONNS, or
 *                QNET_OPT_UNIX_MODE, which changes the mode of the socket file at once.
 * @param value   The new value.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (no such option, or the value is out of
 *         range), QNET_ERR_UNSUPPORTED (not an option of this listener), QNET_ERR_OS,
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_listener_set(qnet_listener *listener, int option, int64_t value);

/**
 * Gets the value of an option of the listener. QNET_OPT_SNDBUF and QNET_OPT_RCVBUF are 0 until
 * they are set.
 *
 * @param option  One of the options that qnet_listener_set() takes.
 * @param value   Receives the value.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (no such option, or value is NULL),
 *         QNET_ERR_UNSUPPORTED (not an option of this listener), QNET_ERR_OS, QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_listener_get(qnet_listener *listener, int option, int64_t *value);

/* ---- Sending (send) --------------------------------------------------------------- */

/**
 * Sends one frame, as a whole or not at all.
 *
 * Returns when the frame is in the socket, waiting while the peer does not read, for at most
 * QNET_OPT_SEND_TIMEOUT_MS; or when the frame is held back for later frames to join it (see
 * QNET_OPT_CORK and QNET_OPT_TX_USECS). If the socket accepts only a part of the frame, the call
 * succeeds, and the library writes the rest by itself, before any later frame. (If the system
 * refuses the library a thread for that, the next send, flush or close writes the rest.) Several
 * threads may send at the same time: frames are never mixed, and the frames of one thread stay in
 * order.
 *
 * @param frame  The frame, starting with the destination address, without a checksum. It is not
 *               used after the call, unless it is what a handler was given.
 * @param len    The length of the frame in bytes: 14 to QNET_OPT_MAX_FRAME.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (frame is NULL), QNET_ERR_FRAME_SIZE,
 *         QNET_ERR_AGAIN (the time-out is 0), QNET_ERR_TIMEOUT, QNET_ERR_INTERRUPTED,
 *         QNET_ERR_CLOSED (also if the peer has only stopped reading for good; frames that it sent
 *         can still be received), QNET_ERR_PROTOCOL, QNET_ERR_OS, QNET_ERR_INTERNAL. The frame was
 *         not taken unless the call returns QNET_OK.
 *
 * Blocks: yes, while the peer does not read, for at most QNET_OPT_SEND_TIMEOUT_MS.
 * Calls back: no.
 */
int qnet_send(qnet_conn *conn, const void *frame, size_t len);

/**
 * Sends frames in order, many in one system call.
 *
 * @param frames  The frames. Neither the array nor the bytes are used after the call.
 * @param count   The number of frames. With 0 the call does nothing and returns 0.
 * @return How many frames were taken, in order. Each waits as in qnet_send(), and the first that
 *         cannot be taken stops the call. If not even the first frame was taken, a code of
 *         qnet_send().
 *
 * Blocks: yes, while the peer does not read, for at most QNET_OPT_SEND_TIMEOUT_MS for each frame.
 * Calls back: no.
 */
int qnet_send_batch(qnet_conn *conn, const qnet_frame *frames, size_t count);

/**
 * Sends frames that lie one after another in wire format: each is a length of 4 bytes, big-endian,
 * followed by that many bytes of frame.
 *
 * @param buf  The packed frames. They are not used after the call.
 * @param len  The number of bytes, lengths included. With 0 the call does nothing and returns 0.
 * @return How many frames were taken, in order. Each waits as in qnet_send(), and the first that
 *         cannot be taken stops the call. If not even the first frame was taken, a code of
 *         qnet_send(): QNET_ERR_INVALID also for a frame that is cut short, QNET_ERR_FRAME_SIZE
 *         for a length out of range.
 *
 * Blocks: yes, while the peer does not read, for at most QNET_OPT_SEND_TIMEOUT_MS for each frame.
 * Calls back: no.
 */
int qnet_send_packed(qnet_conn *conn, const void *buf, size_t len);

/**
 * Waits, as a send would, until every frame that was taken has been written to the socket. A
 * program that is about to end, by exit() or otherwise, calls this or qnet_close() first, because
 * unwritten frames are lost with the process.
 *
 * @return QNET_OK, also if there was nothing to write; QNET_ERR_HANDLE, QNET_ERR_AGAIN,
 *         QNET_ERR_TIMEOUT, QNET_ERR_INTERRUPTED, QNET_ERR_CLOSED, QNET_ERR_PROTOCOL, QNET_ERR_OS,
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: yes, while the peer does not read, for at most QNET_OPT_SEND_TIMEOUT_MS.
 * Calls back: no.
 */
int qnet_flush(qnet_conn *conn);

/* ---- Receiving (receive) ---------------------------------------------------------- */

/**
 * Sets the handler that is called with every frame received. The calls are made on a thread that
 * the library runs for this connection, one at a time, in the order of the frames. Frames that
 * arrived earlier have waited in the socket and are delivered too. If the peer has left, they are
 * followed by the end; but if the end has already been reported, also by qnet_wait() or
 * qnet_close_reason(), the call returns the reason instead, and a close handler runs in
 * qnet_close().
 *
 * Outside a handler of any kind, the call returns only when the handler that this one replaces is
 * not running and never will again, so that its `user` can be freed. Hold no lock that the old
 * handler takes. Inside a handler, or with QNET_OPT_WAIT 0, the call does not wait.
 *
 * @param handler  The handler, or NULL to stop receiving. It also replaces a batch handler.
 * @param user     A pointer that is passed to the handler.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_BUSY (the connection is attached or linked),
 *         QNET_ERR_CLOSED, QNET_ERR_PROTOCOL or QNET_ERR_OS (the connection has ended; QNET_ERR_OS
 *         also if no thread can be started), QNET_ERR_INTERNAL.
 *
 * Blocks: yes, until the previous handler has returned; not inside a handler of any kind, or with
 * QNET_OPT_WAIT 0.
 * Calls back: no.
 */
int qnet_set_handler(qnet_conn *conn, qnet_handler handler, void *user);

/**
 * Sets a handler that is called with many frames at a time, as many as have arrived. Everything
 * else is as for qnet_set_handler().
 *
 * @param handler  The handler, or NULL to stop receiving. It also replaces a single-frame handler.
 * @param user     A pointer that is passed to the handler.
 * @return The codes of qnet_set_handler().
 *
 * Blocks: yes, until the previous handler has returned; not inside a handler of any kind, or with
 * QNET_OPT_WAIT 0.
 * Calls back: no.
 */
int qnet_set_batch_handler(qnet_conn *conn, qnet_batch_handler handler, void *user);

/**
 * Sets the handler that is called once when the connection has ended, as the last of its handlers.
 *
 * If the connection has a frame handler, the close handler runs on the same thread. If it is
 * attached to a hub or linked, the close handler runs on a thread of the library. Otherwise it
 * runs on the calling thread, in the receive that reports the end, in qnet_shutdown() or in
 * qnet_close(), but never in qnet_wait() or qnet_poll(). If the connection has ended by the time
 * of this call, the handler runs before the call returns. A handler that is replaced in time is
 * never called.
 *
 * @param handler  The handler, or NULL for none.
 * @param user     A pointer that is passed to the handler.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: yes, the handler being set, if the connection has ended.
 */
int qnet_set_close_handler(qnet_conn *conn, qnet_close_handler handler, void *user);

/**
 * Receives one frame. Several threads may receive at the same time; each frame goes to one of
 * them.
 *
 * @param buf         Receives the frame. QNET_FRAME_MAX bytes are always enough.
 * @param cap         The size of buf in bytes. With 0, where buf may be NULL, the call returns the
 *                    length of the next frame without consuming it.
 * @param timeout_ms  How long to wait, in milliseconds: -1 waits without limit, 0 does not wait.
 * @return The length of the frame in bytes; QNET_ERR_HANDLE, QNET_ERR_INVALID (buf is NULL, or
 *         timeout_ms is below -1), QNET_ERR_FRAME_SIZE (buf is too small; the frame is not
 *         consumed), QNET_ERR_AGAIN (timeout_ms is 0 and no frame is there), QNET_ERR_TIMEOUT,
 *         QNET_ERR_INTERRUPTED, QNET_ERR_BUSY (the connection has a handler, or is attached or
 *         linked), QNET_ERR_CLOSED, QNET_ERR_PROTOCOL or QNET_ERR_OS (how the connection ended,
 *         after all frames that came before the end), QNET_ERR_INTERNAL.
 *
 * Blocks: yes, at most for timeout_ms.
 * Calls back: yes, the close handler, if the call reports the end.
 */
int qnet_recv(qnet_conn *conn, void *buf, size_t cap, int timeout_ms);

/**
 * Receives frames without copying them: the library lends their bytes to the caller. They stay
 * valid until the next receive on the connection by any thread, until it is received from in
 * another way, or until it is closed. They outlive the end of the connection and calls of
 * qnet_poll().
 *
 * A loan keeps the memory occupied that the frames were read into: up to 16 KiB if timeout_ms is
 * 0, fewer than count frames were there and they fit; otherwise 128 KiB, or for datagrams up to 68
 * KiB each. A connection that lends nothing and has nothing to read keeps 16 KiB at most.
 *
 * @param frames      Receives the frames, that is, pointers to them and their lengths.
 * @param count       How many frames the array has room for, at least 1.
 * @param timeout_ms  How long to wait for the first frame, in milliseconds: -1 waits without
 *                    limit, 0 does not wait.
 * @return How many frames were received, at least 1; otherwise the codes of qnet_recv().
 *
 * Blocks: yes, at most for timeout_ms.
 * Calls back: yes, the close handler, if the call reports the end.
 */
int qnet_recv_batch(qnet_conn *conn, qnet_frame *frames, size_t count, int timeout_ms);

/**
 * Receives frames in wire format, one after another: each is a length of 4 bytes, big-endian,
 * followed by that many bytes of frame.
 *
 * @param buf         Receives the frames. QNET_FRAME_MAX + 4 bytes are always enough for one.
 * @param cap         The size of buf in bytes.
 * @param timeout_ms  How long to wait for the first frame, in milliseconds: -1 waits without
 *                    limit, 0 does not wait.
 * @return How many bytes were written to buf, lengths included. They are whole frames, as many as
 *         were there and fit. Otherwise the codes of qnet_recv().
 *
 * Blocks: yes, at most for timeout_ms.
 * Calls back: yes, the close handler, if the call reports the end.
 */
int qnet_recv_packed(qnet_conn *conn, void *buf, size_t cap, int timeout_ms);

/**
 * Waits until at least one of several connections has a frame or an end to report.
 *
 * @param conns       The connections.
 * @param ready       Receives 1 for each connection on which a receive would return anything but
 *                    QNET_ERR_AGAIN, which includes errors and stale handles; and 0 for each of
 *                    the others.
 * @param count       The number of connections, at least 1.
 * @param timeout_ms  How long to wait, in milliseconds: -1 waits without limit, 0 does not wait.
 * @return How many connections are ready, 0 if the time has passed; QNET_ERR_INVALID (a NULL, a
 *         count of 0, or timeout_ms is below -1), QNET_ERR_INTERRUPTED, QNET_ERR_OS,
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: yes, at most for timeout_ms.
 * Calls back: no.
 */
int qnet_poll(qnet_conn *const *conns, uint8_t *ready, size_t count, int timeout_ms);

/**
 * Gets a descriptor for poll, epoll or a GUI's event loop. It stays the same number until
 * qnet_close() returns. It is the socket itself; with QNET_OPT_RECONNECT_MS above 0 it is another
 * descriptor, which follows the socket as it is replaced and only signals reading.
 *
 * Poll it for reading only after a receive returned QNET_ERR_AGAIN, or a batch fewer frames than
 * there was room for, because the library may hold frames that the descriptor does not know about
 * (qnet_poll() knows). With edge-triggered epoll (EPOLLET), receive until QNET_ERR_AGAIN, because
 * the end may follow a short batch. When the descriptor is writable, a send that returned
 * QNET_ERR_AGAIN may be tried again. Do not read from it, write to it or close it, and remove it
 * from an epoll set before qnet_close().
 *
 * @return The descriptor; QNET_ERR_HANDLE, QNET_ERR_OS (the descriptor that follows the socket
 *         cannot be created), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_fd(qnet_conn *conn);

/* ---- Ending (end) ----------------------------------------------------------------- */

/**
 * Waits until the connection has ended, by either side, and, if it has a handler or is attached or
 * linked, until its close handler has returned. The call works however the connection is received
 * from. A connection that is pulled from, or not received from at all, has ended once its peer has
 * left, even if frames are still waiting. (Over TCP the library does not see a peer leave while
 * much is unread, until some of that has been received.) A reconnecting connection does not end
 * when its peer leaves.
 *
 * @param timeout_ms  How long to wait, in milliseconds: -1 waits without limit, 0 does not wait.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (timeout_ms is below -1), QNET_ERR_AGAIN
 *         (timeout_ms is 0 and the connection has not ended), QNET_ERR_TIMEOUT,
 *         QNET_ERR_INTERRUPTED, QNET_ERR_BUSY (called inside the connection's own handler),
 *         QNET_ERR_OS, QNET_ERR_INTERNAL.
 *
 * Blocks: yes, at most for timeout_ms.
 * Calls back: no.
 */
int qnet_wait(qnet_conn *conn, int timeout_ms);

/**
 * Gets the reason for which the connection ended.
 *
 * @return QNET_OK while the connection is open, which includes the time during which a
 *         reconnecting connection is down, and, where frames are pulled, the time until all that
 *         the peer sent has been received; QNET_ERR_CLOSED (an orderly end by either side),
 *         QNET_ERR_PROTOCOL, QNET_ERR_OS (for example a reset); QNET_ERR_HANDLE,
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_close_reason(qnet_conn *conn);

/**
 * Ends the connection without waiting; the handle stays valid and is to be closed with
 * qnet_close(). No further handler call begins. Sends and receives, including those that are
 * waiting, return QNET_ERR_CLOSED, or the reason of an earlier end. In the background the library
 * writes the frames that were taken and drains what the peer is still writing, for as long as
 * qnet_close() would; then the peer sees the end.
 *
 * @return QNET_OK, also if the connection had already ended; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: yes, the close handler, if it has not been called yet and the connection has no
 * handler and is neither attached nor linked.
 */
int qnet_shutdown(qnet_conn *conn);

/**
 * Ends the connection and invalidates its handle. Calls that are waiting on the connection return
 * QNET_ERR_CLOSED (qnet_wait() returns QNET_OK).
 *
 * The call first writes the frames that were taken, and over TCP waits until the system has sent
 * them, which a peer that does not read can delay. It also drains what a QEMU peer is still
 * writing, because otherwise that peer's netdev would not work for its next connection. All of
 * this takes at most QNET_OPT_LINGER_MS.
 *
 * The call returns when no handler of the connection is running and its close handler has
 * returned; inside a handler of any kind, or with QNET_OPT_WAIT 0, it does not wait for handlers.
 * In every case the descriptor is closed and the socket file removed when the call returns, so
 * that the address can be used again at once. (If a thread is stopped inside a call on the
 * connection, or has jumped out of one, the call waits for it for at most 10 s.)
 *
 * Draining takes no time if the peer has left; on datagram and SEQPACKET connections and TAPs; and
 * on a stream where nothing is unread and no read of the last 20 ms returned more than 4 KiB. On
 * any other stream it lasts until the peer has been silent for 20 ms. If the peer is not silent
 * within 50 ms, draining goes on only until everything that it has written is read and ends with a
 * frame; over a Unix socket the peer's writes then fail, and it still has to be silent for 20 ms.
 * A peer that writes large frames without a pause may not let that happen, and a peer that stops
 * in the middle of a frame does not; then draining takes all of QNET_OPT_LINGER_MS.
 *
 * The call returns QNET_OK even if QNET_OPT_LINGER_MS was too short for something. To be certain
 * that every frame has been written to the socket, call qnet_flush() before. Alternatively, call
 * qnet_shutdown() first: within QNET_OPT_LINGER_MS each frame that was taken is then counted by
 * qnet_get_stats() in either tx_frames or tx_dropped. (qnet_wait() does not wait for that.)
 *
 * @return QNET_OK; QNET_ERR_HANDLE (if two threads close a connection at the same time, the second
 *         gets this immediately), QNET_ERR_INTERNAL.
 *
 * Blocks: yes, while it writes and drains, for at most QNET_OPT_LINGER_MS; and until the
 * connection's handlers have returned, but not inside a handler of any kind or with QNET_OPT_WAIT
 * 0.
 * Calls back: yes, the close handler, if it has not been called yet and the connection has no
 * handler and is neither attached nor linked.
 */
int qnet_close(qnet_conn *conn);

/* ---- Reconnecting (redial) -------------------------------------------------------- */

/**
 * Sets the handler that is called with 0 when a reconnecting connection has gone down, and with 1
 * when it is up again. It is not called with the state at the time of this call. If the connection
 * began without its peer, the first call is with 1.
 *
 * A connection of qnet_dial() or qnet_dial_with() reconnects while QNET_OPT_RECONNECT_MS is above
 * 0. When its peer leaves, resets it or breaks the framing, the connection does not end but goes
 * down, once every whole frame that was received before has been consumed. So a program that pulls
 * frames has to keep pulling. A connection that nobody receives from notices the loss when a send
 * fails, or in qnet_wait() or qnet_poll(). The library dials the peer again QNET_OPT_RECONNECT_MS
 * after the loss and after each failed attempt, until an attempt succeeds, which
 * qnet_stats.reconnects counts. An attempt to reach a Unix socket also fails while the backlog of
 * its listener is full. One thread dials for all connections that are down, and none of them waits
 * for another. The handle, the handlers, the place in a hub or link, the options and the counters
 * stay.
 *
 * While the connection is down, qnet_close_reason() is QNET_OK. Sends succeed, but their frames
 * are dropped and counted in tx_dropped, as are frames that were taken before and not yet written.
 * Receives return QNET_ERR_AGAIN or QNET_ERR_TIMEOUT or keep waiting, as does qnet_wait().
 *
 * A reconnecting connection ends when qnet_shutdown() or qnet_close() is called, which also
 * abandons an attempt in progress; when it is linked and the other end of the link ends; when the
 * thread cannot be started; or when QNET_OPT_RECONNECT_MS is set to 0 while it is down, then with
 * the reason for which it went down. Only then is the close handler called.
 *
 * Outside a handler of any kind, the call returns only when the state handler that this one
 * replaces is not running and never will again, so that its `user` can be freed. Hold no lock that
 * the old handler takes. Inside a handler, or with QNET_OPT_WAIT 0, the call does not wait. After
 * qnet_shutdown() or qnet_close() no call of the handler begins; qnet_close() waits for one that
 * is running as this function does.
 *
 * @param handler  The handler, or NULL for none.
 * @param user     A pointer that is passed to the handler.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_UNSUPPORTED (the connection was not dialled),
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: yes, until the previous handler has returned; not inside a handler of any kind, or with
 * QNET_OPT_WAIT 0.
 * Calls back: no.
 */
int qnet_set_state_handler(qnet_conn *conn, qnet_state_handler handler, void *user);

/* ---- Knowing (info) --------------------------------------------------------------- */

/**
 * Gets the connection's own hardware (MAC) address, for programs that act as a device on it. The
 * library only stores the address and does not use it. Until it is set it is random, locally
 * administered and unicast.
 *
 * @param mac  Receives the address, 6 bytes.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (mac is NULL), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hwaddr(qnet_conn *conn, uint8_t *mac);

/**
 * Sets the connection's own hardware (MAC) address; see qnet_hwaddr().
 *
 * @param mac  The new address, 6 bytes.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (mac is NULL), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_set_hwaddr(qnet_conn *conn, const uint8_t *mac);

/**
 * Gets the address of this end of the connection. It is empty for a socket without a name, and
 * while a reconnecting connection is down.
 *
 * @param buf  Receives the address as snprintf(3) would write it: truncated if necessary, always
 *             NUL-terminated. May be NULL if cap is 0.
 * @param cap  The size of buf in bytes.
 * @return The length of the whole address in bytes, without the NUL, even if buf is too small for
 *         it; QNET_ERR_HANDLE, QNET_ERR_INVALID (buf is NULL), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_local_addr(qnet_conn *conn, char *buf, size_t cap);

/**
 * Gets the address of the peer, as it was when the connection was made. While a reconnecting
 * connection is down, it is the address being dialled, or empty if that is a host name. For a
 * qnet_dgram() without a remote it is the first sender, or the latest with QNET_OPT_RELEARN 1, and
 * empty until somebody has sent.
 *
 * @param buf  Receives the address as snprintf(3) would write it: truncated if necessary, always
 *             NUL-terminated. May be NULL if cap is 0.
 * @param cap  The size of buf in bytes.
 * @return The length of the whole address in bytes, without the NUL, even if buf is too small for
 *         it; QNET_ERR_HANDLE, QNET_ERR_INVALID (buf is NULL), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_peer_addr(qnet_conn *conn, char *buf, size_t cap);

/**
 * Tells who the peer of a connection over a Unix socket is, as the system has noted when the two
 * were connected. It does not change, even if the peer gives its end to another process. If the
 * peer was dialled, it is whoever listened there; of a qnet_socketpair() or qnet_socketpair_fd() it
 * is this process. The answer stays when the connection has ended. While a reconnecting connection
 * is down there is none, and then it is that of the new peer.
 *
 * @param out   Receives user, group and process. Members that this release of the library does not
 *              know are set to zero.
 * @param size  The size of the struct in bytes: sizeof(qnet_cred) as the caller was compiled.
 * @return The size in bytes of the struct that the library knows; QNET_ERR_HANDLE,
 *         QNET_ERR_INVALID (out is NULL), QNET_ERR_UNSUPPORTED (the system does not know: TCP, UDP,
 *         Unix datagrams that are sent to an address, TAPs), QNET_ERR_OS, QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_peer_cred(qnet_conn *conn, qnet_cred *out, size_t size);

/**
 * Gets the connection's counters.
 *
 * @param out   Receives the counters. Members that this release of the library does not know are
 *              set to zero.
 * @param size  The size of the struct in bytes: sizeof(qnet_stats) as the caller was compiled.
 * @return The size in bytes of the struct that the library knows; QNET_ERR_HANDLE,
 *         QNET_ERR_INVALID (out is NULL), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_get_stats(qnet_conn *conn, qnet_stats *out, size_t size);

/**
 * Sets an option of a connection.
 *
 * @param option  One of enum qnet_option.
 * @param value   The new value.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (no such option, or the value is out of
 *         range), QNET_ERR_UNSUPPORTED (not an option of this connection), QNET_ERR_BUSY
 *         (QNET_OPT_RECONNECT_MS was to be set above 0 after qnet_fd() had returned the socket
 *         itself), QNET_ERR_OS, QNET_ERR_INTERNAL. On failure nothing has changed.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_set(qnet_conn *conn, int option, int64_t value);

/**
 * Gets the value of an option of a connection.
 *
 * @param option  One of the options that qnet_set() takes for this connection.
 * @param value   Receives the value.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (no such option, or value is NULL),
 *         QNET_ERR_UNSUPPORTED (not an option of this connection), QNET_ERR_OS, QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_get(qnet_conn *conn, int option, int64_t *value);

/**
 * Gets the version of the library, such as "0.1.0". QNET_VERSION is the version of the header with
 * which the program was compiled.
 *
 * @return A static string, never NULL.
 *
 * Blocks: no.
 * Calls back: no.
 */
const char *qnet_version(void);

/**
 * Gets the ABI version, which is the number in the shared library's name (libqnet.so.0). Programs
 * have to be compiled again when it changes.
 *
 * @return The ABI version.
 *
 * Blocks: no.
 * Calls back: no.
 */
uint32_t qnet_abi_version(void);

/**
 * Describes a code in English.
 *
 * @param code  One of enum qnet_error, or any other integer.
 * @return A static string, never NULL.
 *
 * Blocks: no.
 * Calls back: no.
 */
const char *qnet_strerror(int code);

/**
 * Describes the last failure of the calling thread in full: what was attempted, on what, and why
 * it failed. QNET_ERR_AGAIN, QNET_ERR_TIMEOUT and QNET_ERR_INTERRUPTED are not recorded.
 *
 * @return A string, never NULL; it is empty before the first failure. It is valid until this
 *         thread's next call that fails.
 *
 * Blocks: no.
 * Calls back: no.
 */
const char *qnet_last_error(void);

/**
 * Gets the errno value of the calling thread's last failure.
 *
 * @return The errno value, or 0 if the failure had none.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_last_errno(void);

/* ---- Forwarding: links (link) ----------------------------------------------------- */

/**
 * Connects two connections like a cable: every frame that one receives is sent on the other, until
 * one of them ends or qnet_unlink() is called. At most 4 library threads do the forwarding for all
 * links and hubs.
 *
 * A link drops no frame for lack of room: while one side does not read, the other side is not read
 * either. When one side ends, the other is ended once everything that the first sent has been
 * written, however long that takes, unless it is to outlive that (QNET_OPT_OUTLIVE). While a side is a reconnecting connection that is down, frames
 * for it are dropped (its tx_dropped). Frames shorter than 14 bytes are skipped (rx_runts). Frames
 * longer than the sending side's QNET_OPT_MAX_FRAME, or for a peer that has shut down reading but
 * not writing, are dropped (the sending side's tx_dropped). While linked, a connection cannot be
 * received from in another way (QNET_ERR_BUSY). A send on it goes to its peer, between the frames
 * of the link.
 *
 * A link that would make frames circulate inside the process is refused. This concerns the two
 * ends of one qnet_socketpair(), even if they are connected to each other by further links and
 * pairs; and two connections that both lead to the same hub, such as two of its qnet_hub_port().
 * Two hubs may be joined twice, though. Where a socket leads that the library did not pair itself,
 * such as an adopted one or one dialled to this program's own listener, the library does not know.
 *
 * A connection that has outlived the other side of its link can be linked anew without
 * qnet_unlink(), as either argument. What the side that has ended had sent still arrives.
 *
 * @param a  One connection. It stays the caller's, to be closed with qnet_close(), which ends the
 *           link.
 * @param b  The other connection, likewise.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (a equals b, or frames would circulate),
 *         QNET_ERR_BUSY (one has a handler, or is attached or linked), QNET_ERR_CLOSED,
 *         QNET_ERR_PROTOCOL or QNET_ERR_OS (one has ended; QNET_ERR_OS also if no thread can be
 *         started or no descriptor is left for it, EMFILE), QNET_ERR_INTERNAL. On failure neither
 *         is linked.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_link(qnet_conn *a,
              qnet_conn *b);

/**
 * Removes a link at once, on both sides. Both connections are as they were before qnet_link().
 * Frames that were received from one side and not yet written to the other are still written, but
 * for those in flight (see qnet_impair()), which are discarded and counted.
 *
 * @param conn  Either of the two connections.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (the connection is not linked),
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_unlink(qnet_conn *conn);

/* ---- Forwarding: hubs (hub) ------------------------------------------------------- */

/**
 * Creates a hub, a learning switch that forwards frames between the connections attached to it.
 *
 * The hub learns which source addresses are behind which connection (see QNET_OPT_MAC_AGE_S and
 * QNET_OPT_MAC_MAX). It sends a frame for a known address to that connection only and all other
 * frames to every connection, and never sends a frame back to where it came from. It never waits
 * for a connection: if more than QNET_OPT_QUEUE_BYTES are queued for one, further frames for it
 * are dropped and counted in its tx_dropped. At most 4 library threads do the forwarding for all
 * links and hubs; a hub without connections needs none.
 *
 * @param out  Receives the hub, to be closed with qnet_hub_close(); NULL on failure.
 * @return QNET_OK; QNET_ERR_INVALID (out is NULL), QNET_ERR_OS (too many hubs), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_new(qnet_hub **out);

/**
 * Attaches a connection to a hub: the hub receives its frames, and sends it those of the other
 * connections. While attached, the connection cannot be received from in another way
 * (QNET_ERR_BUSY). A send on it goes to its peer, past the hub.
 *
 * @param conn  The connection. It stays the caller's, to be closed with qnet_close() whether it is
 *              still attached or not. When it ends it is detached, and its close handler is called
 *              on a library thread.
 * @return QNET_OK; QNET_ERR_HANDLE (either handle), QNET_ERR_INVALID (frames would circulate,
 *         because the connection already leads to this hub: it is one of its qnet_hub_port(), or
 *         its qnet_socketpair() peer is attached to the hub or linked to something that leads
 *         there; see qnet_link()), QNET_ERR_BUSY (the connection has a handler, or is attached or
 *         linked), QNET_ERR_CLOSED, QNET_ERR_PROTOCOL or QNET_ERR_OS (the connection has ended;
 *         QNET_ERR_OS also if no thread can be started or no descriptor is left for it, EMFILE),
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_attach(qnet_hub *hub, qnet_conn *conn);

/**
 * Detaches a connection from a hub. The connection is as it was before qnet_hub_attach(): the hub
 * forwards nothing from or to it any more and forgets the addresses behind it, and frames that
 * were not received yet wait in it. Frames already queued for it are still written, and those in
 * flight (see qnet_impair()) are discarded. If the connection was accepted by qnet_hub_serve(), or is the hub's own end of a qnet_hub_port(), the
 * caller has to close it from now on.
 *
 * @return QNET_OK; QNET_ERR_HANDLE (either handle), QNET_ERR_INVALID (the connection is not
 *         attached to this hub), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_detach(qnet_hub *hub,
                    qnet_conn *conn);

/**
 * Creates a connection whose other end is attached to the hub. With it the program has a device of
 * its own on the hub, and uses it like any other connection.
 *
 * @param out  Receives the connection, to be closed with qnet_close(); NULL on failure. It ends
 *             when the hub is closed, unless the hub's own end was detached before.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (out is NULL), QNET_ERR_OS,
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_port(qnet_hub *hub, qnet_conn **out);

/**
 * Accepts the peers of a listener in the background and attaches them to the hub. When such a peer
 * leaves, the library detaches and closes its connection, so that its handle, if the program got
 * it from qnet_hub_ports(), becomes stale. If no descriptor is left for a peer, accepting pauses
 * and is tried again later; if none is left for the thread that accepts, this function fails.
 *
 * @param listener  The listener. It stays the caller's until qnet_hub_close(), which closes it.
 *                  Closing it earlier stops the accepting; the peers stay attached. The peers
 *                  start with the options of the listener, and their number is limited by its
 *                  QNET_OPT_MAX_CONNS.
 * @return QNET_OK; QNET_ERR_HANDLE (either handle), QNET_ERR_BUSY (a hub already serves the
 *         listener), QNET_ERR_OS (no thread can be started, or no descriptor is left for it,
 *         EMFILE), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_serve(qnet_hub *hub, qnet_listener *listener);

/**
 * Sets the handler that is told of the peers of the listeners that the hub serves
 * (qnet_hub_serve()).
 *
 * It is called with 1 for each peer that has been accepted, before anything is read from it. In
 * this call the program can look at the peer (qnet_peer_cred(), qnet_peer_addr()), set options,
 * impairments and a close handler, or refuse it with qnet_close(). When the call has returned, the
 * connection is attached; until then nothing is sent to it, qnet_hub_ports() leaves it out, and it
 * counts for QNET_OPT_MAX_CONNS. It is not attached if the call has ended it; nor if the call has
 * given it a handler, linked it or attached it elsewhere: then it is the program's to close.
 *
 * For each of these calls there is one with 0 when the connection has left the hub, for whatever
 * reason; unless the handler has closed it in the first call. If the peer has left, the handle stays
 * valid during the call. If the program has closed or detached it, or has closed the hub, the
 * handle may be stale. This call and the connection's close handler are in no particular order.
 *
 * A handler is told nothing of peers that were attached before it was set. Peers that wait for
 * their call when there is no handler any more are attached without one.
 *
 * There is one call at a time for a hub, in order, on a library thread of the hub's own, so that a
 * slow handler delays neither frames nor other hubs; peers wait for it. On a clock of the program's
 * (qnet_hub_set_clock()) the calls are made in qnet_clock_advance(), and those for peers that
 * qnet_hub_close() ends in that. The handler may call any function of the library.
 *
 * Outside a handler of any kind, this function returns only when the handler that it replaces is
 * not running and never will again, so that its `user` can be freed, as does qnet_hub_close(). Hold
 * no lock that the old handler takes. Inside a handler neither waits.
 *
 * @param handler  The handler, or NULL for none.
 * @param user     A pointer that is passed to the handler.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
 *
 * Blocks: yes, until the previous handler has returned; not inside a handler of any kind.
 * Calls back: no.
 */
int qnet_hub_set_port_handler(qnet_hub *hub,
                              qnet_port_handler handler,
                              void *user);

/**
 * Lists the connections that are attached to a hub, in no particular order. Those accepted by
 * qnet_hub_serve() and the hub's own ends of qnet_hub_port() are included.
 *
 * @param conns  Receives as many handles as there is room for. May be NULL if cap is 0.
 * @param cap    How many handles the array has room for.
 * @return How many connections are attached, even if there was room for fewer; QNET_ERR_HANDLE,
 *         QNET_ERR_INVALID (conns is NULL), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_ports(qnet_hub *hub, qnet_conn **conns, size_t cap);

/**
 * Sets an option of a hub.
 *
 * @param option  QNET_OPT_MAC_AGE_S, QNET_OPT_MAC_MAX, QNET_OPT_QUEUE_BYTES, QNET_OPT_GROUP_FWD_MASK or
 *                QNET_OPT_MOVE_MS.
 * @param value   The new value.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (no such option, or the value is out of
 *         range), QNET_ERR_UNSUPPORTED (not an option of hubs), QNET_ERR_INTERNAL. On failure
 *         nothing has changed.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_set(qnet_hub *hub,
                 int option,
                 int64_t value);

/**
 * Gets the value of an option of a hub.
 *
 * @param option  One of the options that qnet_hub_set() takes.
 * @param value   Receives the value.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (no such option, or value is NULL),
 *         QNET_ERR_UNSUPPORTED (not an option of hubs), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_get(qnet_hub *hub, int option, int64_t *value);

/**
 * Gets the counters of a hub.
 *
 * @param out   Receives the counters. Members that this release of the library does not know are
 *              set to zero.
 * @param size  The size of the struct in bytes: sizeof(qnet_hub_stats) as the caller was compiled.
 * @return The size in bytes of the struct that the library knows; QNET_ERR_HANDLE,
 *         QNET_ERR_INVALID (out is NULL), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_get_stats(qnet_hub *hub, qnet_hub_stats *out, size_t size);

/**
 * Closes a hub and invalidates its handle. All connections are detached. The listeners that the
 * hub served and the connections accepted from them are closed, and connections of qnet_hub_port()
 * end. Connections that the caller attached, and those that qnet_hub_port() returned, still have
 * to be closed by the caller.
 *
 * The connections accepted from listeners are closed as by qnet_close(), all at the same time.
 * Inside a handler of any kind, or for connections with QNET_OPT_WAIT 0, the call does not wait
 * for their close handlers, in which their handles are then stale. When the call returns, the
 * descriptors of everything that it closed are closed.
 *
 * Frames that the hub has not read yet are lost, both those of peers and those that the program
 * sent on a qnet_hub_port(). A program that needs to be certain first waits until they have
 * arrived or been answered.
 *
 * @return QNET_OK; QNET_ERR_HANDLE (if two threads close a hub at the same time, the second gets
 *         this immediately), QNET_ERR_INTERNAL.
 *
 * Blocks: yes, as qnet_close() does, for the connections that it closes; and until the port handler
 * has been told of all that left.
 * Calls back: yes, on a clock of the program's (qnet_hub_set_clock()): the port handler, and the
 * close handlers of the connections that it closes. Otherwise no.
 */
int qnet_hub_close(qnet_hub *hub);

/* ---- A switch's ports (ports) ----------------------------------------------------- */

/**
 * Sets the VLANs of a connection, which are in force while it is attached to a hub:
 *
 *   access VID                        untagged frames, of VLAN VID; tagged ones are refused
 *   trunk [LIST] [native VID]         tagged frames of the VLANs in LIST, such as 10,20-29; `all` by
 *                                     default. Untagged ones are of the native VLAN, or refused
 *   tunnel VID                        whatever comes is of VLAN VID, its tags left in place (QinQ)
 *
 * each optionally with `tpid 88a8` behind it: the port's tags are of that kind, and others are payload.
 * The default is `tpid 8100`. VIDs are 1 to 4094. A tag of VLAN 0 only says a priority, and the frame
 * counts as untagged. A connection for which nothing was set is transparent: it takes and gets the
 * tagged frames of all VLANs, and those without a tag are of a VLAN 0 of their own.
 *
 * Frames go out untagged at access ports, in a trunk's native VLAN, and at a tunnel, where only the
 * outer tag is taken off; tagged at other trunks. Priorities are kept. A frame that would leave
 * untagged and still begins with a tag of the port's kind is not sent there, but at a tunnel. Tags
 * that are cut short, and VID 4095, are refused.
 *
 * A hub looks at tags once one of its ports has VLANs. From then on it learns addresses a VLAN apart,
 * and floods within one. Setting VLANs forgets what is known behind the port, static entries
 * included; the first port of a hub that has VLANs, and the last one that has them no more, have it
 * forget all that it has learned. On a connection of qnet_hub_port() they belong to the hub's end,
 * whichever of the two handles is given.
 *
 * @param spec  The text, for example "trunk 10,20-29 native 1". NULL or "": the connection is
 *              transparent.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (a text that cannot be understood, in which case
 *         qnet_last_error() says where and what was expected), QNET_ERR_CLOSED, QNET_ERR_PROTOCOL or
 *         QNET_ERR_OS (the connection has ended), QNET_ERR_INTERNAL. On failure nothing has changed.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_set_vlan(qnet_conn *conn,
                  const char *spec);

/**
 * Gets the VLANs of a connection, as a text that qnet_set_vlan() takes: in lower case, the VLANs of a
 * list in order, and without what is so by default.
 *
 * @param buf  Receives the text as snprintf(3) would write it: truncated if necessary, always
 *             NUL-terminated; empty for none. May be NULL if cap is 0.
 * @param cap  The size of buf in bytes.
 * @return The length of the whole text in bytes, without the NUL, even if buf is too small for it;
 *         QNET_ERR_HANDLE, QNET_ERR_INVALID (buf is NULL), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_vlan(qnet_conn *conn,
              char *buf,
              size_t cap);

/**
 * Sets the VLANs with which the connections start that the listener accepts from now on; see
 * qnet_set_vlan(). They are in force before the first frame.
 *
 * @param spec  The text. NULL or "": none.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (a text that cannot be understood),
 *         QNET_ERR_INTERNAL. On failure nothing has changed.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_listener_set_vlan(qnet_listener *listener, const char *spec);

/**
 * Gets the VLANs with which the listener's connections start, as qnet_vlan() does.
 *
 * @param buf  Receives the text as snprintf(3) would write it: truncated if necessary, always
 *             NUL-terminated; empty for none. May be NULL if cap is 0.
 * @param cap  The size of buf in bytes.
 * @return The length of the whole text in bytes, without the NUL, even if buf is too small for it;
 *         QNET_ERR_HANDLE, QNET_ERR_INVALID (buf is NULL), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_listener_vlan(qnet_listener *listener, char *buf, size_t cap);

/**
 * Lists the addresses that a hub knows, in no particular order: those that it has learned, and those
 * that were added.
 *
 * @param entries  Receives as many entries as there is room for, `size` bytes apart. May be NULL if cap
 *                 is 0.
 * @param size     The size of an entry in bytes: sizeof(qnet_fdb_entry) as the caller was compiled.
 *                 Members that this release of the library does not know are set to zero.
 * @param cap      How many entries the array has room for.
 * @return How many addresses are known, even if there was room for fewer; QNET_ERR_HANDLE,
 *         QNET_ERR_INVALID (entries is NULL, or size is below 32), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_fdb(qnet_hub *hub,
                 struct qnet_fdb_entry *entries,
                 size_t size,
                 size_t cap);

/**
 * Adds a static address to a hub's table: frames for it go to that connection from now on, and it
 * neither ages nor moves. It replaces what was learned, or added before. It goes with its port: when
 * that is detached, mirrors (QNET_OPT_MIRROR), has its cable pulled (QNET_OPT_LINK) or gets other
 * VLANs. Frames that come from the address at another port pass, unless its own port is secure
 * (QNET_OPT_SECURE).
 *
 * @param mac   The 6 bytes of the address.
 * @param vlan  The VLAN, 1 to 4094; 0 for frames without a tag at transparent ports, and in a hub
 *              without VLANs (see qnet_set_vlan()).
 * @param conn  The connection, which has to be attached to the hub. Of a qnet_hub_port() either end
 *              is taken.
 * @return QNET_OK; QNET_ERR_HANDLE (either handle), QNET_ERR_INVALID (mac is NULL or a group's, not
 *         a VLAN, or the connection is not attached to this hub), QNET_ERR_CLOSED, QNET_ERR_PROTOCOL
 *         or QNET_ERR_OS (the connection has ended), QNET_ERR_OS (ENOSPC: QNET_OPT_MAC_MAX addresses
 *         are static), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_fdb_add(qnet_hub *hub,
                     const uint8_t *mac,
                     int vlan,
                     qnet_conn *conn);

/**
 * Removes addresses from a hub's table.
 *
 * @param mac   The 6 bytes of an address, static or not. NULL: all that were learned.
 * @param vlan  The VLAN, 0 to 4094. -1: every one.
 * @return How many entries were removed; QNET_ERR_HANDLE, QNET_ERR_INVALID (mac is a group's, or not
 *         a VLAN), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_fdb_remove(qnet_hub *hub,
                        const uint8_t *mac,
                        int vlan);

/* ---- Impairing (impair) ----------------------------------------------------------- */

/**
 * Impairs the frames of a connection: loses, delays, paces, doubles, corrupts and reorders them, as
 * a text asks. It replaces the impairment before, and is in force while the connection is linked or
 * attached to a hub; what is set stays set when it is unlinked or detached. What qnet_send() sends is
 * not impaired. On a connection of qnet_hub_port() it belongs to the hub's end, whichever of the two
 * handles is given: QNET_IN is from the program into the hub.
 *
 * The language is that of `tc netem`. Its words stand in any order, each once:
 *
 *   delay TIME [JITTER [CORRELATION]]
 *   distribution uniform|normal|pareto|paretonormal     how the JITTER is spread
 *   loss [random] PERCENT [CORRELATION]
 *   loss gemodel P [R [1-H [1-K]]]                      Gilbert-Elliott
 *   loss state P13 [P31 [P32 [P23 [P14]]]]              four states
 *   loss every N, loss frames LIST                      LIST as in 3,7-9
 *   ecn                                                 mark instead of lose, where the frame allows
 *   duplicate PERCENT [CORRELATION]
 *   corrupt PERCENT [CORRELATION]                       one bit, behind the addresses
 *   rate RATE [OVERHEAD [CELL [CELLOVERHEAD]]]
 *   limit N|BYTES|TIME                                  how much may wait for the rate; 1000 frames
 *   mark TIME                                           mark what waited longer for the rate
 *   reorder [PERCENT [CORRELATION]] [gap N]             frames may overtake each other
 *   trace PATH [BYTES]                                  a Mahimahi trace, in place of rate
 *   seed N                                              of all that is random; chosen by default
 *   match PROGRAM                                       for what a classic BPF program matches
 *
 * TIME ends in ns, us, ms or s; RATE in bit, kbit, mbit, gbit or tbit; PERCENT and CORRELATION in %;
 * BYTES of limit in b, kb or mb. PROGRAM is what `tcpdump -y EN10MB -ddd` prints, its lines joined
 * by commas or blanks.
 *
 * A new text is in force for the next frame. What is in flight keeps its time, and what waits for the
 * rate gets the new one. Nothing is lost by a change, and frames stay in order but for `reorder`. No
 * frame leaves before its time. Without `seed` a direction goes on with the one that it has.
 *
 * @param direction  One of enum qnet_direction. QNET_BOTH sets both, with one seed, or neither.
 * @param spec       The text, for example "delay 40ms 5ms loss 1% rate 20mbit". NULL or "" removes
 *                   the impairment: what waits is sent at once, behind what is in flight.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (not a direction, or a text that cannot be
 *         understood, in which case qnet_last_error() says where and what was expected),
 *         QNET_ERR_OS (a trace that cannot be read), QNET_ERR_CLOSED, QNET_ERR_PROTOCOL or QNET_ERR_OS
 *         (the connection has ended), QNET_ERR_INTERNAL. On failure nothing has changed.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_impair(qnet_conn *conn,
                int direction,
                const char *spec);

/**
 * Gets the impairment of one direction of a connection, as a text that qnet_impair() takes: its words
 * in lower case and in the order of its table, paths from the root on, and the seed.
 *
 * @param direction  QNET_IN or QNET_OUT.
 * @param buf        Receives the text as snprintf(3) would write it: truncated if necessary, always
 *                   NUL-terminated; empty where there is no impairment. May be NULL if cap is 0.
 * @param cap        The size of buf in bytes.
 * @return The length of the whole text in bytes, without the NUL, even if buf is too small for it;
 *         QNET_ERR_HANDLE, QNET_ERR_INVALID (not one direction, or buf is NULL), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_impairment(qnet_conn *conn,
                    int direction,
                    char *buf,
                    size_t cap);

/**
 * Sets the impairment with which the connections start that the listener accepts from now on; see
 * qnet_impair(). With `seed` all of them have that seed, without one each has its own.
 *
 * @param direction  One of enum qnet_direction. QNET_BOTH sets both or neither.
 * @param spec       The text. NULL or "": none.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (not a direction, or a text that cannot be
 *         understood), QNET_ERR_OS (a trace that cannot be read), QNET_ERR_INTERNAL. On failure
 *         nothing has changed.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_listener_impair(qnet_listener *listener, int direction, const char *spec);

/**
 * Gets the impairment with which one direction of the listener's connections starts, as a text. It
 * has a seed only if one was given.
 *
 * @param direction  QNET_IN or QNET_OUT.
 * @param buf        Receives the text as snprintf(3) would write it: truncated if necessary, always
 *                   NUL-terminated; empty for none. May be NULL if cap is 0.
 * @param cap        The size of buf in bytes.
 * @return The length of the whole text in bytes, without the NUL, even if buf is too small for it;
 *         QNET_ERR_HANDLE, QNET_ERR_INVALID (not one direction, or buf is NULL), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_listener_impairment(qnet_listener *listener, int direction, char *buf, size_t cap);

/**
 * Gets the counters of one direction of a connection.
 *
 * @param direction  QNET_IN or QNET_OUT.
 * @param out        Receives the counters. Members that this release of the library does not know
 *                   are set to zero.
 * @param size       The size of the struct in bytes: sizeof(qnet_impair_stats) as the caller was
 *                   compiled.
 * @return The size in bytes of the struct that the library knows; QNET_ERR_HANDLE,
 *         QNET_ERR_INVALID (not one direction, or out is NULL), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_get_impair_stats(qnet_conn *conn, int direction, qnet_impair_stats *out, size_t size);

/* ---- Clocks (clock) --------------------------------------------------------------- */

/**
 * Creates a clock that the program moves, for simulations, replays and tests. It begins at 0 ns and
 * stands still until qnet_clock_advance() is called.
 *
 * On such a clock nothing is forwarded by itself: no library thread serves the links
 * (qnet_link_on()) and hubs (qnet_hub_set_clock()) on it. qnet_clock_advance() does all of their
 * work on the thread that calls it. Impairments (qnet_impair()) go by this clock there, to the
 * nanosecond, so that with given seeds and inputs each run has the same results.
 *
 * Reconnecting, lingering and every timeout_ms stay on the system's clock. The child of a fork has
 * no clocks.
 *
 * @param out  Receives the clock, to be closed with qnet_clock_close(); NULL on failure.
 * @return QNET_OK; QNET_ERR_INVALID (out is NULL), QNET_ERR_OS (too many clocks),
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_clock_new(qnet_clock **out);

/**
 * Advances a clock, and does what its links and hubs have to do until then:
 *
 * 1. It takes in what the sockets of all their connections hold, at the present time, in the order
 *    in which these were plugged in, each until it is empty. (Of a peer that keeps writing it takes
 *    in QNET_OPT_FLIGHT_BYTES.) It also accepts from the listeners that such hubs serve.
 * 2. It goes through everything that is due until to_ns in the order of time. Frames that are due
 *    at the same time leave in the order in which they began to wait. What is written to a
 *    connection whose other end is on the same clock too (qnet_socketpair(), qnet_hub_port()) is
 *    taken in there at that very time, so that the results do not depend on the steps. Of what
 *    comes to such a connection at one instant, frames beyond QNET_OPT_FLIGHT_BYTES are dropped
 *    and counted (rx_refused): a loop of hubs does not hold up the clock for ever.
 * 3. The clock shows to_ns.
 *
 * If the socket is full to which a link has to write, the call waits for room, as long as the
 * QNET_OPT_SEND_TIMEOUT_MS of that connection says, and then fails with QNET_ERR_AGAIN or
 * QNET_ERR_TIMEOUT. The clock then shows when that was, nothing is lost, and the next advance goes
 * on from there. A simulation sets the option to 0; -1, the default, waits for ever for a peer
 * that does not read. For a hub, frames are queued (QNET_OPT_QUEUE_BYTES), and it is tried again in
 * the next advance at the latest.
 *
 * Connections whose peers have left end in this call, and their close handlers run in it, on its
 * thread, while the clock shows the time at which the last of their frames has arrived. (When the
 * program itself ends a connection, qnet_close(), qnet_shutdown() or qnet_hub_close() runs it.) If
 * two threads advance a clock, one waits until the other is done or runs a handler. Port handlers
 * (qnet_hub_set_port_handler()) are called in the same way.
 *
 * @param to_ns  The time to advance to, in nanoseconds. If that is the present, the call only takes
 *               in what there is, and forwards what is due now.
 * @return How many frames were forwarded since the last call that did not fail, up to INT_MAX: a
 *         frame counts once for each connection that it was sent to. QNET_ERR_HANDLE;
 *         QNET_ERR_INVALID (to_ns is before the present), QNET_ERR_BUSY (inside a handler of any
 *         kind), QNET_ERR_AGAIN or QNET_ERR_TIMEOUT (a socket is full), QNET_ERR_INTERRUPTED (a
 *         signal handler ran while the call waited; the next call goes on), QNET_ERR_INTERNAL.
 *
 * Blocks: yes, while a link's socket is full or another thread advances the clock.
 * Calls back: yes, close handlers and port handlers.
 */
int qnet_clock_advance(qnet_clock *clock, int64_t to_ns);

/**
 * Tells what time it is by a clock, and when something is due next. Frames that wait in sockets
 * count from when an advance has taken them in.
 *
 * @param now_ns   Receives the present time, in nanoseconds. May be NULL.
 * @param next_ns  Receives when something is due, in nanoseconds: INT64_MAX if nothing is, and the
 *                 present time if the last advance stopped before all was done. May be NULL.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_clock_next(qnet_clock *clock, int64_t *now_ns, int64_t *next_ns);

/**
 * Closes a clock and invalidates its handle.
 *
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_BUSY (a hub or a link is on it, or it is being
 *         advanced), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_clock_close(qnet_clock *clock);

/**
 * Puts a hub on a clock of the program's: what is attached to it or served by it from then on is
 * forwarded by qnet_clock_advance() alone, and the ages of addresses (QNET_OPT_MAC_AGE_S) go by
 * that clock. The hub keeps its options and counts.
 *
 * @param clock  The clock, which cannot be closed while the hub is on it; NULL for the system's.
 * @return QNET_OK; QNET_ERR_HANDLE (either handle), QNET_ERR_BUSY (something is attached to the
 *         hub, or it serves a listener, or its port handler is running or about to),
 *         QNET_ERR_INTERNAL. On failure nothing has changed.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_set_clock(qnet_hub *hub, qnet_clock *clock);

/**
 * Connects two connections as qnet_link() does, on a clock of the program's: their frames are
 * forwarded by qnet_clock_advance() alone. qnet_unlink() removes the link.
 *
 * @param clock  The clock, which cannot be closed while the link is on it.
 * @param a      One connection, as for qnet_link().
 * @param b      The other connection, likewise.
 * @return As qnet_link(); QNET_ERR_HANDLE also if the clock is not a live one.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_link_on(qnet_clock *clock, qnet_conn *a, qnet_conn *b);

/* ---- Capturing (capture) ---------------------------------------------------------- */

/**
 * Opens a capture, which records the frames of connections and hubs (qnet_capture_add(),
 * qnet_capture_add_hub()) in a file that Wireshark, tshark and tcpdump read (pcapng).
 *
 * Each connection or hub in it is an interface with a name. Each frame has its time, to the
 * nanosecond, its direction as seen from this side, and the number of frames before it on that
 * interface that could not be recorded. Every connection can be captured, whatever receives its
 * frames. Frames are recorded as they are at the socket: before the impairment QNET_IN, and behind
 * QNET_OUT (see qnet_impair()). Where the program receives or sends, they are recorded when they are
 * handed over or taken.
 *
 * A capture never holds up frames. They are copied into its buffer (QNET_OPT_CAPTURE_BYTES), and a
 * thread of the library's writes them within 50 ms. Frames that find the buffer full are not
 * recorded, and counted (qnet_capture_stats.dropped). But qnet_clock_advance() waits for room if the
 * capture goes to a file. Times are those of the system's clock, or of the clock that a link or hub
 * is on (qnet_clock_new()), as time since 1970.
 *
 * If the path is that of a FIFO, readers may come and go, one at a time: `mkfifo /tmp/f`, then
 * `wireshark -k -i /tmp/f`. Each gets a whole file that begins with the first frame after it came.
 * While there is none, nothing is recorded, and nothing counts as dropped. (A reader that comes
 * before the library has noticed that the last one left may get the rest of that one's file.)
 *
 * If writing fails, because the disk is full for example, frames pass all the same. They then count
 * as dropped, and qnet_capture_stats.error tells why. Of a block that was cut, nothing stays in a
 * file. A forked child has no captures.
 *
 * @param path     A file, which is made with the mode 0600, or emptied if it is there; or a FIFO
 *                 that is there. With QNET_OPT_FILE_BYTES, files are made one after another:
 *                 `lab_00001.pcapng`, `lab_00002.pcapng` and so on for `lab.pcapng`. Each of them
 *                 stands alone.
 * @param options  An array of pairs, each an option (QNET_OPT_SNAPLEN, QNET_OPT_CAPTURE_BYTES,
 *                 QNET_OPT_FILE_BYTES or QNET_OPT_FILES) followed by its value. May be NULL if
 *                 pairs is 0.
 * @param pairs    The number of pairs.
 * @param out      Receives the capture, to be closed with qnet_capture_close(); NULL on failure.
 * @return QNET_OK; QNET_ERR_INVALID (a NULL, an option of other objects, or a value out of range),
 *         QNET_ERR_UNSUPPORTED (QNET_OPT_FILE_BYTES with a FIFO), QNET_ERR_OS (the path, memory, a
 *         thread, or too many captures), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_capture_open(const char *path,
                      const int64_t *options,
                      size_t pairs,
                      qnet_capture **out);

/**
 * Opens a capture that goes to a descriptor: a pipe, a socket or a file. When the reader of a pipe or
 * a socket has left, recording has failed, and qnet_capture_stats.error is EPIPE.
 *
 * @param fd       The descriptor. On success it is the library's. Should a pipe or a terminal not be
 *                 opened again by way of /proc, it is set to O_NONBLOCK.
 * @param options  As for qnet_capture_open().
 * @param pairs    The number of pairs.
 * @param out      Receives the capture, to be closed with qnet_capture_close(); NULL on failure.
 * @return QNET_OK; QNET_ERR_INVALID (also if fd is negative), QNET_ERR_UNSUPPORTED
 *         (QNET_OPT_FILE_BYTES), QNET_ERR_OS (also if fd is not open, or not for writing),
 *         QNET_ERR_INTERNAL. On failure the descriptor is still the caller's.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_capture_open_fd(int fd,
                         const int64_t *options,
                         size_t pairs,
                         qnet_capture **out);

/**
 * Records the frames of a connection from now on, in both directions. A connection may be in many
 * captures.
 *
 * The connection's interface stays in the file when the connection ends. Of a connection of
 * qnet_hub_port() it is the program's own end that is captured.
 *
 * @param name  The name of the interface, in UTF-8, of at most 255 bytes. NULL for the address of
 *              the peer or, if that has none, conn1, conn2 and so on.
 * @return QNET_OK; QNET_ERR_HANDLE (either handle), QNET_ERR_BUSY (the connection is in the capture
 *         already), QNET_ERR_INVALID (the name), the reason if the connection has ended,
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_capture_add(qnet_capture *capture, qnet_conn *conn, const char *name);

/**
 * Records every frame that a hub takes in from its ports, once, from now on. A hub may be in many
 * captures.
 *
 * @param name  The name of the interface, as for qnet_capture_add(). NULL for hub1, hub2 and so on.
 * @return QNET_OK; QNET_ERR_HANDLE (either handle), QNET_ERR_BUSY (the hub is in the capture
 *         already), QNET_ERR_INVALID (the name), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_capture_add_hub(qnet_capture *capture, qnet_hub *hub, const char *name);

/**
 * Records the frames of a connection no more.
 *
 * @return QNET_OK; QNET_ERR_HANDLE (either handle), QNET_ERR_INVALID (the connection is not in the
 *         capture), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_capture_remove(qnet_capture *capture, qnet_conn *conn);

/**
 * Adds a comment to the next frame that is recorded, which Wireshark shows with it. A frame may have
 * many.
 *
 * @param text  The comment, in UTF-8, of at most 65535 bytes.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (text is NULL, too long or not UTF-8),
 *         QNET_ERR_OS (1 MiB of comments wait for a frame, or 65536 of them), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_capture_note(qnet_capture *capture,
                      const char *text);

/**
 * Copies the capture's counters.
 *
 * @param out   Receives the counters. On failure it is left unchanged.
 * @param size  sizeof(qnet_capture_stats). Members that this release does not know are set to zero.
 * @return The size of the library's own struct, in bytes; QNET_ERR_HANDLE, QNET_ERR_INVALID (out is
 *         NULL), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_capture_get_stats(qnet_capture *capture, qnet_capture_stats *out, size_t size);

/**
 * Closes a capture and invalidates its handle. What is in the buffer is written first, which takes
 * at most a second if the reader of a FIFO, a pipe or a socket is slow; and then how many frames
 * each interface has had, and how many of them were not recorded.
 *
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
 *
 * Blocks: yes, until that is written.
 * Calls back: no.
 */
int qnet_capture_close(qnet_capture *capture);

#ifdef __cplusplus
}
#endif

#endif
