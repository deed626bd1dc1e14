/* Producer ids: the InitProducerId rows of "Transactions" that need no transactional id, and the blocks. */
#include <criterion/criterion.h>

#include "kafka/init_producer_id.h"
#include "libs/base/kafka_error.h"
#include "libs/txns/txns.h"

static struct txns *core;
static struct txns_out out;

static void setup(void)
{
    core = txns_new(&(struct txns_config){.transaction_max_timeout_ms = 900000});
}

static void teardown(void)
{
    core = txns_free(core);
}

TestSuite(txns, .init = setup, .fini = teardown);

static void ask(uint64_t request, const char *id, int32_t timeout_ms, int64_t producer_id, int16_t epoch)
{
    struct kafka_init_producer_id_request q;
    kafka_init_producer_id_request_init(&q);
    q.transactional_id = slice_str(id);
    q.transaction_timeout_ms = timeout_ms;
    q.producer_id = producer_id;
    q.producer_epoch = epoch;
    txns_step(
        core,
        &(struct txns_event){.kind = TXNS_EVENT_INIT_PRODUCER_ID, .request = request, .api_version = 5, .message = &q},
        &out);
}

static void block(int64_t first, int32_t count)
{
    txns_step(core, &(struct txns_event){.kind = TXNS_EVENT_BLOCK, .first_id = first, .id_count = count}, &out);
}

static int refused(const char *id, int32_t timeout_ms, int64_t producer_id, int16_t epoch)
{
    ask(1, id, timeout_ms, producer_id, epoch);
    cr_assert_eq(out.actions[0].kind, TXNS_ACTION_REPLY);
    cr_expect_eq(out.actions[0].producer_id, -1);
    return out.actions[0].error;
}

Test(txns, malformed_fields)
{
    cr_expect_eq(refused("", 1000, -1, -1), KERR_INVALID_REQUEST);
    cr_expect_eq(refused("t", 0, -1, -1), KERR_INVALID_TRANSACTION_TIMEOUT);
    cr_expect_eq(refused("t", 900001, -1, -1), KERR_INVALID_TRANSACTION_TIMEOUT);
    cr_expect_eq(refused("t", 1000, 5, -1), KERR_INVALID_REQUEST);
    cr_expect_eq(refused(NULL, 1000, 5, -1), KERR_INVALID_REQUEST);
    cr_expect_eq(refused(NULL, 1000, -1, 5), KERR_INVALID_REQUEST);
    cr_expect_eq(refused("t", 1000, -1, -1), KERR_UNSUPPORTED_VERSION);
}

Test(txns, ids_come_out_of_blocks)
{
    ask(1, NULL, 0, -1, -1);
    cr_assert_eq(out.count, 1);
    cr_assert_eq(out.actions[0].kind, TXNS_ACTION_ALLOCATE);
    ask(2, NULL, 0, -1, -1);
    cr_assert_eq(out.count, 0, "one block is asked for at a time");
    block(5000, 1000);
    cr_assert_eq(out.count, 2);
    cr_expect_eq(out.actions[0].request, 1);
    cr_expect_eq(out.actions[0].producer_id, 5000);
    cr_expect_eq(out.actions[0].producer_epoch, 0);
    cr_expect_eq(out.actions[0].error, 0);
    cr_expect_eq(out.actions[1].producer_id, 5001);
    int asked = 0;
    for (int64_t i = 2; i < 1000; i++) {
        ask(3, NULL, 0, -1, -1);
        cr_assert_eq(out.actions[0].producer_id, 5000 + i);
        asked += out.count == 2;
    }
    cr_expect_eq(asked, 1, "the next block is asked for in time");
    block(9000, 1000);
    cr_expect_eq(out.count, 0);
    ask(4, NULL, 0, -1, -1);
    cr_expect_eq(out.actions[0].producer_id, 9000);
}

Test(txns, no_block)
{
    ask(1, NULL, 0, -1, -1);
    txns_step(core, &(struct txns_event){.kind = TXNS_EVENT_BLOCK_FAILED}, &out);
    cr_assert_eq(out.count, 1);
    cr_expect_eq(out.actions[0].error, KERR_COORDINATOR_LOAD_IN_PROGRESS);
    ask(2, NULL, 0, -1, -1);
    cr_assert_eq(out.actions[0].kind, TXNS_ACTION_ALLOCATE, "the next request tries again");
    block(INT64_MAX - 1, 1000);
    cr_assert_eq(out.count, 1, "a block that makes no sense is none");
    cr_expect_eq(out.actions[0].error, KERR_COORDINATOR_LOAD_IN_PROGRESS);
}

Test(txns, waiting_is_bounded)
{
    for (uint64_t i = 1; i <= TXNS_WAITING_MAX; i++)
        ask(i, NULL, 0, -1, -1);
    ask(TXNS_WAITING_MAX + 1, NULL, 0, -1, -1);
    cr_assert_eq(out.count, 1);
    cr_expect_eq(out.actions[0].error, KERR_COORDINATOR_LOAD_IN_PROGRESS);
    block(0, 1000);
    cr_expect_eq(out.count, 1001, "a thousand answers, and the next block is asked for");
}
