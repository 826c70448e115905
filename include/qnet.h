/*
 * qnet.h - libqnet, for programs that plug QEMU virtual machines into their own network.
 *
 * Generated from the library's sources; do not edit.
 *
 * Functions return zero or more for success and one of qnet_error for failure, unless said
 * otherwise. Any of them may be called from any thread at any time, signal handlers excepted, and
 * none raises SIGPIPE. Handles are tokens: a stale one gives QNET_ERR_HANDLE and never a crash.
 *
 * The last lines of each function's comment say, in words to look for, whether it may block
 * ("Blocks: yes" or "Blocks: no": wait for a peer, for a time or for another thread's handler;
 * a lock that is held for a system call is no wait) and whether it may call back ("Calls back:
 * yes" or "Calls back: no": run one of the program's handlers on the calling thread before it
 * returns; it then takes as long as that). A binding lets go of its runtime's lock around what
 * blocks or calls back.
 */

#ifndef QNET_H
#define QNET_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * The version of this header, for #if. QNET_VERSION orders versions: it is 10000 times the major
 * version, 100 times the minor one, and the patch: 10203 is 1.2.3.
 */
#define QNET_VERSION_MAJOR 0
#define QNET_VERSION_MINOR 1
#define QNET_VERSION_PATCH 0
#define QNET_VERSION 100

/**
 * Lengths of frames, in bytes.
 */
typedef enum qnet_limit {
    /**
     * An Ethernet header: the shortest frame that is sent, or delivered.
     */
    QNET_FRAME_MIN = 14,
    /**
     * The longest frame that QEMU can send or take (its NET_BUFSIZE: 4096 + 65536). A buffer of
     * this size always suffices, with 4 more for packed frames.
     */
    QNET_FRAME_MAX = 69632,
} qnet_limit;

/**
 * What qnet_set() and its kin set. The functions take int; the enumerators are its values.
 */
typedef enum qnet_option {
    /**
     * How long a send waits for a peer that does not read, in ms: -1 (default) without an end, 0 not
     * at all.
     */
    QNET_OPT_SEND_TIMEOUT_MS = 1,
    /**
     * How long a send may be held, or 64 KiB, for others to join it, in us: 0 (default, not at all)
     * to 1000000. A send that comes alone goes at once.
     */
    QNET_OPT_TX_USECS = 2,
    /**
     * Whether sends on this connection that are made in handlers, while further frames wait for the
     * handler, are held, for at most 1 ms or 64 KiB, and written together. Default 1.
     */
    QNET_OPT_CORK = 3,
    /**
     * The longest frame to send, in bytes: 14 to QNET_FRAME_MAX, default 65535 (passt, pktkit and
     * others take no longer ones).
     */
    QNET_OPT_MAX_FRAME = 4,
    /**
     * 1: sent frames are padded to 60 bytes with zeroes. Default 0.
     */
    QNET_OPT_PAD = 5,
    /**
     * How long closing may take to write what was taken and drain what a peer is still writing, in
     * ms. Default 1000. When it takes less: see qnet_close().
     */
    QNET_OPT_LINGER_MS = 6,
    /**
     * The socket's send buffer in bytes, as in socket(7). Chosen for speed until set.
     */
    QNET_OPT_SNDBUF = 7,
    /**
     * The socket's receive buffer in bytes, as in socket(7). Chosen for speed until set.
     */
    QNET_OPT_RCVBUF = 8,
    /**
     * Of a dialled connection: how long after its end it dials again, in ms, instead of ending; see
     * qnet_set_state_handler(). Default 0: never.
     */
    QNET_OPT_RECONNECT_MS = 9,
    /**
     * For qnet_dial_with() alone: how long it may take in all, in ms. Default -1: without an end.
     * With QNET_OPT_RECONNECT_MS each later attempt may take as long, or 10000 where it is -1.
     */
    QNET_OPT_DIAL_TIMEOUT_MS = 10,
    /**
     * Of a listener: how many of its connections there may be that are not yet closed with
     * qnet_close(); further peers are hung up on. Default 1024.
     */
    QNET_OPT_MAX_CONNS = 11,
    /**
     * 0: no call waits for this connection's handlers. Default 1.
     */
    QNET_OPT_WAIT = 12,
    /**
     * Of a listener that made a socket file: the file's mode. Default 0600.
     */
    QNET_OPT_UNIX_MODE = 13,
    /**
     * Of a connection of qnet_dgram() without a remote: 1: whoever sends takes the place of the one
     * who did before. Default 0: who sends first is the remote for good.
     */
    QNET_OPT_RELEARN = 17,
    /**
     * Of a hub: how long it knows behind which port a device is, after its last frame, in s: from 1.
     * Default 300.
     */
    QNET_OPT_MAC_AGE_S = 20,
    /**
     * Of a hub: how many devices it knows at most: 1 to 1048576, default 8192.
     */
    QNET_OPT_MAC_MAX = 21,
    /**
     * Of a hub: how many bytes may wait for a port whose peer does not read, for each port. Beyond
     * it frames for the port are dropped. Default 1048576.
     */
    QNET_OPT_QUEUE_BYTES = 22,
} qnet_option;

/**
 * What a function returns that can fail: zero or more is success, one of these is not.
 *
 * Functions return int, not this type; the enumerators are its values.
 */
typedef enum qnet_error {
    /**
     * Success.
     */
    QNET_OK = 0,
    /**
     * An argument cannot be right: a NULL, an unknown network, a malformed address, an option out
     * of range.
     */
    QNET_ERR_INVALID = -1,
    /**
     * Not a live handle of that type: closed, of another type, invented, or of the process before a
     * fork.
     */
    QNET_ERR_HANDLE = -2,
    /**
     * The connection or listener has ended, in order, by either side.
     */
    QNET_ERR_CLOSED = -3,
    /**
     * The time given passed.
     */
    QNET_ERR_TIMEOUT = -4,
    /**
     * The call would have to wait, and was told not to.
     */
    QNET_ERR_AGAIN = -5,
    /**
     * A frame shorter than 14 bytes or longer than the limit; a receive buffer too small.
     */
    QNET_ERR_FRAME_SIZE = -6,
    /**
     * The peer broke the framing: a length above QNET_FRAME_MAX, or an end inside a frame.
     */
    QNET_ERR_PROTOCOL = -7,
    /**
     * The system refused, a reset by the peer included: see qnet_last_errno().
     */
    QNET_ERR_OS = -8,
    /**
     * The connection is received from in another way; the address is in use; a wait for itself.
     */
    QNET_ERR_BUSY = -9,
    /**
     * A signal handler ran.
     */
    QNET_ERR_INTERRUPTED = -10,
    /**
     * Not on this system, not for this kind of object, or not in this release.
     */
    QNET_ERR_UNSUPPORTED = -11,
    /**
     * A bug in the library; the process goes on.
     */
    QNET_ERR_INTERNAL = -12,
    /**
     * Nobody listens at that address (yet).
     */
    QNET_ERR_REFUSED = -13,
    /**
     * The name has no address.
     */
    QNET_ERR_RESOLVE = -14,
} qnet_error;

/**
 * A connection: a layer-2 device, something that frames go into and come out of.
 *
 * A handle, never an address: a stale or invented one gives QNET_ERR_HANDLE.
 */
typedef struct qnet_conn qnet_conn;

/**
 * A hub: a learning switch. A handle, like qnet_conn.
 */
typedef struct qnet_hub qnet_hub;

/**
 * A listener: peers connect to it. A handle, like qnet_conn.
 */
typedef struct qnet_listener qnet_listener;

/**
 * What `qnet_hub_get_stats` tells of a hub since it was made.
 *
 * The struct only grows at its end.
 */
typedef struct qnet_hub_stats {
    /**
     * How many connections are attached now, served ones and those of qnet_hub_port() included.
     */
    uint64_t ports;
    /**
     * How many devices are known now.
     */
    uint64_t macs;
    /**
     * Frames sent to the one port where their destination is.
     */
    uint64_t forwarded;
    /**
     * Frames for all, or for a destination that is not known: sent to every other port. Each counts
     * once.
     */
    uint64_t flooded;
    /**
     * What a port did not take: since its queue was full, the frame longer than its
     * QNET_OPT_MAX_FRAME, or its connection down or about to end, each counted in that connection's
     * tx_dropped as well; and frames for a destination at the port that they came from. Of a flooded
     * frame each port's counts.
     */
    uint64_t dropped;
} qnet_hub_stats;

/**
 * What `qnet_get_stats` tells of a connection since it was made.
 *
 * Bytes are frame bytes, without the prefix; reads and writes are system calls. The struct only
 * grows at its end.
 */
typedef struct qnet_stats {
    /**
     * Frames received: handed over, or lent.
     */
    uint64_t rx_frames;
    /**
     * Their bytes.
     */
    uint64_t rx_bytes;
    /**
     * Frames received that were shorter than 14 bytes, and skipped.
     */
    uint64_t rx_runts;
    /**
     * Reads that gave something.
     */
    uint64_t rx_reads;
    /**
     * Frames sent: wholly in the socket. Every frame taken ends here or in tx_dropped.
     */
    uint64_t tx_frames;
    /**
     * Their bytes, padding included.
     */
    uint64_t tx_bytes;
    /**
     * Frames taken that were lost, since the connection ended or was down.
     */
    uint64_t tx_dropped;
    /**
     * Writes that the socket took something of.
     */
    uint64_t tx_writes;
    /**
     * How often the connection came up by being dialled again.
     */
    uint64_t reconnects;
    /**
     * Messages that came from others than the remote of a qnet_dgram(), and were skipped. (An adopted
     * socket's are kept from it, and not counted.)
     */
    uint64_t rx_foreign;
} qnet_stats;

/**
 * Called with one frame. It may call anything in the library, on its own connection too; it must
 * not throw or longjmp out. It may end its thread (pthread_exit): the connection then has no
 * handler.
 *
 * @param user   What qnet_set_handler() was given.
 * @param frame  The frame, whose bytes live for the call.
 * @param len    Its length in bytes: 14 to QNET_FRAME_MAX.
 */
typedef void (*qnet_handler)(void *user, const uint8_t *frame, size_t len);

/**
 * One Ethernet frame in memory: from its destination address on, without prefix or checksum.
 *
 * Laid out as `struct iovec`.
 */
typedef struct qnet_frame {
    /**
     * The frame's first byte.
     */
    const uint8_t *data;
    /**
     * Its length in bytes.
     */
    size_t len;
} qnet_frame;

/**
 * Called with one frame or more, under the rules of qnet_handler.
 *
 * @param user    What qnet_set_batch_handler() was given.
 * @param frames  The frames, which live for the call.
 * @param count   How many there are, at least 1.
 */
typedef void (*qnet_batch_handler)(void *user, const struct qnet_frame *frames, size_t count);

/**
 * Called when a connection has ended: exactly once, and last. The place to free `user`; it may
 * close the connection.
 *
 * @param user    What qnet_set_close_handler() was given.
 * @param reason  QNET_ERR_CLOSED (in order, by either side), QNET_ERR_PROTOCOL or QNET_ERR_OS.
 */
typedef void (*qnet_close_handler)(void *user, int reason);

/**
 * Called when a connection that is dialled again has gone down, and when it is up again: in order,
 * one call at a time, each on a thread of the library's that is there for it alone. It may take as
 * long as it likes: its connection is dialled when it has returned, and no other waits for it. It may
 * call anything in the library, on its own connection too; it must not throw or longjmp out. It may
 * end its thread (pthread_exit): the connection then has no state handler, and is dialled again all
 * the same.
 *
 * @param user  What qnet_set_state_handler() was given.
 * @param up    1 when it is up again, 0 when it has gone down.
 */
typedef void (*qnet_state_handler)(void *user, int up);

/* ---- Connecting (conn) ------------------------------------------------------------ */

/**
 * Connects to a listening QEMU, or to anything else that speaks its framing; or to a SEQPACKET
 * socket, on which each message is a frame (gvproxy's `-listen-bess`).
 *
 * @param network  "tcp", "tcp4", "tcp6", "unix", or "unixpacket" (SEQPACKET, otherwise as "unix").
 * @param address  For TCP "host:port", "[v6]:port" or ":port" (this host); every address that a
 *                 name has is tried. For Unix sockets a path, or "@name" in the abstract namespace.
 *                 Dialled again, a relative path begins at the working directory of that time.
 * @param out      The connection, to be closed with qnet_close(); NULL on failure.
 * @return QNET_OK; QNET_ERR_INVALID (a NULL, an unknown network, a malformed address),
 *         QNET_ERR_REFUSED (nobody listens there, or no such socket file), QNET_ERR_RESOLVE,
 *         QNET_ERR_INTERRUPTED, QNET_ERR_OS (EPROTOTYPE: a stream listens where SEQPACKET was asked
 *         for, or the reverse), QNET_ERR_INTERNAL.
 *
 * Waits as long as the system does; qnet_dial_with() can bound it. Only a name that is no digits
 * needs a thread, for its look-up. Any thread may call it.
 *
 * Blocks: yes, until somebody has accepted or it has failed.
 * Calls back: no.
 */
int qnet_dial(const char *network, const char *address, qnet_conn **out);

/**
 * The same with options that are set before connecting.
 *
 * @param options  Pairs of an option (enum qnet_option) and its value: {option, value}, ...
 *                 Options of connections, and QNET_OPT_DIAL_TIMEOUT_MS. May be NULL for no pairs.
 * @param pairs    How many pairs there are.
 * @return As qnet_dial(), and QNET_ERR_TIMEOUT (QNET_ERR_AGAIN where the time given was 0);
 *         QNET_ERR_INVALID for an unknown option or a value out of range, and QNET_ERR_UNSUPPORTED
 *         for an option of other objects: nothing has been dialled then.
 *
 * With QNET_OPT_RECONNECT_MS above 0 a peer that is not there yet is no failure: where nobody
 * listens, the name has no address, the network or host cannot be reached or the time passed, the
 * connection begins down, and is dialled again; see qnet_set_state_handler().
 *
 * Blocks: yes, until somebody has accepted or it has failed: at most for QNET_OPT_DIAL_TIMEOUT_MS.
 * Calls back: no.
 */
int qnet_dial_with(const char *network,
                   const char *address,
                   const int64_t *options,
                   size_t pairs,
                   qnet_conn **out);

/**
 * Makes two connections that are each other's peer, over socketpair(2).
 *
 * @param a  One, and
 * @param b  the other; each to be closed with qnet_close(). Both NULL on failure.
 * @return QNET_OK; QNET_ERR_INVALID (a NULL, or the same place twice), QNET_ERR_OS,
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_socketpair(qnet_conn **a, qnet_conn **b);

/**
 * Makes a connection whose other end is a descriptor, for a child QEMU (`-netdev socket,fd=` or
 * `-netdev stream,addr.type=fd,addr.str=`).
 *
 * @param out      The connection; NULL on failure.
 * @param peer_fd  The other end, which is the caller's to pass on and close; -1 on failure. It is
 *                 close-on-exec: clear FD_CLOEXEC in the child.
 * @return QNET_OK; QNET_ERR_INVALID (a NULL), QNET_ERR_OS, QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_socketpair_fd(qnet_conn **out, int *peer_fd);

/**
 * Makes a connection of a connected socket, or of an open TAP. A stream socket carries QEMU's framing;
 * on a datagram or SEQPACKET socket, as on a TAP, each message is a frame. With SEQPACKET nothing is
 * lost: a sender waits for a peer that does not read, as on a stream.
 *
 * @param fd   The descriptor: the library's from success on, still the caller's on failure. Its
 *             O_NONBLOCK is left alone; FD_CLOEXEC is set.
 * @param out  The connection; NULL on failure.
 * @return QNET_OK; QNET_ERR_INVALID (not an open descriptor, neither a socket nor a TAP, one that
 *         listens or has no peer, a NULL), QNET_ERR_UNSUPPORTED (a TUN, a TAP with IFF_VNET_HDR, a
 *         socket of another kind), QNET_ERR_OS, QNET_ERR_INTERNAL.
 *
 * A TAP has to be one with IFF_NO_PI, which the system does not tell.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_from_fd(int fd,
                 qnet_conn **out);

/* ---- Datagrams and TAPs (dgram) --------------------------------------------------- */

/**
 * Makes a connection of datagrams, each of which is a frame: the other end of QEMU's
 * `-netdev dgram`, `socket,udp=` and `socket,mcast=`.
 *
 * It is used like any connection, but that nothing tells of the remote's leaving: while nobody takes
 * frames there they are lost, and counted in tx_dropped, and it works when somebody does. A remote
 * that is there and does not read holds up a sender for 40 ms, then frames are lost until it reads; a
 * sender with QNET_OPT_SEND_TIMEOUT_MS 0 gets QNET_ERR_AGAIN until then, and of a Unix remote's room
 * the descriptor of qnet_fd() tells nothing: it tries again after a while.
 * What does not come from the remote is not delivered, and counted in rx_foreign; nor is a member's own
 * multicast delivered, nor the `VFKT` that vfkit begins with. Datagrams that are shorter or longer
 * than any frame count as rx_runts.
 *
 * Without a remote it is whoever sends first, were it no frame: what is sent before is lost, and
 * counted in tx_dropped; qnet_peer_addr() tells "" until then, and who it is from then on. With
 * QNET_OPT_RELEARN 1 a later sender takes its place. (It is learned when what it has sent is
 * read: by a receive, a handler, a hub or a link.)
 *
 * @param network  "udp", "udp4" or "udp6"; "unixgram"; or "mcast" (IPv4 multicast).
 * @param local    Where to receive. UDP: "host:port", "[v6]:port" or ":port" (every interface); port
 *                 0 lets the system choose. Unix: a path, or "@name" in the abstract namespace; the
 *                 file has mode 0600 and goes with the connection, and a dead one in its way is
 *                 replaced, as by qnet_listen(). Multicast: the address of the interface, or NULL.
 * @param remote   Where to send. UDP: "host:port", "[v6]:port" or ":port" (this host); for "udp" v4
 *                 where there is a choice, for QEMU has no v6. Unix: as above, as the remote gave it
 *                 to the system; a relative path begins at the working directory of each
 *                 send. NULL: whoever sends first. Multicast: the group, "230.0.0.1:1234".
 * @param out      The connection, to be closed with qnet_close(); NULL on failure.
 * @return QNET_OK; QNET_ERR_INVALID (another NULL, an unknown network, a malformed address),
 *         QNET_ERR_BUSY (somebody, or a file that may not be replaced, is at that local address),
 *         QNET_ERR_RESOLVE, QNET_ERR_INTERRUPTED, QNET_ERR_OS, QNET_ERR_INTERNAL.
 *
 * A UDP datagram carries frames of up to 65507 bytes (v6: 65527).
 *
 * Blocks: yes, while a name is looked up; with digits or a path no.
 * Calls back: no.
 */
int qnet_dgram(const char *network,
               const char *local,
               const char *remote,
               qnet_conn **out);

/**
 * Makes a connection of a TAP interface: what it sends the kernel receives there, and the reverse.
 * So a hub reaches bridges, VXLAN, WireGuard, and whatever else the kernel has. The interface has to
 * be up (`ip link set NAME up`); while it is not, frames are lost and counted in tx_dropped.
 *
 * @param name  The interface. One that is there, made for this user (`ip tuntap add`), is opened;
 *              else one is made, which needs CAP_NET_ADMIN and is gone with the connection. NULL or
 *              "": the system names it, or after a pattern, as "vm%d"; qnet_local_addr() tells.
 * @param out   The connection, to be closed with qnet_close(); NULL on failure.
 * @return QNET_OK; QNET_ERR_INVALID (out is NULL, a malformed name, or an interface that is no TAP),
 *         QNET_ERR_OS (no right to, or somebody has it open), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_tap(const char *name,
             qnet_conn **out);

/**
 * Tells the `-netdev` argument with which a QEMU joins a datagram connection. Where the remote is
 * whoever sends, and nobody has sent yet, that QEMU is on this host, with a port that its system chooses;
 * for Unix sockets there is no such argument.
 *
 * @param conn          One of qnet_dgram().
 * @param id            The netdev's id: a letter, then letters, digits, '-', '.' and '_'.
 * @param qemu_version  The QEMU's: 702 is 7.2. From 4.2 on.
 * @param buf           Room for the argument, ended with NUL: NULL if cap is 0.
 * @param cap           How much.
 * @return The argument's length without the NUL, which may be more than there was room for;
 *         QNET_ERR_HANDLE, QNET_ERR_INVALID (a NULL, a malformed id, no such version),
 *         QNET_ERR_UNSUPPORTED (another kind of connection, or not for that QEMU: Unix sockets before
 *         7.2; abstract names, v6, a Unix remote that is not known yet, and paths that are more than
 *         107 bytes from the root on, for any), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_netdev(qnet_conn *conn,
                const char *id,
                int qemu_version,
                char *buf,
                size_t cap);

/* ---- Listening (listener) --------------------------------------------------------- */

/**
 * Listens for peers: a QEMU with `-netdev stream,server=off` or `-netdev socket,connect=`.
 *
 * @param network  "tcp", "tcp4", "tcp6", "unix", or "unixpacket" (SEQPACKET: each message is a frame;
 *                 otherwise as "unix").
 * @param address  For TCP "host:port", "[v6]:port" or ":port" (every interface); port 0 lets the
 *                 system choose, and qnet_listener_addr() tells. For Unix sockets a path, or
 *                 "@name" in the abstract namespace. A path's file gets mode 0600
 *                 (QNET_OPT_UNIX_MODE); a dead socket's file in its way is replaced, but not another
 *                 user's in a directory that others can write to.
 * @param out      The listener, to be closed with qnet_listener_close(); NULL on failure.
 * @return QNET_OK; QNET_ERR_INVALID, QNET_ERR_BUSY (the address is in use, or a file is in the way
 *         that may not be replaced), QNET_ERR_RESOLVE, QNET_ERR_INTERRUPTED (in a name's look-up),
 *         QNET_ERR_OS, QNET_ERR_INTERNAL.
 *
 * Blocks: yes, while a name is looked up; with digits or a path no.
 * Calls back: no.
 */
int qnet_listen(const char *network,
                const char *address,
                qnet_listener **out);

/**
 * Waits for a peer and makes a connection of it.
 *
 * @param listener    The listener. Threads may share it.
 * @param timeout_ms  How long to wait: -1 without an end, 0 not at all.
 * @param out         The connection, which starts with the listener's options; NULL on failure.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (out is NULL, and nothing is accepted; a
 *         timeout below -1), QNET_ERR_AGAIN (0 was given), QNET_ERR_TIMEOUT, QNET_ERR_INTERRUPTED,
 *         QNET_ERR_CLOSED (the listener was closed meanwhile), QNET_ERR_OS (for example EMFILE, at
 *         once; the listener goes on), QNET_ERR_INTERNAL.
 *
 * Blocks: yes, at most for timeout_ms.
 * Calls back: no.
 */
int qnet_accept(qnet_listener *listener, int timeout_ms, qnet_conn **out);

/**
 * Makes a listener of a listening stream or SEQPACKET socket (socket activation).
 *
 * @param fd   The socket: the library's from success on, still the caller's on failure. Its
 *             O_NONBLOCK and its file are left alone; FD_CLOEXEC is set.
 * @param out  The listener; NULL on failure.
 * @return QNET_OK; QNET_ERR_INVALID (not an open descriptor, no socket, one that does not listen,
 *         a NULL), QNET_ERR_UNSUPPORTED (a socket of another kind), QNET_ERR_OS, QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_listener_from_fd(int fd, qnet_listener **out);

/**
 * Tells the listener's address, as qnet_dial() takes it.
 *
 * @param buf  Filled as snprintf(3) does: cut short if need be, and then NUL-terminated all the
 *             same. May be NULL if cap is 0.
 * @param cap  Its size in bytes.
 * @return The length of the whole text in bytes, without the NUL; QNET_ERR_HANDLE,
 *         QNET_ERR_INVALID (buf is NULL), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_listener_addr(qnet_listener *listener, char *buf, size_t cap);

/**
 * Writes the argument of `-netdev` with which a QEMU of some version joins: `socket` before 7.2,
 * `stream` from it on, which from 8.0 on connects again when this program was gone for a while. A
 * listener on every interface is joined through this host's own.
 *
 * @param id            The netdev's: a letter, then letters, digits, '-', '.' and '_'.
 * @param qemu_version  100 times the major version, and the minor one: 702 is 7.2.
 * @param buf           As for qnet_listener_addr().
 * @param cap           As for qnet_listener_addr().
 * @return The length of the whole text in bytes, without the NUL; QNET_ERR_HANDLE,
 *         QNET_ERR_INVALID (buf or id is NULL, no id, no version), QNET_ERR_UNSUPPORTED (what that
 *         version cannot do: before 7.2 a Unix socket or a v6 address; before 4.2 anything; for any
 *         version a SEQPACKET listener, and a path of more than 107 bytes from the root on),
 *         QNET_ERR_INTERNAL.
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
 * The listener's descriptor: readable when a peer waits to be accepted.
 *
 * @return The descriptor, which stays the library's; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_listener_fd(qnet_listener *listener);

/**
 * Ends a listener: wakes every qnet_accept() with QNET_ERR_CLOSED, removes the socket file that it
 * made, and gives the handle back. Its connections live on. When it returns the descriptor is
 * closed, as after qnet_close().
 *
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
 *
 * Blocks: yes, until the calls of other threads that it wakes have let go of the listener, which
 * is at once.
 * Calls back: no.
 */
int qnet_listener_close(qnet_listener *listener);

/**
 * Sets an option of the listener, or one that the connections it accepts from now on start with.
 *
 * @param option  One of enum qnet_option: those of connections, QNET_OPT_MAX_CONNS and
 *                QNET_OPT_UNIX_MODE, which changes the mode of the file at once.
 * @param value   Its value.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (no such option, or a value out of range),
 *         QNET_ERR_UNSUPPORTED (not for this listener), QNET_ERR_OS, QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_listener_set(qnet_listener *listener, int option, int64_t value);

/**
 * Tells an option's value: for QNET_OPT_SNDBUF and QNET_OPT_RCVBUF 0 until set.
 *
 * @param option  One of enum qnet_option.
 * @param value   Where to.
 * @return As qnet_listener_set(); QNET_ERR_INVALID where value is NULL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_listener_get(qnet_listener *listener, int option, int64_t *value);

/* ---- Sending (send) --------------------------------------------------------------- */

/**
 * Sends one frame, whole or not at all.
 *
 * Returns when the frame is in the socket, waiting while the peer does not read; at most
 * QNET_OPT_SEND_TIMEOUT_MS. Or when it is held, for others to join it: see QNET_OPT_CORK and
 * QNET_OPT_TX_USECS. Once the socket has taken a part of the frame, the call succeeds, and
 * the library writes the rest by itself, ahead of everything later (where the system refuses it the
 * thread for that, the next send, flush or close does). Threads may send at once:
 * frames never mix, and those of one thread stay in order. SIGPIPE is never raised.
 *
 * @param frame  From the destination address on, without a checksum. Not kept after the call.
 * @param len    Its length in bytes: 14 to QNET_OPT_MAX_FRAME.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (frame is NULL), QNET_ERR_FRAME_SIZE,
 *         QNET_ERR_AGAIN (the time-out is 0), QNET_ERR_TIMEOUT, QNET_ERR_INTERRUPTED,
 *         QNET_ERR_CLOSED (also where the peer no longer reads; frames that it sent can still be
 *         received), QNET_ERR_PROTOCOL, QNET_ERR_OS, QNET_ERR_INTERNAL.
 *
 * Blocks: yes, while the peer does not read: at most for QNET_OPT_SEND_TIMEOUT_MS.
 * Calls back: no.
 */
int qnet_send(qnet_conn *conn, const void *frame, size_t len);

/**
 * Sends frames in order, many to a system call.
 *
 * @param frames  The frames; none is kept after the call.
 * @param count   How many there are. 0 is nothing to do.
 * @return How many were taken, each waiting as qnet_send() would; the first that cannot be taken
 *         stops them. An error, as of qnet_send(), only if that is the first of all.
 *
 * Blocks: yes, while the peer does not read: at most for QNET_OPT_SEND_TIMEOUT_MS.
 * Calls back: no.
 */
int qnet_send_batch(qnet_conn *conn, const qnet_frame *frames, size_t count);

/**
 * Sends frames that lie in wire format, one after another: each a length of 4 bytes, big-endian,
 * then that many bytes.
 *
 * @param buf  The frames; not kept after the call.
 * @param len  Their bytes, lengths included. 0 is nothing to do.
 * @return How many frames were taken, as of qnet_send_batch(). Of a frame that is cut short
 *         QNET_ERR_INVALID, of a length out of range QNET_ERR_FRAME_SIZE.
 *
 * Blocks: yes, while the peer does not read: at most for QNET_OPT_SEND_TIMEOUT_MS.
 * Calls back: no.
 */
int qnet_send_packed(qnet_conn *conn, const void *buf, size_t len);

/**
 * Waits, as a send would, until nothing that was taken is unwritten. A process that is about to end,
 * by exit() or otherwise, calls it or qnet_close() first: what is unwritten then is lost.
 *
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_AGAIN, QNET_ERR_TIMEOUT, QNET_ERR_INTERRUPTED,
 *         QNET_ERR_CLOSED, QNET_ERR_PROTOCOL, QNET_ERR_OS, QNET_ERR_INTERNAL.
 *
 * Blocks: yes, while the peer does not read: at most for QNET_OPT_SEND_TIMEOUT_MS.
 * Calls back: no.
 */
int qnet_flush(qnet_conn *conn);

/* ---- Receiving (receive) ---------------------------------------------------------- */

/**
 * Has a handler called with every frame received, on a thread of the connection's own, one call at
 * a time, in order. Frames that came before wait, and are not lost; where the peer has left, they
 * are followed by the end. An end that was told already, by qnet_wait() or qnet_close_reason() too,
 * is this call's answer, and a close handler waits for qnet_close().
 *
 * Outside a handler of any kind, returns when the handler that this one replaces is not running and
 * never will again, so that its `user` may be freed (hold no lock that the handler takes). With
 * QNET_OPT_WAIT 0, or inside a handler, it does not wait.
 *
 * @param handler  The handler; NULL stops receiving. It takes the place of a batch handler too.
 * @param user     What to call it with.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_BUSY (the connection is attached or linked),
 *         QNET_ERR_CLOSED, QNET_ERR_PROTOCOL or QNET_ERR_OS (it has ended; QNET_ERR_OS also where no
 *         thread can be had), QNET_ERR_INTERNAL.
 *
 * Blocks: yes, until the handler before has returned; not inside a handler of any kind, or with
 * QNET_OPT_WAIT 0.
 * Calls back: no.
 */
int qnet_set_handler(qnet_conn *conn,
                     qnet_handler handler,
                     void *user);

/**
 * The same with many frames to a call, as many as are there.
 *
 * @param handler  The handler; NULL stops receiving. It takes the place of a frame handler too.
 * @param user     What to call it with.
 * @return As qnet_set_handler().
 *
 * Blocks: yes, until the handler before has returned; not inside a handler of any kind, or with
 * QNET_OPT_WAIT 0.
 * Calls back: no.
 */
int qnet_set_batch_handler(qnet_conn *conn, qnet_batch_handler handler, void *user);

/**
 * Has a handler called when the connection has ended, exactly once and last.
 *
 * It runs on the connection's own thread where it has a frame handler, or is attached to a hub or
 * linked; else in the receive that reports the end, in qnet_shutdown() or in qnet_close(), never in
 * qnet_wait() or qnet_poll(). Set after that, it runs before this call returns. One that is replaced
 * before is never called.
 *
 * @param handler  The handler; NULL for none.
 * @param user     What to call it with.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: yes, the handler that is set, where the connection has ended.
 */
int qnet_set_close_handler(qnet_conn *conn,
                           qnet_close_handler handler,
                           void *user);

/**
 * Receives one frame.
 *
 * @param buf         Where to. QNET_FRAME_MAX bytes always suffice.
 * @param cap         Its size in bytes. With 0, where buf may be NULL, the next frame's length is
 *                    returned and the frame is kept.
 * @param timeout_ms  How long to wait: -1 without an end, 0 not at all.
 * @return The frame's length in bytes; QNET_ERR_HANDLE, QNET_ERR_INVALID (buf is NULL, a timeout
 *         below -1), QNET_ERR_FRAME_SIZE (buf is too small; the frame is kept), QNET_ERR_AGAIN (0
 *         was given), QNET_ERR_TIMEOUT, QNET_ERR_INTERRUPTED, QNET_ERR_BUSY (the connection has a
 *         handler, or is attached or linked), QNET_ERR_CLOSED, QNET_ERR_PROTOCOL or QNET_ERR_OS (how
 *         the connection ended, after every frame before that), QNET_ERR_INTERNAL.
 *
 * Threads may receive at once: each frame is given to one of them.
 *
 * Blocks: yes, at most for timeout_ms.
 * Calls back: yes, the close handler, where the call reports the end.
 */
int qnet_recv(qnet_conn *conn,
              void *buf,
              size_t cap,
              int timeout_ms);

/**
 * Receives frames without copying them.
 *
 * @param frames      Filled with frames whose bytes the library lends, until the next receive on
 *                    the connection by any thread, a change of how it is received from, or its
 *                    close; not until its end or qnet_poll(). Until then they keep the memory
 *                    that they were read into: up to 16 KiB of frames as much, with a time-out of 0
 *                    and when fewer than count were there; else 128 KiB, of messages 68 KiB each at
 *                    most. What is not lent costs an idle connection 16 KiB at most.
 * @param count       How many there is room for, at least 1.
 * @param timeout_ms  How long to wait for the first: -1 without an end, 0 not at all.
 * @return How many were received; else as qnet_recv().
 *
 * Blocks: yes, at most for timeout_ms.
 * Calls back: yes, the close handler, where the call reports the end.
 */
int qnet_recv_batch(qnet_conn *conn, qnet_frame *frames, size_t count, int timeout_ms);

/**
 * Receives frames in wire format, one after another: each a length of 4 bytes, big-endian, then
 * that many bytes.
 *
 * @param buf         Where to. QNET_FRAME_MAX + 4 bytes always suffice for one.
 * @param cap         Its size in bytes.
 * @param timeout_ms  How long to wait for the first: -1 without an end, 0 not at all.
 * @return The bytes of whole frames, lengths included, as many as fit; else as qnet_recv().
 *
 * Blocks: yes, at most for timeout_ms.
 * Calls back: yes, the close handler, where the call reports the end.
 */
int qnet_recv_packed(qnet_conn *conn, void *buf, size_t cap, int timeout_ms);

/**
 * Waits until one of many connections has a frame or an end to give.
 *
 * @param conns       The connections.
 * @param ready       Set to 1 for each on which a receive would give anything but QNET_ERR_AGAIN,
 *                    errors and stale handles included, and to 0 for the others.
 * @param count       How many there are, at least 1.
 * @param timeout_ms  How long to wait: -1 without an end, 0 not at all.
 * @return How many are ready: 0 when the time has passed; QNET_ERR_INVALID (a NULL, a count of 0,
 *         a timeout below -1), QNET_ERR_INTERRUPTED, QNET_ERR_OS, QNET_ERR_INTERNAL.
 *
 * Blocks: yes, at most for timeout_ms.
 * Calls back: no.
 */
int qnet_poll(qnet_conn *const *conns, uint8_t *ready, size_t count, int timeout_ms);

/**
 * The connection's descriptor, for poll, epoll or a GUI's loop: the socket itself, the same number
 * until qnet_close() returns. With QNET_OPT_RECONNECT_MS above 0, a descriptor that follows the
 * socket and signals reading alone.
 *
 * Poll it for reading only after a receive gave QNET_ERR_AGAIN, or a batch fewer than its count:
 * the library may hold frames that the descriptor knows nothing of (qnet_poll() does). When it can
 * be written to, a send that gave QNET_ERR_AGAIN may be tried again. Do not read, write or close
 * it; remove it from an epoll set before qnet_close(). Who waits for edges (EPOLLET) receives until
 * QNET_ERR_AGAIN: a batch fewer than its count may have the end behind it.
 *
 * @return The descriptor; QNET_ERR_HANDLE, QNET_ERR_OS (there is none to follow the socket with),
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_fd(qnet_conn *conn);

/* ---- Ending (end) ----------------------------------------------------------------- */

/**
 * Waits until the connection has ended, by either side, and, where it has a handler or is attached
 * or linked, its close handler has returned. It works however the connection is received from: one that is pulled, or
 * not received from at all, has ended once its peer has left, though frames may still wait. (Over
 * TCP, a peer that leaves while much is unread is not seen to leave until some of that is received.)
 * One that is dialled again has not ended by its peer's leaving.
 *
 * @param timeout_ms  How long to wait: -1 without an end, 0 not at all.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (a timeout below -1), QNET_ERR_AGAIN (0 was
 *         given), QNET_ERR_TIMEOUT, QNET_ERR_INTERRUPTED, QNET_ERR_BUSY (inside the connection's
 *         own handler), QNET_ERR_OS, QNET_ERR_INTERNAL.
 *
 * Blocks: yes, at most for timeout_ms.
 * Calls back: no.
 */
int qnet_wait(qnet_conn *conn,
              int timeout_ms);

/**
 * Tells how the connection ended.
 *
 * @return QNET_OK while it is open, also while one that is dialled again is down, and, where frames
 *         are pulled, until what the peer sent has been received; QNET_ERR_CLOSED (in order, by
 *         either side), QNET_ERR_PROTOCOL, QNET_ERR_OS (a reset, for example); QNET_ERR_HANDLE,
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_close_reason(qnet_conn *conn);

/**
 * Ends the connection without waiting. No further handler call begins; sends and receives, those
 * that wait included, give QNET_ERR_CLOSED, or the reason of an end that was there before. The
 * library writes what was taken and drains what the peer is still writing (for how long: see
 * qnet_close()), then the peer sees the end. The handle stays, to be closed with qnet_close().
 *
 * @return QNET_OK, also where it had ended before; QNET_ERR_HANDLE, QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: yes, the close handler, where the connection has no handler and is neither attached
 * nor linked, and it was not called before.
 */
int qnet_shutdown(qnet_conn *conn);

/**
 * Ends the connection and gives its handle back. Calls that wait on it are woken, with
 * QNET_ERR_CLOSED (qnet_wait() with QNET_OK).
 *
 * Writes what was taken and is not yet written (of TCP also until the system has sent it, for which
 * a peer that does not read leaves no room), and drains what a QEMU peer is still writing, so that
 * its netdev works for the next connection; all within QNET_OPT_LINGER_MS. Returns when no
 * handler of the connection is running and its close handler has returned; inside a handler of any
 * kind, or with QNET_OPT_WAIT 0, without waiting for them. In every case its descriptor is closed
 * then, whoever was waiting on it, and its socket file gone: the address can be used again at once.
 * (A thread that the host has stopped in a call on the connection, or that has jumped out of one, is
 * waited for for 10 s at most.)
 *
 * Draining takes no time once the peer has left; on datagrams, SEQPACKET and a TAP; and on a stream
 * where nothing is unread and no read of the last 20 ms gave more than 4 KiB. On any other stream it
 * takes until the peer has been silent for 20 ms. A peer that is never silent is drained for 50 ms
 * and to the end of a frame; over a Unix socket its writes fail from then on, and it has to be silent
 * for 20 ms all the same. A peer in the middle of a frame is waited for until that is whole: where
 * five bytes of one came and no more, closing takes all of QNET_OPT_LINGER_MS.
 *
 * What QNET_OPT_LINGER_MS cuts off is not told: QNET_OK all the same. Who has to know calls
 * qnet_flush() before, after which all of it is in the socket. Or qnet_shutdown(): within
 * QNET_OPT_LINGER_MS, each frame that was taken is among qnet_get_stats()' tx_frames or tx_dropped,
 * of which qnet_wait() does not wait for the last.
 *
 * @return QNET_OK; QNET_ERR_HANDLE (of two closes at once the second gets it immediately),
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: yes, while it writes and drains: at most for QNET_OPT_LINGER_MS; and until the
 * connection's handlers have returned; for those not inside a handler of any kind, or with
 * QNET_OPT_WAIT 0.
 * Calls back: yes, the close handler, where the connection has no handler and is neither attached
 * nor linked, and it was not called before.
 */
int qnet_close(qnet_conn *conn);

/* ---- Reconnecting (redial) -------------------------------------------------------- */

/**
 * Has a handler called with a reconnecting connection's carrier: with 0 when it has gone down, with
 * 1 when it is up again. Not called at setting; for a connection that began without its peer, first
 * with 1.
 *
 * A connection of qnet_dial() or qnet_dial_with() reconnects while QNET_OPT_RECONNECT_MS is above 0.
 * When its peer leaves, resets it or breaks the framing, it does not end but goes down, once every
 * whole frame received before has been taken from it: so who pulls frames must pull them; and one that
 * nobody receives from notices it when a send fails, or in qnet_wait() or qnet_poll(). So many
 * milliseconds later, and after each attempt that failed, it is dialled again, until that succeeds
 * (qnet_stats.reconnects). One thread dials for all connections that are down, and none of them waits
 * for another. An attempt fails, too, where a Unix peer has no room for another who connects (its
 * backlog). The connection's handle, handlers, hub port or link, options and counts stay.
 *
 * It ends by qnet_shutdown() or qnet_close(), with which an attempt under way ends at once; at the
 * other end of a link's end; where the thread cannot be had; or, while it is down, when the option is
 * set to 0: then with the reason for which it went down.
 *
 * While it is down, qnet_close_reason() is QNET_OK, sends succeed and are dropped (tx_dropped), as
 * is what was taken before and not written; receives give QNET_ERR_AGAIN or QNET_ERR_TIMEOUT, or
 * wait on, and so does qnet_wait(). The close handler is called at the final end.
 *
 * Outside a handler of any kind, returns when the state handler that this one replaces is not
 * running and never will again, so that its `user` may be freed (hold no lock that it takes). With
 * QNET_OPT_WAIT 0, or inside a handler, it does not wait. No call begins after qnet_shutdown() or
 * qnet_close(), and qnet_close() waits for one that is running under the same rule.
 *
 * @param handler  The handler; NULL for none.
 * @param user     What to call it with.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_UNSUPPORTED (the connection was not dialled),
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: yes, until the handler before has returned; not inside a handler of any kind, or with
 * QNET_OPT_WAIT 0.
 * Calls back: no.
 */
int qnet_set_state_handler(qnet_conn *conn,
                           qnet_state_handler handler,
                           void *user);

/* ---- Knowing (info) --------------------------------------------------------------- */

/**
 * Tells the connection's hardware address: its own, for a program that answers as a device. The
 * library only keeps it. Random, locally administered and unicast until set.
 *
 * @param mac  Where to: 6 bytes.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (mac is NULL), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hwaddr(qnet_conn *conn, uint8_t *mac);

/**
 * Sets the connection's hardware address.
 *
 * @param mac  The address: 6 bytes.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (mac is NULL), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_set_hwaddr(qnet_conn *conn, const uint8_t *mac);

/**
 * Tells the address of this end: empty for a socket without a name, and while a connection that is
 * dialled again is down.
 *
 * @param buf  Filled as snprintf(3) does: cut short if need be, and then NUL-terminated all the
 *             same. May be NULL if cap is 0.
 * @param cap  Its size in bytes.
 * @return The length of the whole text in bytes, without the NUL; QNET_ERR_HANDLE,
 *         QNET_ERR_INVALID (buf is NULL), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_local_addr(qnet_conn *conn, char *buf, size_t cap);

/**
 * Tells the address of the peer's end, as it was when the connection was made; while one that is
 * dialled again is down, the address that is dialled, or nothing where that is a name. Of a
 * qnet_dgram() without a remote, who sent first (QNET_OPT_RELEARN 1: last), or nothing.
 *
 * @param buf  As for qnet_local_addr().
 * @param cap  As for qnet_local_addr().
 * @return As qnet_local_addr().
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_peer_addr(qnet_conn *conn, char *buf, size_t cap);

/**
 * Tells the connection's counts.
 *
 * @param out   Filled as far as it reaches; what the library does not know is zeroed.
 * @param size  Its size in bytes: sizeof(qnet_stats) of the caller's header.
 * @return The bytes that the library knows; QNET_ERR_HANDLE, QNET_ERR_INVALID (out is NULL),
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_get_stats(qnet_conn *conn, qnet_stats *out, size_t size);

/**
 * Sets an option of a connection.
 *
 * @param option  One of enum qnet_option.
 * @param value   Its value.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (no such option, or a value out of range),
 *         QNET_ERR_UNSUPPORTED (not an option of this connection), QNET_ERR_BUSY
 *         (QNET_OPT_RECONNECT_MS above 0, after qnet_fd() gave out the socket itself), QNET_ERR_OS,
 *         QNET_ERR_INTERNAL. On failure nothing has changed.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_set(qnet_conn *conn, int option, int64_t value);

/**
 * Tells an option's value.
 *
 * @param option  One of enum qnet_option.
 * @param value   Where to.
 * @return As qnet_set(); QNET_ERR_INVALID where value is NULL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_get(qnet_conn *conn, int option, int64_t *value);

/**
 * The library's version: "0.1.0". QNET_VERSION and its kin tell the header's.
 *
 * Blocks: no.
 * Calls back: no.
 */
const char *qnet_version(void);

/**
 * The number in the shared library's name, which changes when programs must be compiled again: 0.
 *
 * Blocks: no.
 * Calls back: no.
 */
uint32_t qnet_abi_version(void);

/**
 * A code in English.
 *
 * @param code  One of enum qnet_error, or any other integer.
 * @return A static string, never NULL.
 *
 * Blocks: no.
 * Calls back: no.
 */
const char *qnet_strerror(int code);

/**
 * This thread's last failure in full: what was attempted, on what, and why it failed.
 * QNET_ERR_AGAIN, QNET_ERR_TIMEOUT and QNET_ERR_INTERRUPTED are not recorded.
 *
 * @return A string, never NULL, empty before the first failure; valid until this thread's next
 *         failing call.
 *
 * Blocks: no.
 * Calls back: no.
 */
const char *qnet_last_error(void);

/**
 * The errno of this thread's last failure, or 0 where it had none.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_last_errno(void);

/* ---- Forwarding: links (link) ----------------------------------------------------- */

/**
 * Cables two connections together: what one receives the other sends, until one ends or
 * qnet_unlink() is called.
 *
 * Nothing is lost: while one does not read, the other is not read. When one side ends, the other is
 * ended after what the first sent is written, however long that takes; while one that is dialled
 * again is down, what is for it is dropped (its tx_dropped). Frames shorter than 14 bytes
 * are skipped (rx_runts); those longer than the sending side's QNET_OPT_MAX_FRAME, or for a peer that
 * has shut down its reading alone, are dropped (that side's tx_dropped). Threads of the library's do the work, at most 4, which all links and hubs share.
 * Other ways to receive give QNET_ERR_BUSY; sends go to the connection's own peer, between the
 * frames of the link.
 *
 * What would lead frames round inside the process, with nobody outside to take them, is refused: the
 * two ends of one qnet_socketpair(), also where they lead to one another by further links and pairs;
 * and two connections that both lead to the same hub, as two of its qnet_hub_port() do. Two hubs may
 * be joined twice, though. Of sockets that the library did not pair itself (adopted ones, a dial of
 * the program's own listener) it does not know where they lead.
 *
 * @param a  One connection, and
 * @param b  the other. Both stay the caller's, to be closed with qnet_close(), which ends the link.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (both are the same, or frames would go round),
 *         QNET_ERR_BUSY (one has a handler, or is attached or linked), QNET_ERR_CLOSED,
 *         QNET_ERR_PROTOCOL or QNET_ERR_OS (one has ended, or there is no thread to be had, or no
 *         descriptor for one: EMFILE), QNET_ERR_INTERNAL. On failure neither is linked.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_link(qnet_conn *a,
              qnet_conn *b);

/**
 * Takes the cable out at both sides, at once: both connections are as before qnet_link(). What was
 * received and not yet written is still written.
 *
 * @param conn  Either of the two.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (it is not linked), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_unlink(qnet_conn *conn);

/* ---- Forwarding: hubs (hub) ------------------------------------------------------- */

/**
 * Makes a hub: a learning switch, between connections that are attached to it.
 *
 * It learns which addresses are behind which connection (QNET_OPT_MAC_AGE_S, QNET_OPT_MAC_MAX),
 * sends frames for one of them there alone, all others to everybody, and never sends one back where
 * it came from. It never waits for a connection: where more waits than QNET_OPT_QUEUE_BYTES,
 * frames are dropped, and counted in that connection's tx_dropped. The work is done by threads of
 * the library's, at most 4, which all links and hubs share; without connections there are none.
 *
 * @param out  The hub, to be closed with qnet_hub_close(); NULL on failure.
 * @return QNET_OK; QNET_ERR_INVALID (out is NULL), QNET_ERR_OS (too many hubs), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_new(qnet_hub **out);

/**
 * Attaches a connection: the hub receives its frames and sends it others'. Other ways to receive
 * give QNET_ERR_BUSY; sends go to the connection's own peer, past the hub.
 *
 * @param conn  The connection, which stays the caller's, to be closed with qnet_close(), attached or
 *              not. When it ends it is detached, and its close handler is called on a thread of the
 *              library's.
 * @return QNET_OK; QNET_ERR_HANDLE (of either), QNET_ERR_INVALID (it leads to this hub: it is one of
 *         its qnet_hub_port(), or the other end of its qnet_socketpair() is attached, or linked to
 *         what leads here; see qnet_link()), QNET_ERR_BUSY (it has a handler, or is attached or
 *         linked), QNET_ERR_CLOSED, QNET_ERR_PROTOCOL or QNET_ERR_OS (it has ended, or there is no
 *         thread to be had, or no descriptor for one: EMFILE), QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_attach(qnet_hub *hub,
                    qnet_conn *conn);

/**
 * Detaches a connection, which is as before qnet_hub_attach(): nothing is forwarded from or to it
 * any more, its addresses are forgotten, and frames not yet received wait in it. What was to be sent
 * to it is still written. One that was served, or is the hub's own end of a qnet_hub_port(), is the
 * caller's to close from now on.
 *
 * @return QNET_OK; QNET_ERR_HANDLE (of either), QNET_ERR_INVALID (it is not attached to this hub),
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_detach(qnet_hub *hub,
                    qnet_conn *conn);

/**
 * Makes a connection whose other end is attached: the program's own device on the hub, used like
 * any connection.
 *
 * @param out  The connection, to be closed with qnet_close(); NULL on failure. It ends with the hub,
 *             unless the hub's own end of it was detached.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (out is NULL), QNET_ERR_OS,
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_port(qnet_hub *hub,
                  qnet_conn **out);

/**
 * Accepts a listener's peers in the background, and attaches them. A peer that leaves is detached
 * and its connection given back by the library: its handle, from qnet_hub_ports(), is stale then.
 * Without a descriptor for a peer accepting waits, and goes on; without one for the thread that
 * accepts, this function fails.
 *
 * @param listener  It stays the caller's until qnet_hub_close(), which closes it; closing it before
 *                  ends the accepting, and the peers stay. Its options are those of the peers, of
 *                  whom there are not more than its QNET_OPT_MAX_CONNS.
 * @return QNET_OK; QNET_ERR_HANDLE (of either), QNET_ERR_BUSY (a hub serves it already),
 *         QNET_ERR_OS (there is no thread to be had, or no descriptor for one: EMFILE),
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_serve(qnet_hub *hub, qnet_listener *listener);

/**
 * Tells what is attached, in no order: served connections too, and the hub's own ends of
 * qnet_hub_port().
 *
 * @param conns  Filled with handles as far as it reaches. May be NULL if cap is 0.
 * @param cap    How many it has room for.
 * @return How many there are; QNET_ERR_HANDLE, QNET_ERR_INVALID (conns is NULL),
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_ports(qnet_hub *hub, qnet_conn **conns, size_t cap);

/**
 * Sets an option of a hub.
 *
 * @param option  QNET_OPT_MAC_AGE_S, QNET_OPT_MAC_MAX or QNET_OPT_QUEUE_BYTES.
 * @param value   Its value.
 * @return QNET_OK; QNET_ERR_HANDLE, QNET_ERR_INVALID (no such option, or a value out of range),
 *         QNET_ERR_UNSUPPORTED (not an option of hubs), QNET_ERR_INTERNAL. On failure nothing has
 *         changed.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_set(qnet_hub *hub, int option, int64_t value);

/**
 * Tells an option's value.
 *
 * @param option  As for qnet_hub_set().
 * @param value   Where to.
 * @return As qnet_hub_set(); QNET_ERR_INVALID where value is NULL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_get(qnet_hub *hub, int option, int64_t *value);

/**
 * Tells the hub's counts.
 *
 * @param out   Filled as far as it reaches; what the library does not know is zeroed.
 * @param size  Its size in bytes: sizeof(qnet_hub_stats) of the caller's header.
 * @return The bytes that the library knows; QNET_ERR_HANDLE, QNET_ERR_INVALID (out is NULL),
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: no.
 * Calls back: no.
 */
int qnet_hub_get_stats(qnet_hub *hub, qnet_hub_stats *out, size_t size);

/**
 * Closes a hub and gives its handle back: detaches all, closes the listeners and connections that
 * it served, and ends what qnet_hub_port() made. Handles given out by that, and attached by the
 * caller, stay the caller's to close.
 *
 * Served connections are closed as by qnet_close(), all at a time; inside a handler of any kind, or
 * where they have QNET_OPT_WAIT 0, without waiting for their close handlers, in which their handles
 * are stale then. When it returns the descriptors of all that it closed are closed.
 *
 * What the hub has not read yet is lost, whether a peer sent it or the program, into a
 * qnet_hub_port(): as with any peer that leaves without reading. To be sure, wait for its arrival, or
 * the answer to it, before.
 *
 * @return QNET_OK; QNET_ERR_HANDLE (of two closes at once the second gets it immediately),
 *         QNET_ERR_INTERNAL.
 *
 * Blocks: yes, as qnet_close() does, for the connections that it closes.
 * Calls back: no.
 */
int qnet_hub_close(qnet_hub *hub);

#ifdef __cplusplus
}
#endif

#endif
