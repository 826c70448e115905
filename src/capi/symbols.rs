//! The version of every exported symbol, from the first release on: a function whose meaning must
//! change keeps its old version as a shim beside the new one.
//!
//! `remove` leaves the versioned name alone in the object, so that the static library links too;
//! the node itself is defined in `qnet.map`.

macro_rules! versioned {
    ($node:literal: $($symbol:literal),* $(,)?) => {
        $(std::arch::global_asm!(concat!(
            ".symver ", $symbol, ", ", $symbol, "@@", $node, ", remove"
        ));)*
    };
}

versioned! {
    "QNET_0":
    "qnet_dial",
    "qnet_dial_with",
    "qnet_socketpair",
    "qnet_socketpair_fd",
    "qnet_from_fd",
    "qnet_dgram",
    "qnet_tap",
    "qnet_netdev",
    "qnet_listen",
    "qnet_accept",
    "qnet_listener_from_fd",
    "qnet_listener_addr",
    "qnet_listener_fd",
    "qnet_listener_netdev",
    "qnet_listener_close",
    "qnet_listener_set",
    "qnet_listener_get",
    "qnet_send",
    "qnet_send_batch",
    "qnet_send_packed",
    "qnet_flush",
    "qnet_set_handler",
    "qnet_set_batch_handler",
    "qnet_set_close_handler",
    "qnet_recv",
    "qnet_recv_batch",
    "qnet_recv_packed",
    "qnet_poll",
    "qnet_fd",
    "qnet_link",
    "qnet_unlink",
    "qnet_hub_new",
    "qnet_hub_attach",
    "qnet_hub_detach",
    "qnet_hub_port",
    "qnet_hub_serve",
    "qnet_hub_ports",
    "qnet_hub_set",
    "qnet_hub_get",
    "qnet_hub_get_stats",
    "qnet_hub_close",
    "qnet_wait",
    "qnet_close_reason",
    "qnet_shutdown",
    "qnet_close",
    "qnet_set_state_handler",
    "qnet_hwaddr",
    "qnet_set_hwaddr",
    "qnet_local_addr",
    "qnet_peer_addr",
    "qnet_get_stats",
    "qnet_set",
    "qnet_get",
    "qnet_version",
    "qnet_abi_version",
    "qnet_strerror",
    "qnet_last_error",
    "qnet_last_errno",
}
