/* The ring by itself: order, wrapping, flags, and a peer who breaks its rules. */
#include "libs/bus/ring.h"

#include <criterion/criterion.h>
#include <stdlib.h>

enum { CAPACITY = RING_CAPACITY_MIN };

static struct ring_shared shared;
static uint8_t data[CAPACITY];
static struct ring_writer writer;
static struct ring_reader reader;

static void begin(void)
{
    memset(&shared, 0, sizeof shared);
    ring_writer_init(&writer, &shared, data, CAPACITY);
    ring_reader_init(&reader, &shared, data, CAPACITY);
}

TestSuite(ring, .init = begin);

static uint64_t room(void)
{
    uint64_t n = 0;

    cr_assert_eq(ring_room(&writer, CAPACITY, &n), 0);
    return n;
}

static uint64_t available(void)
{
    uint64_t n = 0;

    cr_assert_eq(ring_available(&reader, &n), 0);
    return n;
}

static void write_bytes(size_t size)
{
    static uint8_t zeros[CAPACITY];

    ring_write(&writer, zeros, size);
}

static void read_bytes(size_t size)
{
    static uint8_t somewhere[CAPACITY];

    ring_read(&reader, somewhere, size);
}

Test(ring, capacities_are_powers_of_two_within_bounds)
{
    cr_expect(ring_is_capacity(4096) && ring_is_capacity(65536) && ring_is_capacity(RING_CAPACITY_MAX));
    cr_expect(!ring_is_capacity(0) && !ring_is_capacity(2048) && !ring_is_capacity(5000));
    cr_expect(!ring_is_capacity((uint64_t)RING_CAPACITY_MAX * 2) && !ring_is_capacity(UINT64_C(1) << 63));
}

Test(ring, bytes_come_out_in_order_across_the_end)
{
    uint8_t sent = 0, expected = 0;

    srand(7);
    for (int i = 0; i < 20000; i++) {
        uint8_t some[700];
        size_t n = MIN((size_t)rand() % sizeof some, room());
        for (size_t j = 0; j < n; j++)
            some[j] = sent++;
        ring_write(&writer, some, n);
        (void)!ring_publish(&writer);
        n = MIN((size_t)rand() % sizeof some, available());
        ring_read(&reader, some, n);
        (void)!ring_release(&reader);
        for (size_t j = 0; j < n; j++)
            cr_assert_eq(some[j], expected++);
    }
}

Test(ring, what_is_not_published_is_not_there_and_what_is_not_released_is_not_free)
{
    write_bytes(100);
    cr_expect_eq(available(), 0);
    (void)!ring_publish(&writer);
    cr_expect_eq(available(), 100);
    cr_expect_eq(room(), CAPACITY - 100);
    read_bytes(60);
    cr_expect_eq(room(), CAPACITY - 100);
    (void)!ring_release(&reader);
    cr_expect_eq(room(), CAPACITY - 40);
}

Test(ring, only_a_sleeping_reader_is_rung_for_and_once)
{
    write_bytes(1);
    cr_expect(!ring_publish(&writer), "it is awake");
    cr_expect(!ring_publish(&writer), "nothing new");
    cr_expect_eq(ring_sleep(&reader), 0, "there is something");
    cr_assert_eq(available(), 1);
    read_bytes(1);
    (void)!ring_release(&reader);
    cr_expect_eq(ring_sleep(&reader), 1);
    write_bytes(1);
    cr_expect(ring_publish(&writer));
    write_bytes(1);
    cr_expect(!ring_publish(&writer), "it was rung for already");
    ring_wake(&reader);
    cr_assert_eq(available(), 2);
    read_bytes(2);
    (void)!ring_release(&reader);
    cr_expect_eq(ring_sleep(&reader), 1);
    ring_wake(&reader);
    write_bytes(1);
    cr_expect(!ring_publish(&writer), "it woke by itself");
}

Test(ring, a_waiting_writer_is_rung_for_when_half_is_free)
{
    write_bytes(CAPACITY);
    (void)!ring_publish(&writer);
    cr_expect_eq(ring_wait(&writer), 0);
    cr_expect_eq(available(), CAPACITY);
    read_bytes(CAPACITY / 2 - 1);
    cr_expect(!ring_release(&reader), "too little");
    read_bytes(1);
    cr_expect(ring_release(&reader));
    cr_expect_eq(room(), CAPACITY / 2);
    read_bytes(1);
    cr_expect(!ring_release(&reader), "rung for already");
    cr_expect_eq(ring_wait(&writer), 1, "half is free");
}

Test(ring, a_writer_that_lies_about_its_position)
{
    static const uint64_t lies[] = {CAPACITY + 1, UINT64_MAX, UINT64_C(1) << 63, 99};

    for (size_t i = 0; i < COUNTOF(lies); i++) {
        uint64_t n = 0;
        begin();
        write_bytes(100);
        (void)!ring_publish(&writer);
        read_bytes(available());
        (void)!ring_release(&reader);
        shared.tail = 100 + lies[i];
        if (i == 3)
            shared.tail = 99; /* back */
        cr_expect_eq(ring_available(&reader, &n), -EPROTO);
        cr_expect_eq(ring_sleep(&reader), -EPROTO);
    }
}

Test(ring, a_reader_that_lies_about_its_position)
{
    static const uint64_t lies[] = {201, UINT64_MAX, 99};

    for (size_t i = 0; i < COUNTOF(lies); i++) {
        uint64_t n = 0;
        begin();
        write_bytes(100);
        (void)!ring_publish(&writer);
        read_bytes(available());
        (void)!ring_release(&reader);
        cr_assert_eq(room(), CAPACITY);
        write_bytes(100);
        (void)!ring_publish(&writer);
        shared.head = lies[i];
        cr_expect_eq(ring_room(&writer, CAPACITY, &n), -EPROTO);
        cr_expect_eq(ring_wait(&writer), -EPROTO);
    }
}
