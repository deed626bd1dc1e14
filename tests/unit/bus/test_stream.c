/* Messages through a ring: of all sizes, larger than the ring, in pieces, and from a peer who lies. */
#include "libs/bus/stream.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#include "libs/bus/link.h"

enum { CAPACITY = 2 * RING_CAPACITY_MIN, FRAMES = 400, PAYLOAD_MAX = 1 << 20 };

static struct ring_shared shared;
static uint8_t data[CAPACITY];
static struct ring_writer writer;
static struct ring_reader reader;
static struct stream_out out;
static struct stream_in in;

static void begin(void)
{
    memset(&shared, 0, sizeof shared);
    ring_writer_init(&writer, &shared, data, CAPACITY);
    ring_reader_init(&reader, &shared, data, CAPACITY);
    out = (struct stream_out){0};
    in = (struct stream_in){.payload_max = PAYLOAD_MAX};
}

static void end(void)
{
    stream_out_clear(&out);
    stream_in_clear(&in);
}

TestSuite(stream, .init = begin, .fini = end);

/* A message's bytes follow from its seed. */
static struct ref payload_of(unsigned seed, size_t size)
{
    uint8_t *bytes = xmalloc(size + 1);

    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(seed * 31 + i);
    return ref_take(bytes, size);
}

static void send_seeded(unsigned seed, const size_t *sizes, size_t count)
{
    uint8_t head[10], tail[3];
    struct ref frames[FRAMES];

    memset(head, (int)seed, sizeof head);
    memset(tail, (int)seed + 1, sizeof tail);
    for (size_t i = 0; i < count; i++)
        frames[i] = payload_of(seed + (unsigned)i, sizes[i]);
    struct stream_message m = {{head, sizeof head}, {tail, sizeof tail}, frames, count};
    cr_assert_eq(stream_send(&out, &writer, &m), 0);
    for (size_t i = 0; i < count; i++)
        ref_release(&frames[i]);
}

static void check_seeded(struct stream_arrival *a, unsigned seed, const size_t *sizes, size_t count)
{
    cr_assert_eq(a->frame0.size, 13);
    cr_assert_eq(a->frame0.data[9], (uint8_t)seed);
    cr_assert_eq(a->frame0.data[10], (uint8_t)(seed + 1));
    cr_assert_eq(a->frame_count, count);
    for (size_t i = 0; i < count; i++) {
        cr_assert_eq(a->frames[i].size_bytes, sizes[i]);
        for (size_t j = 0; j < sizes[i]; j++)
            cr_assert_eq(a->frames[i].bytes.data[j], (uint8_t)((seed + i) * 31 + j));
        ref_release(&a->frames[i]);
    }
}

/* What the adapter does in its turns, until a message is there. */
static int next_message(struct stream_arrival *ret_arrival)
{
    for (int i = 0; i < 100000; i++) {
        while (stream_flush(&out, &writer) == 1)
            (void)!ring_publish(&writer);
        (void)!ring_publish(&writer);
        int got = stream_receive(&in, &reader, ret_arrival);
        (void)!ring_release(&reader);
        if (got == STREAM_MESSAGE || got < 0)
            return got;
        if (got == STREAM_EMPTY && !stream_is_pending(&out))
            return got;
    }
    cr_assert_fail("no end");
    return 0;
}

Test(stream, messages_of_all_shapes_arrive_whole_and_in_order)
{
    static const size_t lasts[] = {0, 1, 2048, 2049, 8000, 8192, 70000, 1 << 20};
    struct stream_arrival a;

    srand(3);
    for (unsigned seed = 0; seed < 600; seed++) {
        size_t sizes[FRAMES], count = (size_t)rand() % 5;
        if (seed % 50 == 0)
            count = FRAMES;
        for (size_t i = 0; i < count; i++)
            sizes[i] = (size_t)rand() % 3000;
        if (count > 0)
            sizes[count - 1] = lasts[seed % COUNTOF(lasts)];
        send_seeded(seed, sizes, count);
        cr_assert_eq(next_message(&a), STREAM_MESSAGE, "message %u", seed);
        check_seeded(&a, seed, sizes, count);
        cr_assert_eq(out.position, reader.head);
    }
    cr_assert_eq(next_message(&a), STREAM_EMPTY);
}

Test(stream, what_has_no_room_waits_in_order)
{
    static const size_t sizes[] = {5000, 3000, 9};
    struct stream_arrival a;

    for (unsigned seed = 0; seed < 50; seed++)
        send_seeded(seed, sizes, COUNTOF(sizes));
    cr_expect(stream_is_pending(&out));
    for (unsigned seed = 0; seed < 50; seed++) {
        cr_assert_eq(next_message(&a), STREAM_MESSAGE);
        check_seeded(&a, seed, sizes, COUNTOF(sizes));
    }
    cr_expect(!stream_is_pending(&out));
}

static int given_back;
static void count_back(struct ref_owner *o)
{
    (void)o;
    given_back++;
}

Test(stream, what_waits_holds_its_frames_until_they_have_left)
{
    static uint8_t bytes[3 * CAPACITY];
    struct ref_owner owner;
    struct stream_arrival a;

    ref_owner_init(&owner, count_back);
    struct ref r = ref_inline(slice_make(bytes, sizeof bytes), &owner);
    ref_owner_release(&owner);
    struct stream_message m = {SLICE_EMPTY, SLICE_EMPTY, &r, 1};
    cr_assert_eq(stream_send(&out, &writer, &m), 0);
    cr_assert_eq(stream_send(&out, &writer, &m), 0);
    ref_release(&r);
    cr_expect_eq(given_back, 0);
    cr_assert_eq(next_message(&a), STREAM_MESSAGE);
    ref_release(&a.frames[0]);
    cr_expect_eq(given_back, 0);
    stream_out_clear(&out);
    cr_expect_eq(given_back, 1);
}

Test(stream, each_payload_has_an_owner_of_its_own)
{
    static const size_t sizes[] = {10, 0, 2000, 5000, 20, 2000, 2000, 2000, 2000, 2000, 2000, 2000, 2000, 2000};
    struct stream_arrival a;

    send_seeded(1, sizes, COUNTOF(sizes));
    cr_assert_eq(next_message(&a), STREAM_MESSAGE);
    for (size_t i = 0; i < a.frame_count; i++) {
        cr_assert_eq(a.frames[i].kind, REF_INLINE);
        cr_assert_eq(a.frames[i].owner->count, 1);
    }
    check_seeded(&a, 1, sizes, COUNTOF(sizes));
}

static void put_u32s(const uint32_t *v, size_t n)
{
    ring_write(&writer, v, n * sizeof *v);
    (void)!ring_publish(&writer);
}

Test(stream, counts_and_sizes_that_pass_the_bounds_end_it)
{
    static const uint32_t lies[][6] = {
        {0},
        {LINK_PAYLOADS_MAX + 2},
        {UINT32_MAX},
        {1, LINK_FRAME0_MAX + 1},
        {2, 4, PAYLOAD_MAX + 1},
        {2, 4, UINT32_MAX},
    };
    struct stream_arrival a;

    for (size_t i = 0; i < COUNTOF(lies); i++) {
        end();
        begin();
        put_u32s(lies[i], 6);
        cr_expect_eq(next_message(&a), -EBADMSG, "lie %zu", i);
    }
    end();
    begin();
    uint32_t many[10] = {8, 1};
    for (size_t i = 2; i < COUNTOF(many); i++)
        many[i] = PAYLOAD_MAX; /* each allowed, not all together */
    put_u32s(many, COUNTOF(many));
    cr_expect_eq(next_message(&a), -EBADMSG);
}

Test(stream, a_message_that_stops_in_the_middle_costs_nothing_to_clear)
{
    static const size_t sizes[] = {10, 20, 6000, 30};
    struct stream_arrival a;

    for (size_t cut = 1; cut < 6000; cut += 13) {
        end();
        begin();
        send_seeded(5, sizes, COUNTOF(sizes));
        stream_out_clear(&out);
        writer.tail = MIN(writer.tail, cut);
        (void)!ring_publish(&writer);
        int got;
        while ((got = stream_receive(&in, &reader, &a)) == STREAM_MORE)
            continue;
        cr_assert_eq(got, STREAM_EMPTY);
    }
}

Test(stream, bytes_that_come_one_by_one)
{
    static const size_t sizes[] = {3, 0, 2500};
    struct stream_arrival a;
    int messages = 0;

    send_seeded(9, sizes, COUNTOF(sizes));
    uint64_t all = writer.tail;
    for (uint64_t n = 1; n <= all; n++) {
        writer.tail = n;
        (void)!ring_publish(&writer);
        if (stream_receive(&in, &reader, &a) == STREAM_MESSAGE) {
            cr_assert_eq(n, all);
            check_seeded(&a, 9, sizes, COUNTOF(sizes));
            messages++;
        }
    }
    cr_expect_eq(messages, 1);
}
