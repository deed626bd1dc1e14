/* test_fetch.c - Fetch from the client's bytes to the Reads that it makes, and back: sessions, several nodes, leaders
 * that change, files. */
#include "kafka/apis.h"
#include "tests/unit/frontend/fetches.h"

#include <criterion/criterion.h>
#include <sys/mman.h>
#include <unistd.h>

TestSuite(fetch, .init = world_open, .fini = world_close);

Test(fetch, fetch_session_from_full_to_incremental)
{
    static const struct asked both[] = {{0, 5}, {1, 6}}, moved[] = {{0, 7}};

    send_fetch(18, 1, 0, 0, both, 2);
    const Karst__Bus__ReadRequest *q = world_calls[0].body;
    cr_assert(q->max_wait_ms == 500 && q->min_bytes == 1 && q->max_bytes == 100000 && q->n_partitions == 2);
    cr_assert_eq(q->partitions[0]->known_high_watermark, -2);
    reply_reads(0, 9, 2, "recordbytes");
    const struct kafka_fetch_response *a = fetched(18, 1);
    cr_assert_neq(a->session_id, 0);
    int32_t id = a->session_id;
    cr_assert_eq(a->responses[0].partitions_count, 2);
    cr_assert(slice_eq_str(a->responses[0].partitions[0].records, "recordbytes"));
    cr_assert_eq(a->responses[0].partitions[1].records.size, 0);
    cr_assert_not_null(a->responses[0].partitions[1].records.data, "empty, not null");

    send_fetch(18, 2, id, 1, moved, 1);
    q = world_calls[1].body;
    cr_assert_eq(q->n_partitions, 2);
    cr_assert_eq(q->partitions[0]->fetch_offset, 7);
    cr_assert_eq(q->partitions[0]->known_high_watermark, 9);
    reply_reads(1, 9, 2, NULL);
    a = fetched(18, 2);
    cr_assert_eq(a->session_id, id);
    cr_assert_eq(a->responses_count, 0, "nothing changed");

    send_fetch(18, 3, id, 1, NULL, 0);
    a = fetched(18, 3);
    cr_assert(a->error_code == KERR_INVALID_FETCH_SESSION_EPOCH && a->session_id == 0 && a->responses_count == 0);
    send_fetch(12, 4, id, 2, NULL, 0);
    cr_assert_eq(fetched(12, 4)->error_code, KERR_FETCH_SESSION_TOPIC_ID_ERROR);

    send_fetch(18, 5, id, 2, NULL, 0);
    reply_reads(2, 10, 2, NULL);
    a = fetched(18, 5);
    cr_assert_eq(a->responses[0].partitions_count, 2, "the high watermark has moved");
    send_fetch(18, 6, id, -1, both, 1);
    reply_reads(3, 10, 1, NULL);
    cr_assert_eq(fetched(18, 6)->session_id, 0);
    send_fetch(18, 7, id, 3, NULL, 0);
    cr_assert_eq(fetched(18, 7)->error_code, KERR_FETCH_SESSION_ID_NOT_FOUND);
}

Test(fetch, fetch_errors_of_our_own)
{
    static const struct asked bad[] = {{2, 0}, {99, 0}};

    send_fetch(12, 1, 0, -1, bad, 2);
    const struct kafka_fetch_response *a = fetched(12, 1);
    cr_assert_eq(world_call_count, 0, "nothing to wait for");
    cr_assert_eq(a->responses[0].partitions[0].error_code, KERR_NOT_LEADER_OR_FOLLOWER);
    cr_assert_eq(a->responses[0].partitions[1].error_code, KERR_UNKNOWN_TOPIC_OR_PARTITION);
    cr_assert_eq(a->responses[0].partitions[1].high_watermark, -1);
}

Test(fetch, fetch_asks_again_within_its_wait)
{
    static const struct asked one[] = {{0, 5}};

    send_fetch(12, 1, 0, -1, one, 1);
    world_end_call(0, KARST__BUS__OUTCOME__OUTCOME_UNKNOWN);
    cr_assert_eq(world_call_count, 1);
    world_pass(100);
    cr_assert_eq(world_call_count, 2);
    const Karst__Bus__ReadRequest *q = world_calls[1].body;
    cr_assert_eq(q->max_wait_ms, 400);
    world_pass(500);
    world_end_call(1, KARST__BUS__OUTCOME__OUTCOME_UNKNOWN);
    cr_assert_eq(fetched(12, 1)->responses[0].partitions[0].error_code, KERR_NOT_LEADER_OR_FOLLOWER);
}

Test(fetch, fetch_of_two_nodes)
{
    static const struct asked two[] = {{0, 5}, {3, 5}};

    send_fetch(12, 1, 0, -1, two, 2);
    cr_assert_eq(world_call_count, 2);
    const Karst__Bus__ReadRequest *q = world_calls[0].body;
    cr_assert_eq(q->max_bytes, 50000);
    size_t to_1 = world_calls[0].peer == 1 ? 0 : 1;
    reply_reads(to_1, 9, 1, "data");
    cr_assert_null(world_receive(KAFKA_API_FETCH, 12, NULL), "the other may have data, too");
    world_pass(10);
    cr_assert(world_calls[1 - to_1].cancelled);
    world_end_call(1 - to_1, KARST__BUS__OUTCOME__OUTCOME_CANCELLED);
    cr_assert_eq(world_call_count, 3, "asked for what it has");
    q = world_calls[2].body;
    cr_assert(world_calls[2].peer == 2 && q->max_wait_ms == 0 && q->n_partitions == 1);
    reply_reads(2, 7, 1, NULL);
    const struct kafka_fetch_response *a = fetched(12, 1);
    cr_assert(slice_eq_str(a->responses[0].partitions[0].records, "data"));
    cr_assert_eq(a->responses[0].partitions[1].error_code, KERR_NONE);
    cr_assert_eq(a->responses[0].partitions[1].high_watermark, 7);
}

/* A node that does not even tell what it has keeps nobody waiting. */
Test(fetch, fetch_of_two_nodes_of_which_one_is_silent)
{
    static const struct asked two[] = {{0, 5}, {3, 5}};

    send_fetch(12, 1, 0, -1, two, 2);
    size_t to_1 = world_calls[0].peer == 1 ? 0 : 1;
    reply_reads(to_1, 9, 1, "data");
    world_pass(10);
    world_end_call(1 - to_1, KARST__BUS__OUTCOME__OUTCOME_CANCELLED);
    cr_assert_eq(world_call_count, 3);
    cr_assert_null(world_receive(KAFKA_API_FETCH, 12, NULL));
    world_pass(60);
    cr_assert(world_calls[2].cancelled);
    world_end_call(2, KARST__BUS__OUTCOME__OUTCOME_CANCELLED);
    const struct kafka_fetch_response *a = fetched(12, 1);
    cr_assert(slice_eq_str(a->responses[0].partitions[0].records, "data"));
    cr_assert_eq(a->responses[0].partitions[1].error_code, KERR_NOT_LEADER_OR_FOLLOWER);
}

/* A parked Read goes to the new leader, which says whether the client may read on. */
Test(fetch, fetch_moves_with_the_leader)
{
    static const struct asked two[] = {{0, 5}, {1, 6}};

    send_fetch(18, 1, 0, 0, two, 2);
    world_lead(0, 2);
    cr_assert(world_calls[0].cancelled && world_call_count == 1);
    world_end_call(0, KARST__BUS__OUTCOME__OUTCOME_CANCELLED);
    cr_assert_eq(world_call_count, 3);
    size_t to_2 = world_calls[1].peer == 2 ? 1 : 2;
    const Karst__Bus__ReadRequest *q = world_calls[to_2].body;
    cr_assert(q->n_partitions == 1 && q->partitions[0]->partition == 0 && q->partitions[0]->fetch_offset == 5);
    reply_read_with(to_2, KERR_FENCED_LEADER_EPOCH, 0);
    reply_reads(to_2 == 1 ? 2 : 1, 9, 1, NULL);
    const struct kafka_fetch_response *a = fetched(18, 1);
    const struct kafka_fetch_response_partition_data *p = a->responses[0].partitions;
    cr_assert(p[0].error_code == KERR_FENCED_LEADER_EPOCH && p[0].current_leader.leader_id == 2);
    cr_assert_eq(p[0].current_leader.leader_epoch, 5);
    cr_assert(p[1].error_code == KERR_NONE && p[1].current_leader.leader_id == -1);
    cr_assert_eq(a->node_endpoints_count, 1);
    cr_assert_eq(a->node_endpoints[0].node_id, 2);
}

/* What waits for a dead node goes on at once when another leads; of those who are not concerned nobody notices. */
Test(fetch, fetch_leaves_a_dead_leader)
{
    static const struct asked one[] = {{0, 5}}, other[] = {{1, 5}};

    send_fetch(12, 1, 0, -1, one, 1);
    world_end_call(0, KARST__BUS__OUTCOME__OUTCOME_UNKNOWN); /* and it would be asked again */
    world_lead(0, 2);
    cr_assert_eq(world_call_count, 2);
    cr_assert_eq(world_calls[1].peer, 2);
    reply_reads(1, 9, 1, "data");
    cr_assert(slice_eq_str(fetched(12, 1)->responses[0].partitions[0].records, "data"));
    send_fetch(12, 2, 0, -1, other, 1);
    world_lead(0, 1);
    cr_assert(!world_calls[2].cancelled);
    world_lead(1, -1); /* nobody leads: it waits on for the one that did */
    cr_assert(!world_calls[2].cancelled);
    reply_reads(2, 9, 1, NULL);
    (void)fetched(12, 2);
}

/* The end of the call to the old leader may have been on its way already. */
Test(fetch, fetch_moves_however_its_read_ends)
{
    static const struct asked one[] = {{0, 5}};

    send_fetch(12, 1, 0, -1, one, 1);
    world_lead(0, 2);
    world_end_call(0, KARST__BUS__OUTCOME__OUTCOME_NOT_SENT);
    cr_assert_eq(world_call_count, 2);
    cr_assert_eq(world_calls[1].peer, 2);
    reply_reads(1, 9, 1, "data");
    cr_assert(slice_eq_str(fetched(12, 1)->responses[0].partitions[0].records, "data"));
}

/* A set that a node keeps of the session is given up with the leader of one of its partitions. */
Test(fetch, fetch_set_moves_with_a_leader)
{
    static const struct asked eight[] = {{0, 1}, {1, 1}, {4, 1}, {5, 1}, {6, 1}, {7, 1}, {8, 1}, {9, 1}};

    send_fetch(18, 1, 0, 0, eight, 8);
    reply_reads(0, 9, 8, NULL);
    int32_t id = fetched(18, 1)->session_id;
    send_fetch(18, 2, id, 1, NULL, 0);
    const Karst__Bus__ReadRequest *q = world_calls[1].body;
    cr_assert(q->set_new && q->n_partitions == 8);
    world_lead(9, 2);
    cr_assert(world_calls[1].cancelled);
    world_end_call(1, KARST__BUS__OUTCOME__OUTCOME_CANCELLED);
    cr_assert_eq(world_call_count, 4);
    for (size_t i = 2; i < 4; i++) {
        q = world_calls[i].body;
        cr_assert_eq(q->set_id, 0);
        cr_assert_eq(q->n_partitions, world_calls[i].peer == 1 ? 7 : 1);
        reply_reads(i, 10, q->n_partitions, NULL);
    }
    const struct kafka_fetch_response *a = fetched(18, 2);
    int32_t told = 0;
    for (int32_t i = 0; i < a->responses_count; i++)
        told += a->responses[i].partitions_count;
    cr_assert_eq(told, 8, "the high watermark has moved");
}

Test(fetch, fetch_ends_with_its_client)
{
    static const struct asked one[] = {{0, 5}};

    send_fetch(12, 1, 0, -1, one, 1);
    world_hang_up();
    cr_assert(world_calls[0].cancelled);
    world_end_call(0, KARST__BUS__OUTCOME__OUTCOME_CANCELLED);
    cr_assert_eq(pipeline_running(world.pipeline), 0);
    cr_assert_null(world.parked);
}

Test(fetch, fetch_ends_at_the_drain)
{
    static const struct asked one[] = {{0, 5}};

    send_fetch(12, 1, 0, -1, one, 1);
    world_end_call(0, KARST__BUS__OUTCOME__OUTCOME_UNKNOWN);
    fetch_drain(&world);
    cr_assert_null(world.parked);
    cr_assert(world_is_closed());
}

/* A part of a file goes to the client as it is, between the bytes of the answer. */
Test(fetch, fetch_of_a_file)
{
    static const struct asked two[] = {{0, 5}, {1, 5}};
    char text[30000];
    int fd = memfd_create("segment", MFD_CLOEXEC);
    Karst__Bus__ReadReply reply = KARST__BUS__READ_REPLY__INIT;
    Karst__Bus__ReadResult results[2], *list[2] = {&results[0], &results[1]};

    memset(text, 'z', sizeof text);
    cr_assert_eq(pwrite(fd, text, sizeof text, 100), (ssize_t)sizeof text);
    struct ref_file *file = ref_file_new(fd, 3);
    struct ref part = ref_of_file(file, 100, sizeof text);
    for (int i = 0; i < 2; i++) {
        karst__bus__read_result__init(&results[i]);
        results[i].payload = 0;
        results[i].diverging_epoch = results[i].leader_id = -1;
    }
    reply.n_results = 2;
    reply.results = list;
    send_fetch(12, 1, 0, -1, two, 2);
    world_reply_read_ref(0, &reply, &part);
    const struct kafka_fetch_response *a = fetched(12, 1);
    for (int i = 0; i < 2; i++) {
        struct slice records = a->responses[0].partitions[i].records;
        cr_assert_eq(records.size, sizeof text);
        cr_assert_eq(memcmp(records.data, text, sizeof text), 0);
    }
    ref_release(&part);
    cr_assert_eq(file->owner.count, 1);
    ref_owner_release(&file->owner);
}

static void reply_set(size_t call, uint32_t index, int64_t hw, const char *records)
{
    Karst__Bus__ReadReply reply = KARST__BUS__READ_REPLY__INIT;
    Karst__Bus__ReadResult result = KARST__BUS__READ_RESULT__INIT, *list = &result;

    result.high_watermark = hw;
    result.index = index;
    result.payload = records != NULL ? 0 : -1;
    result.diverging_epoch = result.leader_id = -1;
    reply.n_results = 1;
    reply.results = &list;
    world_reply_read(call, &reply, records);
}

static void reply_set_unknown(size_t call)
{
    Karst__Bus__ReadReply reply = KARST__BUS__READ_REPLY__INIT;

    reply.set_unknown = true;
    world_reply_read(call, &reply, NULL);
}

/* The node keeps a session's partitions: Reads name changes, answers what there is to tell. */
Test(fetch, fetch_of_a_set)
{
    static const struct asked all[] = {{0, 5}, {1, 5}, {4, 5}, {5, 5}, {6, 5}, {7, 5}, {8, 5}, {9, 5}, {10, 5}},
                              moved[] = {{6, 9}}, away[] = {{3, 1}};

    send_fetch(18, 1, 0, 0, all, 9);
    reply_reads(0, 9, 9, NULL);
    int32_t id = fetched(18, 1)->session_id;
    send_fetch(18, 2, id, 1, NULL, 0);
    const Karst__Bus__ReadRequest *q = world_calls[1].body;
    cr_assert(q->set_id != 0 && q->set_new && q->n_partitions == 9);
    uint64_t set = q->set_id;
    uint32_t index = q->partitions[4]->index;
    cr_assert_eq(q->partitions[4]->partition, 6);
    reply_set(1, index, 12, "news");
    const struct kafka_fetch_response *a = fetched(18, 2);
    cr_assert(a->responses_count == 1 && a->responses[0].partitions_count == 1);
    cr_assert_eq(a->responses[0].partitions[0].partition_index, 6);
    cr_assert(slice_eq_str(a->responses[0].partitions[0].records, "news"));

    send_fetch(18, 3, id, 2, moved, 1);
    q = world_calls[2].body;
    cr_assert(q->set_id == set && !q->set_new && q->n_partitions == 1);
    cr_assert(q->partitions[0]->index == index && q->partitions[0]->fetch_offset == 9);
    cr_assert_eq(q->partitions[0]->known_high_watermark, 12);
    reply_set(2, 4000000000, 1, NULL); /* of nobody: a peer's mistake */
    cr_assert_eq(fetched(18, 3)->responses_count, 0);

    send_fetch(18, 4, id, 3, NULL, 0);
    reply_set_unknown(3);
    q = world_calls[4].body;
    cr_assert(q->set_id == 0 && q->n_partitions == 9, "all, in the same Fetch");
    reply_reads(4, 12, 9, NULL);
    cr_assert_eq(fetched(18, 4)->responses[0].partitions_count, 8);

    send_fetch(18, 5, id, 4, NULL, 0);
    q = world_calls[5].body;
    cr_assert(q->set_new && q->set_id != set, "another one");
    world_end_call(5, KARST__BUS__OUTCOME__OUTCOME_UNKNOWN);
    q = world_calls[6].body;
    cr_assert(q->set_id == 0 && q->n_partitions == 9);
    reply_reads(6, 12, 9, NULL);
    (void)fetched(18, 5);

    send_fetch(18, 6, id, 5, away, 1);
    cr_assert_eq(world_call_count, 9, "one of another node: as without a set");
    q = world_calls[7].body;
    cr_assert_eq(q->set_id, 0);
}

/* New metadata, and a client that goes, end a set. */
Test(fetch, fetch_of_a_set_that_is_given_up)
{
    static const struct asked all[] = {{0, 5}, {1, 5}, {4, 5}, {5, 5}, {6, 5}, {7, 5}, {8, 5}, {9, 5}, {10, 5}};

    send_fetch(18, 1, 0, 0, all, 9);
    reply_reads(0, 9, 9, NULL);
    int32_t id = fetched(18, 1)->session_id;
    send_fetch(18, 2, id, 1, NULL, 0);
    reply_set_unknown(1);
    reply_reads(2, 9, 9, NULL);
    (void)fetched(18, 2);
    send_fetch(18, 3, id, 2, NULL, 0);
    const Karst__Bus__ReadRequest *q = world_calls[3].body;
    cr_assert(q->set_id == 0 && q->n_partitions == 9, "the node has no room: not asked again");
    session_interest(session_find(world.sessions, id))->refused = false;
    reply_reads(3, 9, 9, NULL);
    (void)fetched(18, 3);
    send_fetch(18, 4, id, 3, NULL, 0);
    reply_set(4, 0, 9, NULL);
    (void)fetched(18, 4);
    world.leaders_number++;
    send_fetch(18, 5, id, 4, NULL, 0);
    q = world_calls[5].body;
    cr_assert(q->set_new && q->n_partitions == 9);
    world_hang_up();
    world_end_call(5, KARST__BUS__OUTCOME__OUTCOME_CANCELLED);
    cr_assert_eq(session_interest(session_find(world.sessions, id))->id, 0);
    cr_assert_null(world.parked);
}

/* What a session remembers takes memory with each Fetch. */
Test(fetch, fetch_is_charged_for_its_partitions)
{
    static const struct asked two[] = {{0, 5}, {1, 5}};

    send_fetch(18, 1, 0, 0, two, 2);
    reply_reads(0, 9, 2, NULL);
    int32_t id = fetched(18, 1)->session_id;
    cr_assert_eq(pipeline_input_used(world.pipeline), 0);
    send_fetch(18, 2, id, 1, NULL, 0);
    cr_assert_gt(pipeline_input_used(world.pipeline), 2 * 272);
    reply_reads(1, 9, 2, NULL);
    cr_assert_eq(fetched(18, 2)->error_code, 0);
    cr_assert_eq(pipeline_input_used(world.pipeline), 0);
}

/* Memory is short: a long poll of many partitions ends, a small one goes on. */
Test(fetch, fetch_gives_way_when_it_takes_much)
{
    static const struct asked one[] = {{0, 5}};
    enum { MANY = 600 };
    struct kafka_fetch_request q;
    struct kafka_fetch_request_fetch_topic t;
    struct kafka_fetch_request_fetch_partition p[MANY];

    kafka_fetch_request_init(&q);
    kafka_fetch_request_fetch_topic_init(&t);
    q.max_wait_ms = 1000000;
    q.min_bytes = 1;
    q.max_bytes = 1000;
    q.session_epoch = -1;
    q.topics = &t;
    q.topics_count = 1;
    t.topic = SLICE_OF("a");
    t.partitions = p;
    t.partitions_count = MANY;
    for (int32_t i = 0; i < MANY; i++) {
        kafka_fetch_request_fetch_partition_init(&p[i]);
        p[i].partition = i;
    }
    world_send(KAFKA_API_FETCH, 12, 1, &q);
    size_t calls = world_call_count;
    cr_assert_eq(calls, 2);
    fetch_relieve(&world);
    fetch_relieve(&world);
    for (size_t i = 0; i < calls; i++) {
        cr_assert(world_calls[i].cancelled);
        world_end_call(i, KARST__BUS__OUTCOME__OUTCOME_CANCELLED);
    }
    const struct kafka_fetch_response *a = fetched(12, 1);
    cr_assert_eq(a->responses[0].partitions_count, MANY);
    cr_assert_eq(a->responses[0].partitions[0].error_code, KERR_NOT_LEADER_OR_FOLLOWER);
    send_fetch(12, 2, 0, -1, one, 1);
    fetch_relieve(&world);
    cr_assert_not(world_calls[2].cancelled);
}
