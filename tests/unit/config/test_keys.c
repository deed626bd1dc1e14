/* Kafka's words are those that 4.3.1 was seen to answer. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "libs/config/keys.h"

static void expect(enum config_scope scope, const char *name, const char *value, const char *error)
{
    const struct config_key *key = config_key_find(scope, name);
    cr_assert_not_null(key, "%s", name);
    char *text = config_key_validate(key, slice_str(value));
    if (error == NULL)
        cr_expect_null(text, "%s=%s: %s", name, value, text);
    else
        cr_expect_str_eq(text ? text : "(fine)", error);
    free(text);
}

Test(keys, counts_are_kafkas)
{
    static const size_t counts[] = {[CONFIG_BROKER] = 360,       [CONFIG_TOPIC] = 34, [CONFIG_GROUP] = 17,
                                    [CONFIG_CLIENT_METRICS] = 3, [CONFIG_IP] = 1,     [CONFIG_BROKER_QUOTA] = 3};
    size_t count, listed = 0;
    for (size_t i = 0; i < COUNTOF(counts); i++) {
        config_keys((enum config_scope)i, &count);
        cr_expect(counts[i] == 0 || counts[i] == count, "scope %zu has %zu", i, count);
    }
    const struct config_key *keys = config_keys(CONFIG_BROKER, &count);
    for (size_t i = 0; i < count; i++)
        listed += !keys[i].internal;
    cr_expect_eq(listed, 340);
}

Test(keys, every_key_is_found_by_its_name)
{
    for (int scope = 0; scope < CONFIG_SCOPES; scope++) {
        size_t count;
        const struct config_key *keys = config_keys((enum config_scope)scope, &count);
        for (size_t i = 0; i < count; i++) {
            cr_expect_eq(config_key_find((enum config_scope)scope, keys[i].name), &keys[i]);
            cr_expect_not_null(config_key_text(&keys[i]));
        }
    }
    cr_expect_null(config_key_find(CONFIG_TOPIC, "no.such.key"));
    cr_expect_null(config_key_find(CONFIG_TOPIC, ""));
}

Test(keys, every_default_is_valid)
{
    for (int scope = 0; scope < CONFIG_SCOPES; scope++) {
        size_t count;
        const struct config_key *keys = config_keys((enum config_scope)scope, &count);
        for (size_t i = 0; i < count; i++)
            if (!keys[i].required && keys[i].type != CONFIG_TYPE_DOUBLE)
                expect(keys[i].scope, keys[i].name, keys[i].default_value, NULL);
    }
}

Test(keys, numbers_in_kafkas_words)
{
    enum config_scope t = CONFIG_TOPIC;
    expect(t, "retention.ms", "x", "Invalid value x for configuration retention.ms: Not a number of type LONG");
    expect(t, "retention.ms", "-2", "Invalid value -2 for configuration retention.ms: Value must be at least -1");
    expect(t, "retention.ms", " 5 ", NULL);
    expect(t, "retention.ms", "9223372036854775807", NULL);
    expect(t, "retention.ms", "9223372036854775808",
           "Invalid value 9223372036854775808 for configuration retention.ms: Not a number of type LONG");
    expect(t, "retention.ms", "", "Invalid value  for configuration retention.ms: Not a number of type LONG");
    expect(t, "max.message.bytes", "3000000000",
           "Invalid value 3000000000 for configuration max.message.bytes: Not a number of type INT");
    expect(t, "segment.bytes", "+1073741824", NULL);
    expect(t, "segment.bytes", "1024",
           "Invalid value 1024 for configuration segment.bytes: Value must be at least 1048576");
    expect(t, "segment.bytes", "0x1000000",
           "Invalid value 0x1000000 for configuration segment.bytes: Not a number of type INT");
    expect(t, "compression.gzip.level", "-1", NULL);
    expect(t, "compression.gzip.level", "0",
           "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1");
    expect(t, "compression.zstd.level", "23",
           "Invalid value 23 for configuration compression.zstd.level: Value must be no more than 22");
    expect(t, "min.cleanable.dirty.ratio", "1.5",
           "Invalid value 1.5 for configuration min.cleanable.dirty.ratio: Value must be no more than 1");
    expect(t, "min.cleanable.dirty.ratio", "x",
           "Invalid value x for configuration min.cleanable.dirty.ratio: Not a number of type DOUBLE");
    expect(CONFIG_BROKER, "sasl.login.refresh.buffer.seconds", "70000",
           "Invalid value 70000 for configuration sasl.login.refresh.buffer.seconds: Not a number of type SHORT");
    expect(t, "retention.ms", NULL, "Invalid value null for configuration retention.ms: Value must be non-null");
}

Test(keys, words_in_kafkas_words)
{
    enum config_scope t = CONFIG_TOPIC;
    expect(t, "cleanup.policy", "", NULL);
    expect(t, "cleanup.policy", " compact , delete ", NULL);
    expect(t, "cleanup.policy", "foo",
           "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete");
    expect(t, "cleanup.policy", "compact,,delete", "Configuration 'cleanup.policy' values must not be empty.");
    expect(t, "compression.type", "zip",
           "Invalid value zip for configuration compression.type: String must be one of: uncompressed, zstd, lz4, "
           "snappy, gzip, "
           "producer");
    expect(t, "preallocate", "TRUE", NULL);
    expect(t, "preallocate", "yes",
           "Invalid value yes for configuration preallocate: Expected value to be either true or false");
    expect(CONFIG_BROKER, "group.consumer.migration.policy", "Upgrade", NULL);
    expect(CONFIG_BROKER, "group.consumer.migration.policy", "foo",
           "Invalid value foo for configuration group.consumer.migration.policy: String must be one of (case "
           "insensitive): DISABLED, "
           "DOWNGRADE, UPGRADE, BIDIRECTIONAL");
    expect(t, "leader.replication.throttled.replicas", "*", NULL);
    expect(t, "leader.replication.throttled.replicas", "1:2,3:4", NULL);
    expect(t, "leader.replication.throttled.replicas", "1:2,*",
           "Invalid value [1:2, *] for configuration leader.replication.throttled.replicas: "
           "leader.replication.throttled.replicas must "
           "be the literal '*' or a list of replicas in the following format: "
           "[partitionId]:[brokerId],[partitionId]:[brokerId],...");
    expect(CONFIG_GROUP, "share.auto.offset.reset", "by_duration:PT1H", NULL);
    expect(CONFIG_GROUP, "share.auto.offset.reset", "by_duration:x",
           "Invalid value by_duration:x for configuration share.auto.offset.reset: Invalid value `by_duration:x` for "
           "configuration "
           "share.auto.offset.reset. The value must be either 'earliest', 'latest' or of the format "
           "'by_duration:<PnDTnHnMn.nS>'.");
}

Test(keys, topic_overrides_as_one)
{
    struct config_entry lag[] = {{SLICE_OF("min.compaction.lag.ms"), SLICE_OF("10")},
                                 {SLICE_OF("max.compaction.lag.ms"), SLICE_OF("5")}};
    struct config_entry unknown[] = {{SLICE_OF("foo"), SLICE_OF("x")}};
    char *text = config_topic_validate(lag, 2);
    cr_expect_str_eq(text, "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)");
    free(text);
    text = config_topic_validate(unknown, 1);
    cr_expect_str_eq(text, "Unknown topic config name: foo");
    free(text);
    cr_expect_null(config_topic_validate(lag, 1));
    cr_expect_null(config_topic_validate(NULL, 0));
}
