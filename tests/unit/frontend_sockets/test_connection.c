/* test_connection.c - bytes and parts of files between the pipeline and a TCP connection. */
#include "libs/base/bytes.h"
#include "libs/base/log.h"
#include "services/frontend/server.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { KEY = 3 };

static struct frontend f;
static int client;
static struct loop_timer *stop_timer;
static const struct listener listener = {.name = "PLAINTEXT"};

/* What the rest of the front end would do. */
void requests_report_gone(struct frontend *frontend UNUSED) {}
void listeners_resume(struct frontend *frontend UNUSED) {}

static bool overlaps(int16_t key UNUSED)
{
    return false;
}

static void on_reply(void *ctx UNUSED)
{
    connections_serve(&f);
}

static void on_stop(void *ctx UNUSED)
{
    stop_timer = loop_timer_stop(stop_timer);
    loop_stop(f.loop);
}

/* The loop for some ms. */
static void pass(uint64_t ms)
{
    stop_timer = loop_timer_start(f.loop, ms, 0, on_stop, NULL);
    loop_run(f.loop);
}

static int connect_pair(int send_buffer)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof a;
    int l = socket(AF_INET, SOCK_STREAM, 0);

    cr_assert_eq(bind(l, (struct sockaddr *)&a, size), 0);
    cr_assert_eq(listen(l, 1), 0);
    cr_assert_eq(getsockname(l, (struct sockaddr *)&a, &size), 0);
    client = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(client, SOL_SOCKET, SO_RCVBUF, &send_buffer, sizeof send_buffer);
    cr_assert_eq(connect(client, (struct sockaddr *)&a, size), 0);
    int served = accept4(l, NULL, NULL, SOCK_NONBLOCK);
    cr_assert_geq(served, 0);
    close(l);
    return served;
}

static void open_all(int32_t send_buffer)
{
    const struct pipeline_options o = {
        .frame_max_bytes = 1 << 20,
        .input_budget_bytes = 1 << 20,
        .output_budget_bytes = 1 << 20,
        .conn_requests_max = 4,
        .conn_input_max_bytes = 1 << 20,
        .output_resume_bytes = 1 << 20,
        .connections_max = 2,
        .per_ip_max = 2,
        .overlaps = overlaps,
    };
    struct sockaddr_in6 peer = {.sin6_family = AF_INET6};

    signal(SIGPIPE, SIG_IGN); /* as every service */
    log_set_level(LOG_DEBUG);
    f = (struct frontend){.loop = loop_new(), .pipeline = pipeline_new(&o), .send_buffer_bytes = send_buffer};
    f.receive_buffer_bytes = -1;
    loop_hook(f.loop, LOOP_REPLY, on_reply, NULL);
    connection_open(&f, &listener, connect_pair(send_buffer), &peer);
}

static void close_all(void)
{
    connections_close(&f);
    pipeline_free(f.pipeline);
    free(f.connections.items);
    close(client);
    loop_free(f.loop);
}

/* One request of the client, as it runs. */
static uint64_t ask(void)
{
    uint8_t frame[24] = {0};
    struct pipeline_request r;

    put_u32(frame, 20);
    put_i16(frame + 4, KEY);
    cr_assert_eq(write(client, frame, sizeof frame), (ssize_t)sizeof frame);
    for (int i = 0; i < 100 && !pipeline_next(f.pipeline, &r); i++)
        pass(5);
    return r.id;
}

static struct ref_file *make_file(size_t size)
{
    int fd = memfd_create("file", MFD_CLOEXEC);
    uint8_t *data;

    cr_assert_eq(ftruncate(fd, (off_t)size), 0);
    data = mmap(NULL, size, PROT_WRITE, MAP_SHARED, fd, 0);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    munmap(data, size);
    return ref_file_new(fd, 1);
}

/* Reads what is there, runs the loop in between; the bytes until size or the end. */
static size_t receive(uint8_t *to, size_t size, size_t chunk)
{
    size_t got = 0;

    for (int quiet = 0; got < size && quiet < 100;) {
        ssize_t n = recv(client, to + got, MIN(chunk, size - got), MSG_DONTWAIT);
        if (n == 0)
            break;
        if (n < 0) {
            quiet++;
            pass(2);
            continue;
        }
        quiet = 0;
        got += (size_t)n;
    }
    return got;
}

static void answer(uint64_t id, struct ref_file *file, uint64_t at, uint64_t size)
{
    struct ref pieces[] = {ref_copy(SLICE_OF("head")), ref_of_file(file, at, size), ref_copy(SLICE_OF("middle")),
                           ref_of_file(file, at + 1, size), ref_copy(SLICE_OF("tail"))};

    pipeline_answer(f.pipeline, id, PIPELINE_ANSWERED, pieces, COUNTOF(pieces));
}

static void expect(const uint8_t **at, const char *text)
{
    cr_assert_eq(memcmp(*at, text, strlen(text)), 0, "%s", text);
    *at += strlen(text);
}

static void expect_file(const uint8_t **at, uint64_t from, uint64_t size)
{
    for (uint64_t i = from; i < from + size; i++)
        cr_assert_eq(*(*at)++, (uint8_t)(i * 7 + i / 251), "%lu", i);
}

static void send_and_check(int32_t send_buffer, uint64_t size, size_t chunk)
{
    struct ref_file *file;
    size_t whole = 14 + 2 * size;
    uint8_t *bytes = xmalloc(whole + 1);
    const uint8_t *at = bytes;

    open_all(send_buffer);
    file = make_file(size + 1000);
    answer(ask(), file, 500, size);
    cr_assert_eq(receive(bytes, whole, chunk), whole);
    expect(&at, "head");
    expect_file(&at, 500, size);
    expect(&at, "middle");
    expect_file(&at, 501, size);
    expect(&at, "tail");
    cr_assert_eq(file->owner.count, 1, "nobody holds the file any more");
    uint64_t id = ask();
    struct ref last = ref_copy(SLICE_OF("last"));
    pipeline_answer(f.pipeline, id, PIPELINE_ANSWERED, &last, 1);
    cr_assert_eq(receive(bytes, 4, 4), 4, "the connection goes on");
    cr_assert_eq(memcmp(bytes, "last", 4), 0);
    free(bytes);
    close_all();
    ref_owner_release(&file->owner);
}

Test(connection, a_file_among_bytes)
{
    send_and_check(-1, 100000, 1 << 20);
}

Test(connection, a_file_in_many_parts)
{
    send_and_check(8192, 3000000, 50000);
}

Test(connection, a_short_file_ends_the_connection)
{
    uint8_t bytes[20000];

    open_all(-1);
    struct ref_file *file = make_file(10000);
    answer(ask(), file, 0, 12000);
    cr_assert_eq(receive(bytes, sizeof bytes, sizeof bytes), 4 + 10000, "what there is, and the end");
    cr_assert_eq(pipeline_connections(f.pipeline), 0);
    cr_assert_eq(file->owner.count, 1);
    close_all();
    ref_owner_release(&file->owner);
}

Test(connection, a_client_that_goes_amid_a_file)
{
    open_all(8192);
    struct ref_file *file = make_file(3000001);
    answer(ask(), file, 0, 3000000);
    pass(20);
    cr_assert_eq(file->owner.count, 3, "two parts wait");
    shutdown(client, SHUT_RDWR);
    close(client);
    for (int i = 0; i < 100 && pipeline_connections(f.pipeline) > 0; i++)
        pass(5);
    cr_assert_eq(pipeline_connections(f.pipeline), 0);
    cr_assert_eq(file->owner.count, 1);
    client = -1;
    close_all();
    ref_owner_release(&file->owner);
}

/* Reading stops when enough is under way and goes on with the answers. */
Test(connection, back_pressure)
{
    uint8_t frame[24] = {0}, bytes[64];
    struct pipeline_request r;
    int answered = 0;

    open_all(-1);
    put_u32(frame, 20);
    put_i16(frame + 4, KEY);
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(write(client, frame, sizeof frame), (ssize_t)sizeof frame);
        pass(2);
    }
    for (int i = 0; i < 200 && answered < 20; i++) {
        while (pipeline_next(f.pipeline, &r)) {
            struct ref a = ref_copy(SLICE_OF("a"));
            pipeline_answer(f.pipeline, r.id, PIPELINE_ANSWERED, &a, 1);
            answered++;
        }
        pass(2);
    }
    cr_assert_eq(answered, 20);
    cr_assert_eq(receive(bytes, 20, 20), 20);
    close_all();
}
