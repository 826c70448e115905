/*
 * soak.c - endurance: connections of every kind live and end beside each other for a
 * while, every frame is numbered and checked, and at the end nothing is left.
 * Environment: SOAK_SECONDS is how long it takes (60), SOAK_SEED seeds the random
 * numbers, and CHECK_ONLY=word runs only the sorts of life whose name contains word. It
 * plays twice, the first time for a quarter of the time. What the process holds after
 * that, with everything closed, is what it may hold at the end.
 */
#include <malloc.h>

#include "hub.h"
#include "impaired.h"
#include "messages.h"
#include "polled.h"
#include "streams.h"

enum { WORKERS = 24 };

static struct sort sorts[] = {
    { "streams", stream_lives, 5, 0, 0, 0, 0, 0 },
    { "echoes", echo_lives, 2, 0, 0, 0, 0, 0 },
    { "several polled", polled_lives, 2, 0, 0, 0, 0, 0 },
    { "links", link_lives, 2, 0, 0, 0, 0, 0 },
    { "dialled again", redial_lives, 2, 0, 0, 0, 0, 0 },
    { "messages", message_lives, 3, 0, 0, 0, 0, 0 },
    { "visitors of a hub", visitor_lives, 3, 0, 0, 0, 0, 0 },
    { "impaired", impaired_lives, 3, 0, 0, 0, 0, 0 },
    { "on clocks", clock_lives, 2, 0, 0, 0, 0, 0 },
    { "two on that hub", NULL, 0, 0, 0, 0, 0, 0 },
};
enum { SORTS = sizeof sorts / sizeof *sorts };

struct worker {
    struct sort *sort;
    pthread_t thread;
    unsigned chance;
    long long began_ms; /* when its current life began, or 0 */
};

static struct worker workers[WORKERS];
static int worker_count, over;

static void *working(void *argument)
{
    struct worker *worker = argument;

    chance = worker->chance;
    while (!get(&over)) {
        __atomic_store_n(&worker->began_ms, raw_now_ms(), __ATOMIC_SEQ_CST);
        worker->sort->live(worker->sort);
        __atomic_add_fetch(&worker->sort->lives, 1, __ATOMIC_SEQ_CST);
    }
    __atomic_store_n(&worker->began_ms, 0, __ATOMIC_SEQ_CST);
    return NULL;
}

/* Returns how many workers have not ended, and checks that no life takes too long. */
static int all_live(void)
{
    long long began_ms, limit_ms = 12LL * patience_ms();
    int i, live = 0;

    for (i = 0; i < worker_count; i++) {
        began_ms = __atomic_load_n(&workers[i].began_ms, __ATOMIC_SEQ_CST);
        if (began_ms > 0 && raw_now_ms() - began_ms > limit_ms) {
            fprintf(stderr, "no longer moves: %s\n", workers[i].sort->name);
            abort();
        }
        live += began_ms > 0;
    }
    return live;
}

static void print_progress(int seconds)
{
    long long sent = 0, received = 0, lives = 0;
    int i;

    for (i = 0; i < SORTS; i++) {
        sent += __atomic_load_n(&sorts[i].sent, __ATOMIC_SEQ_CST);
        received += __atomic_load_n(&sorts[i].received, __ATOMIC_SEQ_CST);
        lives += __atomic_load_n(&sorts[i].lives, __ATOMIC_SEQ_CST);
    }
    printf("%d s left: %lld lives, %lld frames sent, %lld received\n", seconds, lives, sent, received);
    fflush(stdout);
}

static void play(int seconds)
{
    int i, j;

    put(&over, 0);
    worker_count = 0;
    town_open();
    for (i = 0; i < SORTS; i++)
        for (j = 0; check_wants(sorts[i].name) && j < sorts[i].workers; j++) {
            struct worker *worker = &workers[worker_count++];

            worker->sort = &sorts[i];
            worker->chance = pick(1 << 20);
            worker->began_ms = raw_now_ms();
            start_thread(&worker->thread, working, worker);
        }
    for (; seconds > 0; seconds--) {
        raw_sleep_ms(1000);
        all_live();
        if (seconds % 20 == 0)
            print_progress(seconds);
    }
    put(&over, 1);
    while (all_live() > 0)
        raw_sleep_ms(10);
    for (i = 0; i < worker_count; i++)
        join_thread(workers[i].thread);
    town_close(&sorts[SORTS - 1]);
}

/* Measures the bytes of the heap that are in use, and the process's resident bytes. */
static void measure(long long *used, long long *resident)
{
    malloc_trim(0);
    *used = (long long)mallinfo2().uordblks + (long long)mallinfo2().hblkhd;
    *resident = resident_bytes();
}

static void print_table(void)
{
    int i;

    printf("\n%-20s %10s %12s %12s %10s %10s\n", "", "lives", "sent", "received", "dropped", "lost");
    for (i = 0; i < SORTS; i++) {
        const struct sort *sort = &sorts[i];

        printf("%-20s %10lld %12lld %12lld %10lld %10lld\n", sort->name, sort->lives, sort->sent,
               sort->received, sort->dropped, sort->lost);
        CHECK(!check_wants(sort->name) || (sort->lives > 0 && sort->received > 0));
    }
    printf("(dropped: counted by the library; lost: with a connection that ended, or by the network.\n"
           "What visitors hear is flooded, and so more than was said; what was impaired may have been\n"
           "lost, or doubled.)\n\n");
}

int main(void)
{
    int seconds = check_number("SOAK_SECONDS", 60), seed = check_number("SOAK_SEED", (int)getpid());
    long long used, used_before, resident, resident_before;
    struct footprint before;

    signal(SIGPIPE, SIG_DFL); /* the default, by which a SIGPIPE ends the process */
    scratch_make();
    printf("SOAK_SECONDS=%d SOAK_SEED=%d\n", seconds, seed);
    chance = (unsigned)seed;
    before = footprint_now();
    play(1 + seconds / 4);
    footprint_again(before);
    measure(&used_before, &resident_before);
    play(seconds - seconds / 4);
    print_table();
    footprint_again(before);
    measure(&used, &resident);
    printf("left: no descriptor, no thread; %lld KiB of heap were in use before and %lld KiB after,\n"
           "%lld KiB and %lld KiB in memory\n", used_before >> 10, used >> 10, resident_before >> 10,
           resident >> 10);
    if (HAS_ROOM_FOR_ITSELF) {
        CHECK(used - used_before < 512 << 10);
        /*
         * The C library keeps stacks and arenas. The buffers of thousands of lives would
         * be more than that.
         */
        CHECK(resident - resident_before < 64 << 20);
    }
    scratch_remove();
    printf("1 passed, 0 failed\n");
    return 0;
}
