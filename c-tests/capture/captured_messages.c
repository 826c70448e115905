/*
 * captured_messages.c - captures of connections on which each message is a frame.
 */
#include <linux/if_packet.h>
#include <net/if.h>

#include "alone.h"
#include "dgrams.h"
#include "shown.h"

/* Every way to receive and to send. */
static void by_program(void)
{
    int way, by;

    for (way = 0; way < WAYS_TO_RECEIVE; way++) {
        struct flow in = flow_of_kind(far_now), came = in, sending = in;
        size_t i;
        qnet_capture *capture = capture_to(scratch_path("messages.pcapng"));
        struct taker taker;
        struct shown shown;
        struct far far;
        qnet_conn *conn = far_open(&far);

        capture_add(capture, conn, "messages");
        taker_start(&taker, conn, way, flow_each, &came);
        while (sending.next < ALL_SIZES) {
            far_send_flow(&far, &sending, 1);
            while (way < WAYS_TO_PULL && taker_count(&taker) < sending.next)
                CHECK(taker_pull(&taker, patience_ms()) > 0);
        }
        taker_want(&taker, ALL_SIZES);
        for (by = 0; by < WAYS_TO_SEND; by++)
            pass_all(conn, &far, flow_of_kind(far_now), by, ALL_SIZES);
        capture_close(capture);
        shown = shown_whole(scratch_path("messages.pcapng"));
        shown_name(&shown, 0, "messages", (1 + WAYS_TO_SEND) * ALL_SIZES);
        shown_flow(&shown, 0, SHOWN_IN, &in, ALL_SIZES);
        for (i = 0, by = 0; i < shown.count; i++) {
            const struct shown_frame *frame = &shown.frames[i];

            if (frame->way == SHOWN_OUT)
                CHECK_INT(frame_number(frame->data, frame->kept), (unsigned)by++ % ALL_SIZES);
        }
        CHECK_INT(by, WAYS_TO_SEND * ALL_SIZES);
        shown_free(&shown);
        far_close(conn, &far);
    }
}

/* On a hub. */
static void forwarded(void)
{
    struct flow in = flow_of_kind(far_now), out = in, sent = in;
    qnet_capture *capture = capture_to(scratch_path("forwarded.pcapng"));
    struct shown shown;
    qnet_hub *hub = NULL;
    qnet_conn *conn, *device = NULL;
    struct far far;

    conn = far_open(&far);
    CHECK_INT(qnet_hub_new(&hub), QNET_OK);
    CHECK_INT(qnet_hub_attach(hub, conn), QNET_OK);
    CHECK_INT(qnet_hub_port(hub, &device), QNET_OK);
    CHECK_INT(qnet_set(device, QNET_OPT_MAX_FRAME, QNET_FRAME_MAX), QNET_OK);
    capture_add(capture, conn, "port");
    CHECK_INT(flow_send(&sent, device, 0, 5), 5);
    far_take_until(&far, &in, 5);
    in.next = 0;
    sent.next = 0;
    far_send_flow(&far, &sent, 5);
    while (in.next < 5)
        take_by_recv(device, &in);
    capture_close(capture);
    shown = shown_whole(scratch_path("forwarded.pcapng"));
    in.next = 0;
    shown_flow(&shown, 0, SHOWN_IN, &in, 5);
    shown_flow(&shown, 0, SHOWN_OUT, &out, 5);
    shown_free(&shown);
    CHECK_INT(qnet_hub_close(hub), QNET_OK);
    CHECK_INT(qnet_close(device), QNET_OK);
    far_close(conn, &far);
}

/* A TAP, and a packet socket at its other end. */
static void by_tap(void)
{
    static const size_t size = 60;
    const char *path = scratch_path("tap.pcapng");
    struct flow flow = flow_of_one_size(&size);
    struct sockaddr_ll to;
    struct ifreq request;
    qnet_capture *capture = capture_to(path);
    qnet_conn *conn = NULL;
    uint8_t frame[2000];
    struct shown shown;
    qnet_stats stats;
    int fd;

    if (!be_alone() || qnet_tap("captured", &conn) != QNET_OK)
        check_skip("no right to make a TAP");
    memset(&request, 0, sizeof request);
    strcpy(request.ifr_name, "captured");
    request.ifr_flags = IFF_UP;
    fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0);
    capture_add(capture, conn, NULL);
    CHECK_INT(flow_send(&flow, conn, 1, 5), 5);
    memset(&to, 0, sizeof to);
    to.sll_family = AF_PACKET;
    to.sll_ifindex = (int)if_nametoindex("captured");
    frame_make(frame, size, 7);
    CHECK(sendto(fd, frame, size, 0, (struct sockaddr *)&to, sizeof to) == (ssize_t)size);
    CHECK(qnet_recv(conn, frame, sizeof frame, patience_ms()) > 0);
    while (qnet_recv(conn, frame, sizeof frame, 50) > 0)
        ;
    stats = stats_of(conn);
    capture_close(capture);
    shown = shown_whole(path);
    shown_name(&shown, 0, "captured", stats.rx_frames + stats.tx_frames);
    CHECK(stats.rx_frames >= 1);
    CHECK_INT(stats.tx_frames, 5);
    flow.next = 0;
    shown_flow(&shown, 0, SHOWN_OUT, &flow, 5);
    shown_free(&shown);
    CHECK_INT(qnet_close(conn), QNET_OK);
    CHECK(close(fd) == 0);
}

int main(void)
{
    scratch_make();
    RUN_KINDS(by_program, EVERY_KIND);
    RUN_KINDS(forwarded, EVERY_KIND);
    RUN(by_tap);
    scratch_remove();
    return check_done();
}
