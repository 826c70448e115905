/*
 * captured_messages.c - captures of connections on which each message is a frame.
 */
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

int main(void)
{
    scratch_make();
    RUN_KINDS(by_program, EVERY_KIND);
    RUN_KINDS(forwarded, EVERY_KIND);
    scratch_remove();
    return check_done();
}
