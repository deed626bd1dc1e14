/* test_users.c - quotas, credentials and features as records. Answers are compared with Kafka's in
 * tests/acceptance/test_admin_requests.py. */
#include <openssl/evp.h>

#include "kafka/alter_client_quotas.h"
#include "kafka/alter_user_scram_credentials.h"
#include "kafka/client_quota_record.h"
#include "kafka/update_features.h"
#include "kafka/user_scram_credential_record.h"
#include "tests/unit/controller/help.h"

static struct help h;

static void open_it(void)
{
    help_open(&h);
}

static void close_it(void)
{
    help_close(&h);
}

TestSuite(users, .init = open_it, .fini = close_it);

/* The records that it took. */
static int64_t set_quota(double value, bool remove)
{
    struct kafka_alter_client_quotas_request_entity_data parts[] = {{SLICE_OF("user"), SLICE_OF("a")},
                                                                    {SLICE_OF("client-id"), SLICE_NULL}};
    struct kafka_alter_client_quotas_request_op_data op = {SLICE_OF("consumer_byte_rate"), value, remove};
    struct kafka_alter_client_quotas_request_entry_data entry = {
        .entity = parts, .entity_count = 2, .ops = &op, .ops_count = 1};
    struct kafka_alter_client_quotas_request q = {.entries = &entry, .entries_count = 1};
    struct kafka_alter_client_quotas_response p;
    controller_alter_client_quotas(h.c, &q, h.arena, &p);
    cr_assert_eq(p.entries[0].error_code, 0);
    return help_take(&h);
}

Test(users, quotas)
{
    /* Kafka has always written the parts in one order, but nothing holds it to that. */
    struct kafka_client_quota_record_entity_data turned[] = {{SLICE_OF("user"), SLICE_OF("a")},
                                                             {SLICE_OF("client-id"), SLICE_NULL}};
    struct kafka_client_quota_record of = {.entity = turned, .entity_count = 2, .key = SLICE_OF("consumer_byte_rate")};
    double value = 0;
    cr_assert_eq(set_quota(1, true), 0);
    cr_assert_eq(set_quota(10, false), 1);
    cr_assert_eq(set_quota(10, false), 0);
    cr_assert_eq(set_quota(11, false), 1);
    cr_assert(image_client_quota(controller_image(h.c), &of, &value) && value > 10.9 && value < 11.1);
    of.entity_count = 1;
    cr_assert_not(image_client_quota(controller_image(h.c), &of, &value));
    of.entity_count = 2;
    cr_assert_eq(set_quota(1, true), 1);
    cr_assert_not(image_client_quota(controller_image(h.c), &of, &value));
}

static void expect_keys(void *ctx, const struct kafka_user_scram_credential_record *m)
{
    char stored[64], server[64];
    *(int *)ctx += 1;
    EVP_EncodeBlock((uint8_t *)stored, m->stored_key.data, (int)m->stored_key.size);
    EVP_EncodeBlock((uint8_t *)server, m->server_key.data, (int)m->server_key.size);
    cr_assert_str_eq(stored, "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=");
    cr_assert_str_eq(server, "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=");
}

/* The example of RFC 7677. */
Test(users, scram_keys)
{
    static const uint8_t salt[] = {0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e,
                                   0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81};
    uint8_t salted[32];
    cr_assert_eq(PKCS5_PBKDF2_HMAC("pencil", 6, salt, sizeof salt, 4096, EVP_sha256(), sizeof salted, salted), 1);
    struct kafka_alter_user_scram_credentials_request_scram_credential_upsertion u = {
        .name = SLICE_OF("user"),
        .mechanism = 1,
        .iterations = 4096,
        .salt = slice_make(salt, sizeof salt),
        .salted_password = slice_make(salted, sizeof salted)};
    struct kafka_alter_user_scram_credentials_request q = {.upsertions = &u, .upsertions_count = 1};
    struct kafka_alter_user_scram_credentials_response p;
    int count = 0;
    controller_alter_scram(h.c, &q, h.arena, &p);
    cr_assert_eq(p.results[0].error_code, 0);
    cr_assert_eq(help_take(&h), 1);
    image_each_scram(controller_image(h.c), h.arena, expect_keys, &count);
    cr_assert_eq(count, 1);
    cr_assert(image_has_scram(controller_image(h.c), SLICE_OF("user"), 1));
    cr_assert_not(image_has_scram(controller_image(h.c), SLICE_OF("user"), 2));
}

static int64_t set_feature(const char *name, int16_t level, int8_t type)
{
    struct kafka_update_features_request_feature_update_key u = {
        .feature = slice_str(name), .max_version_level = level, .upgrade_type = type};
    struct kafka_update_features_request q = {.feature_updates = &u, .feature_updates_count = 1};
    struct kafka_update_features_response p;
    controller_update_features(h.c, &q, 2, h.arena, &p);
    cr_assert_eq(p.error_code, 0, "%.*s", (int)p.error_message.size, (const char *)p.error_message.data);
    return help_take(&h);
}

/* KIP-966: with eligible leader replicas there is one min.insync.replicas for all brokers. */
Test(users, eligible_leader_replicas_on_and_off)
{
    const char *message;
    help_storage(&h, 1, 11, -1);
    help_storage(&h, 2, 21, -1);
    help_create_at(&h, "t", "1:2", "min.insync.replicas", "2");
    cr_assert_eq(help_alter_broker(&h, "2", "min.insync.replicas", "2", &message), KERR_INVALID_CONFIG);
    cr_assert_eq(help_alter_isr(&h, "t", "1", 0), KERR_NONE);
    help_expect(&h, "t", "leader 1 epoch 0 isr 1 elr 2 known - state 0");
    cr_assert_eq(set_feature("eligible.leader.replicas.version", 0, 2), 1);
    cr_assert_eq(help_alter_isr(&h, "t", "1,2", 0), KERR_NONE);
    cr_assert_eq(help_alter_isr(&h, "t", "1", 0), KERR_NONE);
    help_expect(&h, "t", "leader 1 epoch 0 isr 1 elr - known - state 0");
    cr_assert_eq(help_alter_broker(&h, "2", "min.insync.replicas", "2", &message), KERR_NONE);
    cr_assert_eq(help_alter_broker(&h, "", "min.insync.replicas", NULL, &message), KERR_NONE);
    cr_assert_eq(set_feature("eligible.leader.replicas.version", 1, 1), 3);
    cr_assert(slice_is_null(image_config(controller_image(h.c), IMAGE_BROKER, SLICE_OF("2"), "min.insync.replicas")));
    cr_assert(slice_eq_str(image_config(controller_image(h.c), IMAGE_BROKER, SLICE_EMPTY, "min.insync.replicas"), "1"));
}
