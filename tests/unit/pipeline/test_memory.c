/* test_memory.c - where frames lie and who is charged for them; parts of files among the answers. */
#include "libs/base/bytes.h"
#include "tests/unit/pipeline/kit.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>

enum { PIECE = 64 << 10 };

static size_t feed_frame(struct pipeline *p, uint64_t conn, int16_t key, uint32_t size, size_t chunk)
{
    struct buf b = {0};

    put_frame(&b, key, 1, size);
    size_t taken = feed(p, conn, &b, chunk, 0);
    buf_free(&b);
    return taken;
}

static void check_frame(const struct pipeline_request *r, uint32_t size)
{
    cr_assert_eq(r->frame.size, size);
    for (size_t i = 8; i < size; i++)
        cr_assert_eq(r->frame.data[i], 'x', "%zu of %u", i, size);
}

Test(pipeline_memory, frames_of_every_size_and_cut)
{
    static const uint32_t sizes[] = {8,
                                     2047,
                                     2048,
                                     2049,
                                     4096,
                                     16384,
                                     PIECE - 20,
                                     PIECE - 4,
                                     PIECE,
                                     PIECE + 1,
                                     PIECE * 2 - 4,
                                     (128 << 10) - 1,
                                     128 << 10,
                                     (128 << 10) + 1,
                                     400000,
                                     (1 << 20) - 1,
                                     1 << 20};
    static const size_t chunks[] = {1000, 4096, 5000, PIECE, 1 << 20};

    for (int with = 0; with < 2; with++)
        for (size_t c = 0; c < COUNTOF(chunks); c++) {
            struct pipeline_options o = options();
            struct kit_memory memory = {.room = with ? 8 << 20 : 0};
            o.input_budget_bytes = o.conn_input_max_bytes = 4 << 20;
            kit_use(&o, &memory);
            struct pipeline *p = pipeline_new(&o);
            uint64_t conn = open_conn(p);
            for (size_t i = 0; i < COUNTOF(sizes); i++) {
                struct pipeline_request r;
                cr_assert_eq(feed_frame(p, conn, KEY_PRODUCE, sizes[i], chunks[c]), sizes[i] + 4);
                cr_assert(pipeline_next(p, &r));
                check_frame(&r, sizes[i]);
                cr_assert_eq(kit_is_given(&r), with && sizes[i] > 2048, "size %u", sizes[i]);
                answer(p, r.id, "a");
                cr_assert_eq(pipeline_input_used(p), 0);
            }
            pipeline_free(p);
            cr_assert_eq(memory.taken, 0);
        }
}

/* A request of 3000 bytes keeps the 64 KiB alive that it was read to: that is what the process is charged. */
Test(pipeline_memory, a_piece_is_charged_as_a_whole)
{
    struct pipeline_options o = options();
    struct pipeline *p = pipeline_new(&o);
    uint64_t conn = open_conn(p);
    struct pipeline_request r[3];

    for (int i = 0; i < 3; i++) {
        feed_frame(p, conn, KEY_PRODUCE, 3000, PIECE);
        cr_assert(pipeline_next(p, &r[i]));
        cr_assert_eq(pipeline_input_used(p), PIECE);
    }
    answer(p, r[1].id, "a");
    cr_assert_eq(pipeline_input_used(p), PIECE);
    pipeline_close(p, conn);
    pipeline_check(p);
    cr_assert_eq(pipeline_input_used(p), PIECE, "they run on");
    answer(p, r[0].id, "a");
    cr_assert_eq(pipeline_input_used(p), PIECE);
    answer(p, r[2].id, "a");
    cr_assert_eq(pipeline_input_used(p), 0);
    pipeline_free(p);
}

/* Requests that may be parked for long do not lie in a piece. */
Test(pipeline_memory, others_than_produce_are_copied_out)
{
    struct pipeline_options o = options();
    struct kit_memory memory = {.room = PIECE};
    kit_use(&o, &memory);
    struct pipeline *p = pipeline_new(&o);
    uint64_t conn = open_conn(p);
    struct pipeline_request r;

    feed_frame(p, conn, KEY_OTHER, 30000, PIECE);
    cr_assert(pipeline_next(p, &r));
    check_frame(&r, 30000);
    cr_assert_not(kit_is_given(&r));
    cr_assert_eq(pipeline_input_used(p), 30000);
    answer(p, r.id, "a");
    cr_assert_eq(memory.given, 1);
    pipeline_free(p);
}

/* The bytes of a request that somebody still reads are not written over. */
Test(pipeline_memory, a_count_keeps_the_bytes)
{
    struct pipeline_options o = options();
    struct kit_memory memory = {.room = 8 << 20};
    kit_use(&o, &memory);
    struct pipeline *p = pipeline_new(&o);
    uint64_t conn = open_conn(p);
    struct ref kept[40];
    struct pipeline_request r;

    for (int i = 0; i < 40; i++) {
        feed_frame(p, conn, KEY_PRODUCE, 3000 + (uint32_t)i * 400, PIECE);
        cr_assert(pipeline_next(p, &r));
        kept[i] = ref_inline(r.frame, r.owner);
        answer(p, r.id, "a");
    }
    pipeline_free(p);
    for (int i = 0; i < 40; i++) {
        struct slice bytes = ref_bytes(&kept[i]);
        for (size_t n = 8; n < bytes.size; n++)
            cr_assert_eq(bytes.data[n], 'x');
        ref_release(&kept[i]);
    }
    cr_assert_eq(memory.taken, 0);
}

static void feed_length(struct pipeline *p, uint64_t conn, uint32_t size)
{
    struct buf b = {0};

    put_u32(buf_grow(&b, 4), size);
    buf_append(&b, "0123", 4);
    cr_assert_eq(feed(p, conn, &b, b.size, 0), 8);
    buf_free(&b);
}

/* Lengths without their frames may claim half of the shared memory; after that the heap serves. */
Test(pipeline_memory, lengths_alone_leave_room_for_others)
{
    struct pipeline_options o = options();
    struct kit_memory memory = {.room = 2 << 20};
    kit_use(&o, &memory);
    struct pipeline *p = pipeline_new(&o);
    uint64_t conns[3];

    for (int i = 0; i < 3; i++) {
        conns[i] = open_conn(p);
        feed_length(p, conns[i], 600000);
    }
    cr_assert_lt(memory.taken, 600000 + 4096 + PIECE + 1, "one of three, and the piece");
    cr_assert_eq(pipeline_input_used(p), 3 * 4);
    pipeline_close(p, conns[0]);
    pipeline_check(p);
    feed_length(p, open_conn(p), 600000);
    cr_assert_gt(memory.taken, 600000, "the room is free again");
    pipeline_free(p);
    cr_assert_eq(memory.taken, 0);
}

Test(pipeline_memory, full_memory_leaves_the_heap)
{
    struct pipeline_options o = options();
    struct kit_memory memory = {.room = PIECE + 300000};
    o.input_budget_bytes = o.conn_input_max_bytes = 4 << 20;
    kit_use(&o, &memory);
    struct pipeline *p = pipeline_new(&o);
    uint64_t conn = open_conn(p);
    struct pipeline_request r[8];
    int given = 0;

    for (int i = 0; i < 8; i++) {
        cr_assert_eq(feed_frame(p, conn, KEY_PRODUCE, 100000, PIECE), 100004);
        cr_assert(pipeline_next(p, &r[i]));
        given += kit_is_given(&r[i]);
    }
    cr_assert(given > 0 && given < 4, "%d", given);
    for (int i = 0; i < 8; i++) {
        check_frame(&r[i], 100000);
        answer(p, r[i].id, "a");
    }
    pipeline_free(p);
    cr_assert_eq(memory.taken, 0);
}

/* ---- files ---- */

static struct ref_file *open_file(void)
{
    return ref_file_new(open("/dev/null", O_RDONLY | O_CLOEXEC), 5);
}

static struct pipeline_request fetched(struct pipeline *p, uint64_t conn)
{
    struct pipeline_request r;

    feed_frame(p, conn, KEY_OTHER, 20, 100);
    cr_assert(pipeline_next(p, &r));
    return r;
}

/* head, 100000 bytes of the file from 5000 on, tail */
static void answer_with_file(struct pipeline *p, uint64_t id, struct ref_file *file)
{
    struct ref pieces[] = {ref_copy(SLICE_OF("head")), ref_of_file(file, 5000, 100000), ref_copy(SLICE_OF("tail"))};

    pipeline_answer(p, id, PIPELINE_ANSWERED, pieces, 3);
    pipeline_check(p);
}

static void written(struct pipeline *p, uint64_t conn, size_t size)
{
    pipeline_written(p, conn, size, 0);
    pipeline_check(p);
}

Test(pipeline_files, bytes_then_file_then_bytes)
{
    struct pipeline_options o = options();
    struct pipeline *p = pipeline_new(&o);
    uint64_t conn = open_conn(p);
    struct ref_file *file = open_file();
    struct iovec v[4];
    struct pipeline_file f;

    answer_with_file(p, fetched(p, conn).id, file);
    cr_assert_eq(pipeline_output_room(p), o.output_budget_bytes - 8, "the file takes no memory");
    cr_assert_eq(pipeline_output(p, conn, v, 4, &f), 1);
    cr_assert_eq(v[0].iov_len, 4);
    cr_assert(f.fd == file->fd && f.position == 5000 && f.size_bytes == 100000);
    cr_assert_eq(pipeline_output(p, conn, v, 1, &f), 1);
    cr_assert_eq(f.size_bytes, 0, "it is not looked at beyond max");
    written(p, conn, 3);
    cr_assert_eq(pipeline_output(p, conn, v, 4, &f), 1);
    cr_assert(v[0].iov_len == 1 && f.size_bytes == 100000);
    written(p, conn, 1);
    cr_assert_eq(pipeline_output(p, conn, v, 4, &f), 0);
    cr_assert(f.position == 5000 && f.size_bytes == 100000);
    written(p, conn, 60000);
    cr_assert_eq(pipeline_output(p, conn, v, 4, &f), 0);
    cr_assert(f.position == 65000 && f.size_bytes == 40000);
    cr_assert_eq(file->owner.count, 2);
    written(p, conn, 40000);
    cr_assert_eq(file->owner.count, 1);
    cr_assert_eq(pipeline_output(p, conn, v, 4, &f), 1);
    cr_assert(memcmp(v[0].iov_base, "tail", 4) == 0 && f.size_bytes == 0);
    written(p, conn, 4);
    cr_assert_eq(pipeline_output(p, conn, v, 4, &f), 0);
    cr_assert_eq(f.size_bytes, 0);
    cr_assert_eq(pipeline_output_room(p), o.output_budget_bytes);
    pipeline_free(p);
    ref_owner_release(&file->owner);
}

/* Answers of files wait for their client like others: the next request does not run, and no memory is short. */
Test(pipeline_files, wait_for_a_slow_client)
{
    struct pipeline_options o = options();
    o.output_budget_bytes = 100;
    struct pipeline *p = pipeline_new(&o);
    uint64_t conn = open_conn(p);
    struct ref_file *file = open_file();
    struct pipeline_request r;

    answer_with_file(p, fetched(p, conn).id, file);
    feed_frame(p, conn, KEY_OTHER, 20, 100);
    cr_assert_not(pipeline_next(p, &r));
    pipeline_tick(p, o.idle_ms - 1);
    cr_assert_not(attention_of(p, conn).close, "files take no memory");
    pipeline_tick(p, o.idle_ms);
    cr_assert(attention_of(p, conn).close, "who takes nothing is idle, whatever was asked");
    pipeline_close(p, conn);
    pipeline_check(p);
    cr_assert_eq(file->owner.count, 1);
    cr_assert_eq(pipeline_output_room(p), o.output_budget_bytes);
    pipeline_free(p);
    ref_owner_release(&file->owner);
}

Test(pipeline_files, of_clients_that_went)
{
    struct pipeline_options o = options();
    struct pipeline *p = pipeline_new(&o);
    uint64_t conn = open_conn(p);
    struct ref_file *file = open_file();
    struct pipeline_request r = fetched(p, conn);
    uint64_t gone;

    pipeline_close(p, conn);
    cr_assert(pipeline_gone(p, &gone));
    answer_with_file(p, r.id, file);
    cr_assert_eq(file->owner.count, 1);
    conn = open_conn(p);
    answer_with_file(p, fetched(p, conn).id, file);
    pipeline_written(p, conn, 50, 0);
    pipeline_close(p, conn);
    cr_assert_eq(file->owner.count, 1);
    cr_assert_eq(pipeline_output_room(p), o.output_budget_bytes);
    pipeline_free(p);
    ref_owner_release(&file->owner);
}
