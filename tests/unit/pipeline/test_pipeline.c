/* test_pipeline.c - frames, order of answers, bounds and time of the pipeline core. */
#include "libs/base/bytes.h"
#include "tests/unit/pipeline/kit.h"

#include <criterion/criterion.h>
#include <stdlib.h>

Test(pipeline, frames_arrive_whole_whatever_the_reads)
{
    static const size_t chunks[] = {1, 3, 7, 100, 5000, 200000};
    static const uint32_t sizes[] = {8, 9, 100, 2048, 2049, 70000, 8, 300000, 12};

    for (size_t c = 0; c < COUNTOF(chunks); c++) {
        struct pipeline_options o = options();
        o.conn_requests_max = 100;
        struct pipeline *p = pipeline_new(&o);
        uint64_t conn = open_conn(p);
        struct buf b = {0};
        for (size_t i = 0; i < COUNTOF(sizes); i++)
            put_frame(&b, KEY_PRODUCE, (int32_t)i, sizes[i]);
        cr_assert_eq(feed(p, conn, &b, chunks[c], 0), b.size);
        for (size_t i = 0; i < COUNTOF(sizes); i++) {
            struct pipeline_request r;
            cr_assert(pipeline_next(p, &r));
            cr_assert_eq(r.correlation_id, (int32_t)i);
            cr_assert_eq(r.api_version, 9);
            cr_assert_eq(r.frame.size, sizes[i]);
            for (size_t n = 8; n < r.frame.size; n++)
                cr_assert_eq(r.frame.data[n], 'x');
            answer(p, r.id, "a");
        }
        cr_assert_eq(pipeline_input_used(p), 0);
        buf_free(&b);
        pipeline_free(p);
    }
}

Test(pipeline, answers_leave_in_order)
{
    struct pipeline_options o = options();
    struct pipeline *p = pipeline_new(&o);
    uint64_t conn = open_conn(p);
    struct buf b = {0};
    struct pipeline_request r[3];
    char out[64];

    for (int32_t i = 0; i < 3; i++)
        put_frame(&b, KEY_PRODUCE, i, 20);
    feed(p, conn, &b, b.size, 0);
    for (int i = 0; i < 3; i++)
        cr_assert(pipeline_next(p, &r[i]), "Produce overlaps Produce");
    answer(p, r[2].id, "three");
    answer(p, r[1].id, "two");
    take_output(p, conn, 64, out);
    cr_assert_str_eq(out, "");
    answer(p, r[0].id, "one");
    take_output(p, conn, 2, out);
    cr_assert_str_eq(out, "onetwothree");
    buf_free(&b);
    pipeline_free(p);
}

Test(pipeline, others_run_one_at_a_time)
{
    struct pipeline_options o = options();
    struct pipeline *p = pipeline_new(&o);
    uint64_t conn = open_conn(p);
    struct buf b = {0};
    struct pipeline_request first, second;

    put_frame(&b, KEY_PRODUCE, 1, 20);
    put_frame(&b, KEY_OTHER, 2, 20);
    put_frame(&b, KEY_PRODUCE, 3, 20);
    feed(p, conn, &b, b.size, 0);
    cr_assert(pipeline_next(p, &first));
    cr_assert_not(pipeline_next(p, &second));
    answer(p, first.id, "a");
    cr_assert(pipeline_next(p, &second));
    cr_assert_eq(second.correlation_id, 2);
    cr_assert_not(pipeline_next(p, &first));
    answer(p, second.id, "b");
    cr_assert(pipeline_next(p, &first));
    cr_assert_eq(first.correlation_id, 3);
    answer(p, first.id, "c");
    buf_free(&b);
    pipeline_free(p);
}

Test(pipeline, a_slow_reader_gets_no_further_answers)
{
    struct pipeline_options o = options();
    struct pipeline *p = pipeline_new(&o);
    uint64_t conn = open_conn(p);
    struct buf b = {0};
    struct pipeline_request r;
    char big[2001], out[4096];

    memset(big, 'y', 2000);
    big[2000] = '\0';
    put_frame(&b, KEY_OTHER, 1, 20);
    put_frame(&b, KEY_OTHER, 2, 20);
    feed(p, conn, &b, b.size, 0);
    cr_assert(pipeline_next(p, &r));
    answer(p, r.id, big);
    cr_assert_not(pipeline_next(p, &r), "2000 bytes wait, 1000 may");
    cr_assert_eq(pipeline_output_room(p), (1u << 20) - 2000);
    take_output(p, conn, 500, out);
    cr_assert(pipeline_next(p, &r));
    answer(p, r.id, "b");
    buf_free(&b);
    pipeline_free(p);
}

Test(pipeline, bad_lengths_close_after_the_answers)
{
    static const uint32_t bad[] = {0, 7, 0x7fffffff, 0xffffffff, (1 << 20) + 1};

    for (size_t i = 0; i < COUNTOF(bad); i++) {
        struct pipeline_options o = options();
        struct pipeline *p = pipeline_new(&o);
        uint64_t conn = open_conn(p);
        struct buf b = {0};
        struct pipeline_request r;
        char out[16];
        put_frame(&b, KEY_OTHER, 1, 20);
        put_u32(buf_grow(&b, 4), bad[i]);
        buf_append(&b, "garbage", 7);
        feed(p, conn, &b, b.size, 0);
        struct pipeline_attention a = attention_of(p, conn);
        cr_assert(!a.read && !a.close);
        cr_assert(pipeline_next(p, &r));
        answer(p, r.id, "ok");
        a = attention_of(p, conn);
        cr_assert(a.write && !a.close);
        take_output(p, conn, 16, out);
        cr_assert_str_eq(out, "ok");
        a = attention_of(p, conn);
        cr_assert(a.close);
        cr_assert_not_null(a.reason);
        pipeline_close(p, conn);
        cr_assert_eq(pipeline_input_used(p), 0);
        buf_free(&b);
        pipeline_free(p);
    }
}

Test(pipeline, too_many_requests_stop_the_reading)
{
    struct pipeline_options o = options();
    struct pipeline *p = pipeline_new(&o);
    uint64_t conn = open_conn(p);
    struct buf b = {0};
    struct pipeline_request r;
    struct iovec room[2];

    for (int32_t i = 0; i < 8; i++)
        put_frame(&b, KEY_OTHER, i, 20);
    feed(p, conn, &b, b.size, 0);
    cr_assert_eq(pipeline_input(p, conn, room), 0);
    cr_assert_not(attention_of(p, conn).read);
    cr_assert(pipeline_next(p, &r));
    answer(p, r.id, "a");
    cr_assert(attention_of(p, conn).read);
    cr_assert_gt(pipeline_input(p, conn, room), 0);
    buf_free(&b);
    pipeline_free(p);
}

Test(pipeline, a_gone_client_leaves_its_running_requests)
{
    struct pipeline_options o = options();
    struct pipeline *p = pipeline_new(&o);
    uint64_t conn = open_conn(p), id;
    struct buf b = {0};
    struct pipeline_request r, r2;

    put_frame(&b, KEY_PRODUCE, 1, 3000);
    put_frame(&b, KEY_PRODUCE, 2, 20);
    put_frame(&b, KEY_OTHER, 3, 20);
    feed(p, conn, &b, b.size, 0);
    cr_assert(pipeline_next(p, &r));
    cr_assert(pipeline_next(p, &r2));
    pipeline_close(p, conn);
    pipeline_check(p);
    cr_assert(pipeline_gone(p, &id));
    cr_assert_eq(id, r.id);
    answer(p, r2.id, "nobody reads it");
    cr_assert_not(pipeline_gone(p, &id), "answered meanwhile");
    cr_assert_eq(r.frame.data[100], 'x', "the frame lives until the answer");
    answer(p, r.id, "nor this");
    cr_assert_eq(pipeline_input_used(p), 0);
    cr_assert_eq(pipeline_running(p), 0);
    cr_assert_eq(pipeline_connections(p), 0);
    buf_free(&b);
    pipeline_free(p);
}

Test(pipeline, close_drops_what_is_behind)
{
    struct pipeline_options o = options();
    struct pipeline *p = pipeline_new(&o);
    uint64_t conn = open_conn(p);
    struct buf b = {0};
    struct pipeline_request r[3];
    char out[16];

    for (int32_t i = 0; i < 4; i++)
        put_frame(&b, KEY_PRODUCE, i, 20);
    feed(p, conn, &b, b.size, 0);
    for (int i = 0; i < 3; i++)
        cr_assert(pipeline_next(p, &r[i]));
    answer(p, r[0].id, "a");
    pipeline_answer(p, r[1].id, PIPELINE_CLOSE, NULL, 0);
    pipeline_check(p);
    cr_assert_not(pipeline_next(p, &r[1]));
    answer(p, r[2].id, "never sent");
    take_output(p, conn, 16, out);
    cr_assert_str_eq(out, "a");
    cr_assert(attention_of(p, conn).close);
    buf_free(&b);
    pipeline_free(p);
}

Test(pipeline, no_answer_keeps_the_order)
{
    struct pipeline_options o = options();
    struct pipeline *p = pipeline_new(&o);
    uint64_t conn = open_conn(p);
    struct buf b = {0};
    struct pipeline_request r[2];
    char out[16];

    put_frame(&b, KEY_PRODUCE, 0, 20);
    put_frame(&b, KEY_PRODUCE, 1, 20);
    feed(p, conn, &b, b.size, 0);
    cr_assert(pipeline_next(p, &r[0]));
    cr_assert(pipeline_next(p, &r[1]));
    answer(p, r[1].id, "b");
    pipeline_answer(p, r[0].id, PIPELINE_NO_ANSWER, NULL, 0);
    take_output(p, conn, 16, out);
    cr_assert_str_eq(out, "b");
    buf_free(&b);
    pipeline_free(p);
}

Test(pipeline, limits_of_connections)
{
    struct pipeline_options o = options();
    struct pipeline *p = pipeline_new(&o);
    uint64_t id, first = open_conn(p);

    open_conn(p);
    open_conn(p);
    cr_assert_eq(pipeline_open(p, KIT_IP_A, -1, 0, &id), -EUSERS);
    cr_assert_eq(pipeline_open(p, KIT_IP_B, 0, 0, &id), -EUSERS, "its override is none");
    cr_assert_eq(pipeline_open(p, KIT_IP_B, -1, 0, &id), 0);
    cr_assert(pipeline_is_full(p));
    cr_assert_eq(pipeline_open(p, KIT_IP_B, -1, 0, &id), -EMFILE);
    pipeline_close(p, first);
    cr_assert_eq(pipeline_open(p, KIT_IP_A, -1, 0, &id), 0);
    cr_assert_neq(id, first);
    pipeline_free(p);
}

Test(pipeline, idle_connections_close_and_busy_ones_stay)
{
    struct pipeline_options o = options();
    struct pipeline *p = pipeline_new(&o);
    uint64_t idle = open_conn(p), busy = open_conn(p);
    struct buf b = {0};
    struct pipeline_request r;

    put_frame(&b, KEY_OTHER, 1, 20);
    feed(p, busy, &b, b.size, 10);
    cr_assert(pipeline_next(p, &r));
    cr_assert_eq(pipeline_next_ms(p), 1000);
    pipeline_tick(p, 999);
    cr_assert_not(attention_of(p, idle).close);
    pipeline_tick(p, 1010);
    struct pipeline_attention a;
    bool closes[2] = {false, false};
    while (pipeline_attention(p, &a))
        closes[a.conn == busy] = a.close;
    cr_assert(closes[0] && !closes[1]);
    pipeline_close(p, idle);
    answer(p, r.id, "a");
    cr_assert_eq(pipeline_next_ms(p), 2010);
    buf_free(&b);
    pipeline_free(p);
}

Test(pipeline, memory_is_bounded_and_one_frame_gets_on)
{
    struct pipeline_options o = options();
    o.input_budget_bytes = 100000;
    struct pipeline *p = pipeline_new(&o);
    uint64_t a = open_conn(p), b = open_conn(p);
    struct buf frame = {0}, half = {0};
    struct pipeline_request r;

    put_frame(&frame, KEY_OTHER, 1, 150000);
    buf_append(&half, frame.data, 80000);
    cr_assert_eq(feed(p, a, &half, 10000, 0), 80000);
    /* b meets the bound; nothing that is whole could free some, so it may go on with its frame, and a may not. */
    cr_assert_eq(feed(p, b, &half, 10000, 0), 80000);
    struct buf rest = {.data = frame.data + 80000, .size = frame.size - 80000};
    cr_assert_eq(feed(p, a, &rest, 10000, 0), 0);
    cr_assert_eq(feed(p, b, &rest, 10000, 0), rest.size);
    cr_assert(pipeline_next(p, &r));
    cr_assert_eq(r.conn, b);
    struct iovec room[2];
    cr_assert_eq(pipeline_input(p, a, room), 0);
    answer(p, r.id, "b");
    cr_assert(attention_of(p, a).read, "there is room again");
    buf_free(&frame);
    buf_free(&half);
    pipeline_free(p);
}

Test(pipeline, stalled_frames_end_when_memory_is_short)
{
    struct pipeline_options o = options();
    o.input_budget_bytes = 50000;
    struct pipeline *p = pipeline_new(&o);
    uint64_t a = open_conn(p);
    struct buf frame = {0}, half = {0};

    put_frame(&frame, KEY_OTHER, 1, 150000);
    buf_append(&half, frame.data, 60000);
    feed(p, a, &half, 60000, 0);
    cr_assert_leq(pipeline_next_ms(p), 100);
    pipeline_tick(p, 50);
    cr_assert_not(attention_of(p, a).close);
    pipeline_tick(p, 150);
    cr_assert(attention_of(p, a).close);
    pipeline_close(p, a);
    cr_assert_eq(pipeline_input_used(p), 0);
    buf_free(&frame);
    buf_free(&half);
    pipeline_free(p);
}

Test(pipeline, readers_that_do_not_read_end_when_memory_is_short)
{
    struct pipeline_options o = options();
    o.output_budget_bytes = 3000;
    o.output_resume_bytes = 100000;
    struct pipeline *p = pipeline_new(&o);
    uint64_t a = open_conn(p), b = open_conn(p);
    struct buf frame = {0};
    struct pipeline_request r;
    char big[1001], out[1024];

    memset(big, 'y', 1000);
    big[1000] = '\0';
    put_frame(&frame, KEY_OTHER, 1, 20);
    feed(p, a, &frame, frame.size, 0);
    feed(p, b, &frame, frame.size, 0);
    for (int i = 0; i < 2; i++) {
        cr_assert(pipeline_next(p, &r));
        answer(p, r.id, big);
    }
    pipeline_written(p, b, 10, 90);
    pipeline_tick(p, 120);
    struct pipeline_attention at;
    bool closes[2] = {false, false};
    while (pipeline_attention(p, &at))
        closes[at.conn == b] |= at.close;
    cr_assert(closes[0] && !closes[1]);
    pipeline_close(p, a);
    pipeline_tick(p, 500);
    cr_assert_not(attention_of(p, b).close, "memory is not short any more");
    take_output(p, b, 1024, out);
    buf_free(&frame);
    pipeline_free(p);
}

Test(pipeline, a_length_alone_takes_no_memory)
{
    struct pipeline_options o = options();
    o.frame_max_bytes = 100 << 20;
    struct pipeline *p = pipeline_new(&o);
    uint64_t a = open_conn(p);
    struct buf b = {0};

    put_u32(buf_grow(&b, 4), 100 << 20);
    buf_append(&b, "123456789", 9);
    feed(p, a, &b, b.size, 0);
    cr_assert_eq(pipeline_input_used(p), 9);
    buf_free(&b);
    pipeline_free(p);
}

Test(pipeline, drain_answers_and_closes)
{
    struct pipeline_options o = options();
    struct pipeline *p = pipeline_new(&o);
    uint64_t quiet = open_conn(p), busy = open_conn(p), id;
    struct buf b = {0};
    struct pipeline_request r;
    char out[16];

    put_frame(&b, KEY_OTHER, 1, 20);
    put_frame(&b, KEY_OTHER, 2, 20);
    feed(p, busy, &b, b.size, 0);
    cr_assert(pipeline_next(p, &r));
    pipeline_drain(p);
    cr_assert_eq(pipeline_open(p, KIT_IP_A, -1, 0, &id), -ESHUTDOWN);
    struct pipeline_attention a;
    bool closes[2] = {false, false};
    while (pipeline_attention(p, &a))
        closes[a.conn == busy] = a.close;
    cr_assert(closes[0] && !closes[1]);
    pipeline_close(p, quiet);
    answer(p, r.id, "a");
    cr_assert(pipeline_next(p, &r), "what was wholly received is answered");
    answer(p, r.id, "b");
    take_output(p, busy, 16, out);
    cr_assert_str_eq(out, "ab");
    cr_assert(attention_of(p, busy).close);
    buf_free(&b);
    pipeline_free(p);
}

/* Connections come and go, send and read at random; the invariants hold after every step. */
Test(pipeline, random_life)
{
    struct pipeline_options o = options();
    struct kit_memory memory = {.room = 150000};
    o.input_budget_bytes = 200000;
    o.per_ip_max = 100;
    o.connections_max = 6;
    kit_use(&o, &memory);
    struct pipeline *p = pipeline_new(&o);
    uint64_t conns[6] = {0}, running[64], now = 0;
    size_t run_count = 0;
    struct buf pending[6] = {{0}};

    srand(7);
    for (int step = 0; step < 50000; step++) {
        size_t at = (size_t)rand() % 6;
        struct pipeline_request r;
        struct pipeline_attention a;
        now += (uint64_t)rand() % 3;
        if (conns[at] == 0) {
            cr_assert_eq(pipeline_open(p, KIT_IP_A, -1, now, &conns[at]), 0);
            pending[at].size = 0;
        }
        switch (rand() % 6) {
        case 0:
            if (pending[at].size < 200000)
                put_frame(&pending[at], rand() % 3 ? KEY_PRODUCE : KEY_OTHER, step,
                          8 + (uint32_t)rand() % (rand() % 9 ? 6000 : 200000));
            break;
        case 1: {
            struct buf part = {.data = pending[at].data, .size = (size_t)rand() % (pending[at].size + 1)};
            buf_consume(&pending[at],
                        feed(p, conns[at], &part, 1 + (size_t)rand() % (rand() % 9 ? 3000 : 100000), now));
            break;
        }
        case 2:
            if (run_count < 64 && pipeline_next(p, &r))
                running[run_count++] = r.id;
            break;
        case 3:
            if (run_count > 0) {
                size_t pick = (size_t)rand() % run_count;
                answer(p, running[pick], rand() % 2 ? "short" : "a somewhat longer answer");
                running[pick] = running[--run_count];
            }
            break;
        case 4: {
            struct iovec v[3];
            struct pipeline_file file;
            if (pipeline_output(p, conns[at], v, 3, &file) > 0)
                pipeline_written(p, conns[at], 1 + (size_t)rand() % v[0].iov_len, now);
            break;
        }
        default:
            pipeline_tick(p, now);
            while (pipeline_attention(p, &a))
                for (size_t i = 0; i < 6; i++)
                    if (conns[i] == a.conn && (a.close || rand() % 50 == 0)) {
                        pipeline_close(p, conns[i]);
                        conns[i] = 0;
                    }
        }
        pipeline_check(p);
    }
    for (size_t i = 0; i < 6; i++)
        buf_free(&pending[i]);
    pipeline_free(p);
    cr_assert_eq(memory.taken, 0);
    cr_assert(memory.given > 100 && memory.refused > 10, "%zu %zu", memory.given, memory.refused);
}
