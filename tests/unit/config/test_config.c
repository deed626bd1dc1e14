#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "libs/base/buf.h"
#include "libs/config/config.h"
#include "libs/config/meta_properties.h"

static struct config *parsed(const char *text)
{
    char *error = NULL;
    struct config *c = config_new();
    int r = config_parse(c, slice_str(text), &error);
    cr_assert_eq(r, 0, "%s", error);
    return c;
}

static void collect(void *ctx, const char *sentence)
{
    buf_printf(ctx, "%s\n", sentence);
}

static void expect_refused(const char *text, const char *error)
{
    struct config *c = parsed(text);
    char *got = NULL;
    cr_expect_eq(config_check(c, NULL, NULL, &got), -EINVAL);
    cr_expect_str_eq(got ? got : "(fine)", error);
    free(got);
    config_free(c);
}

/* Each line was held against java.util.Properties. */
Test(config, properties_as_java_reads_them)
{
    struct config *c = parsed(
        "# comment\n! too\n\na=1\nb : 2\n  c\t3\nd=\ne\nf=x\\\n   y\\\n\tz\ng\\=h=i\\=j\nk=\\u00e4\\t|\\q\na=9\r\n"
        "l=m#n\no=trailing  \n#\\\np=q\\\\\nr=s");
    static const char *const expected[][2] = {{"a", "9"},   {"b", "2"},          {"c", "3"},     {"d", ""},
                                              {"e", ""},    {"f", "xyz"},        {"g=h", "i=j"}, {"k", "\xc3\xa4\t|q"},
                                              {"l", "m#n"}, {"o", "trailing  "}, {"p", "q\\"},   {"r", "s"}};
    for (size_t i = 0; i < COUNTOF(expected); i++)
        cr_expect_str_eq(config_raw(c, expected[i][0]) ? config_raw(c, expected[i][0]) : "(none)", expected[i][1]);
    cr_expect_null(config_raw(c, "comment"));
    config_free(c);
}

Test(config, printed_text_reads_the_same)
{
    struct config *c = config_new();
    config_set(c, "a key:with=odd#signs!", "  a value\\ with\n\ttabs");
    config_set(c, "plain", "127.0.0.1:9092,C://x");
    char *text = config_print(c);
    struct config *again = parsed(text);
    cr_expect_str_eq(config_raw(again, "a key:with=odd#signs!"), "  a value\\ with\n\ttabs");
    cr_expect_str_eq(config_raw(again, "plain"), "127.0.0.1:9092,C://x");
    free(text);
    config_free(c);
    config_free(again);
}

Test(config, malformed_text_is_refused)
{
    char *error = NULL;
    struct config *c = config_new();
    cr_expect_eq(config_parse(c, slice_str("a=1\nb=\\u00zz"), &error), -EINVAL);
    cr_expect_str_eq(error, "line 2: malformed \\uXXXX: four hexadecimal digits were expected");
    free(error);
    cr_expect_eq(config_parse(c, slice_make("a=\0b", 4), &error), -EINVAL);
    free(error);
    cr_expect_eq(config_load(c, "/no/such/file", &error), -ENOENT);
    cr_expect_str_eq(error, "cannot read /no/such/file: No such file or directory");
    free(error);
    config_free(c);
}

Test(config, a_malformed_value_names_key_value_and_expectation)
{
    expect_refused("num.partitions=x", "Invalid value x for configuration num.partitions: Not a number of type INT");
    expect_refused("log.segment.bytes=5",
                   "Invalid value 5 for configuration log.segment.bytes: Value must be at least 1048576");
    expect_refused(
        "log.retention.hours=0",
        "Invalid value 0 for configuration log.retention.hours: must be unlimited (-1) or, greater than or equal to 1");
    expect_refused(
        "listener.name.internal.ssl.client.auth=maybe",
        "Invalid value maybe for configuration ssl.client.auth: String must be one of: required, requested, none");
    expect_refused("replica.selector.class=com.example.Mine",
                   "Invalid value com.example.Mine for configuration replica.selector.class: it must be "
                   "org.apache.kafka.common.replica.RackAwareReplicaSelector, or not be set");
}

Test(config, warnings_name_what_has_no_effect)
{
    struct config *c =
        parsed("node.id=1\nssl.protocol=TLSv1.3\nlisteners=PLAINTEXT://:9092\nlisners=x\nzookeeper.connect=y\n"
               "leader.replication.throttled.rate=5\n");
    struct buf b = {0};
    char *error;
    cr_expect_eq(config_check(c, collect, &b, &error), 0);
    buf_append(&b, "", 1);
    cr_expect_str_eq((char *)b.data,
                     "ssl.protocol is not honoured yet by Karst; its value has no effect\n"
                     "unknown configuration key lisners; did you mean listeners?\n"
                     "unknown configuration key zookeeper.connect\n"
                     "leader.replication.throttled.rate can only be set dynamically; the file's value is ignored\n");
    buf_free(&b);
    config_free(c);
}

Test(config, typed_values)
{
    struct arena *a = arena_new(0);
    struct config *c =
        parsed("broker.id=7\nlog.dirs= /a , /b \nsocket.request.max.bytes=1000\nauto.create.topics.enable=False\n"
               "karst.run.dir=/tmp/x");
    cr_expect_eq(config_int(c, "node.id"), 7);
    cr_expect_eq(config_int(c, "socket.request.max.bytes"), 1000);
    cr_expect_eq(config_long(c, "log.segment.bytes"), 1073741824);
    cr_expect_not(config_bool(c, "auto.create.topics.enable"));
    cr_expect(config_bool(c, "delete.topic.enable"));
    cr_expect_float_eq(config_double(c, "log.cleaner.min.cleanable.ratio"), 0.5, 1e-9);
    cr_expect_str_eq(config_string(c, "karst.run.dir"), "/tmp/x");
    cr_expect(config_is_null(c, "broker.rack"));
    cr_expect_eq(config_list(c, "log.dirs", a).count, 2);
    cr_expect_eq(config_log_dirs(c, a).count, 2);
    cr_expect_str_eq(config_metadata_log_dir(c, a), "/a");
    cr_expect_eq(config_list(c, "controller.quorum.voters", a).count, 0);
    config_free(c);
    arena_free(a);
}

Test(config, a_log_directory_that_is_listed_twice_counts_once)
{
    struct arena *a = arena_new(0);
    struct config *c = parsed("log.dirs=/a,/b,/a,/b/\nmetadata.log.dir=/m");
    struct config_list dirs = config_log_dirs(c, a);
    cr_assert_eq(dirs.count, 3);
    cr_expect_str_eq(dirs.items[0], "/a");
    cr_expect_str_eq(dirs.items[1], "/b");
    cr_expect_str_eq(dirs.items[2], "/b/"); /* told by its directory.id */
    cr_expect_str_eq(config_metadata_log_dir(c, a), "/m");
    config_free(c);
    c = parsed("log.dir=/one");
    cr_expect_eq(config_log_dirs(c, a).count, 1);
    cr_expect_str_eq(config_metadata_log_dir(c, a), "/one");
    config_free(c);
    arena_free(a);
}

struct override {
    enum config_source source;
    const char *name, *value;
};

static bool find_override(void *ctx, enum config_source source, const char *name, struct slice *ret_value)
{
    for (const struct override *o = ctx; o->name; o++)
        if (o->source == source && strcmp(o->name, name) == 0) {
            *ret_value = slice_str(o->value);
            return true;
        }
    return false;
}

Test(config, precedence_and_units)
{
    struct config *c = parsed("log.retention.hours=2\nlog.roll.hours=-1\nlog.cleanup.policy=compact");
    struct config *minutes = parsed("log.retention.hours=2\nlog.retention.minutes=3");
    struct override dynamic[] = {{CONFIG_SOURCE_DEFAULT_BROKER, "log.retention.ms", "77"}, {0, NULL, NULL}};
    struct override topic[] = {
        {CONFIG_SOURCE_TOPIC, "retention.ms", "5"}, {CONFIG_SOURCE_BROKER, "log.retention.ms", "6"}, {0, NULL, NULL}};
    struct override broken[] = {{CONFIG_SOURCE_TOPIC, "retention.ms", "soon"}, {0, NULL, NULL}};
    cr_expect_eq(config_topic_long(c, NULL, "retention.ms"), 7200000);
    cr_expect_eq(config_topic_long(minutes, NULL, "retention.ms"), 180000);
    cr_expect_eq(config_topic_long(c, &(struct config_layers){find_override, dynamic}, "retention.ms"), 77);
    cr_expect_eq(config_topic_long(c, &(struct config_layers){find_override, topic}, "retention.ms"), 5);
    cr_expect_eq(config_topic_long(c, &(struct config_layers){find_override, broken}, "retention.ms"), 7200000);
    cr_expect_eq(config_topic_long(c, NULL, "segment.ms"), 604800000, "an unusable file value counts as not set");
    cr_expect_eq(config_topic_long(c, NULL, "flush.ms"), INT64_MAX);
    cr_expect(config_topic_list_has(c, NULL, "cleanup.policy", "compact"));
    cr_expect_not(config_topic_list_has(c, NULL, "cleanup.policy", "delete"));
    config_free(c);
    config_free(minutes);
}

static void expect_described(struct config *c, struct override *layers, enum config_scope scope, const char *name,
                             const char *expected)
{
    struct arena *a = arena_new(0);
    struct buf b = {0};
    struct config_description d = config_describe(c, config_key_find(scope, name),
                                                  layers ? &(struct config_layers){find_override, layers} : NULL, a);
    buf_printf(&b, "%s from %d", d.value.data ? arena_str(a, d.value) : "null", d.source);
    for (size_t i = 0; i < d.place_count; i++)
        buf_printf(&b, "; %d:%s=%s", d.places[i].source, d.places[i].name,
                   d.places[i].value.data ? arena_str(a, d.places[i].value) : "null");
    buf_append(&b, "", 1);
    cr_expect_str_eq((char *)b.data, expected);
    buf_free(&b);
    arena_free(a);
}

/* The examples of Kafka's own answers. */
Test(config, descriptions_as_kafka_answers)
{
    struct config *c = parsed("log.retention.hours=5\nlog.segment.bytes=1073741824\nssl.key.password=secret\n");
    struct override o[] = {{CONFIG_SOURCE_TOPIC, "segment.bytes", " 2097152"},
                           {CONFIG_SOURCE_DEFAULT_BROKER, "min.insync.replicas", "1"},
                           {0, NULL, NULL}};
    expect_described(
        c, o, CONFIG_TOPIC, "segment.bytes",
        "2097152 from 1; 1:segment.bytes=2097152; 4:log.segment.bytes=1073741824; 5:log.segment.bytes=1073741824");
    expect_described(c, NULL, CONFIG_TOPIC, "retention.ms", "18000000 from 5");
    expect_described(c, NULL, CONFIG_BROKER, "log.retention.ms", "null from 5");
    expect_described(c, NULL, CONFIG_BROKER, "log.retention.hours",
                     "5 from 4; 4:log.retention.hours=5; 5:log.retention.hours=168");
    expect_described(c, o, CONFIG_TOPIC, "min.insync.replicas",
                     "1 from 3; 3:min.insync.replicas=1; 5:min.insync.replicas=1");
    expect_described(c, NULL, CONFIG_BROKER, "ssl.key.password", "null from 4; 4:ssl.key.password=null");
    expect_described(c, NULL, CONFIG_GROUP, "consumer.session.timeout.ms",
                     "45000 from 5; 5:group.consumer.session.timeout.ms=45000");
    config_free(c);
}

static void expect_listener_refused(const char *text, bool advertised, const char *error)
{
    struct arena *a = arena_new(0);
    struct config *c = parsed(text);
    struct config_listeners l;
    char *got = NULL;
    cr_expect_eq(config_listeners(c, advertised, a, &l, &got), -EINVAL);
    cr_expect_str_eq(got ? got : "(fine)", error);
    free(got);
    config_free(c);
    arena_free(a);
}

Test(config, listeners)
{
    struct arena *a = arena_new(0);
    struct config *c = parsed(
        "listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://:9093,IN://[::1]:99\ncontroller.listener.names=CONTROLLER\n"
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,IN:SSL");
    struct config_listeners l;
    char *error;
    cr_assert_eq(config_listeners(c, true, a, &l, &error), 0);
    cr_assert_eq(l.count, 2);
    cr_expect_str_eq(l.items[0].host, "127.0.0.1");
    cr_expect_eq(l.items[0].port, 9092);
    cr_expect_eq(l.items[0].security_protocol, 0);
    cr_expect_str_eq(l.items[1].host, "::1");
    cr_expect_eq(l.items[1].security_protocol, 1);
    cr_assert_eq(config_controller_listeners(c, false, a, &l, &error), 0);
    cr_assert_eq(l.count, 1);
    cr_expect_str_eq(l.items[0].name, "CONTROLLER");
    cr_expect_eq(l.items[0].port, 9093);
    config_set(c, "advertised.listeners", "PLAINTEXT://a:1,CONTROLLER://c:2");
    cr_assert_eq(config_controller_listeners(c, true, a, &l, &error), 0);
    cr_expect_str_eq(l.items[0].host, "c");
    cr_expect_eq(l.items[0].port, 2);
    config_set(c, "advertised.listeners", "PLAINTEXT://a:1");
    cr_assert_eq(config_controller_listeners(c, true, a, &l, &error), 0);
    cr_expect_eq(l.items[0].port, 9093, "what is not advertised is found where it listens");
    config_free(c);
    arena_free(a);
    expect_listener_refused("listeners=foo", false,
                            "Invalid value foo for configuration listeners: NAME://HOST:PORT was expected");
    expect_listener_refused(
        "listeners=X://:1", false,
        "Invalid value X://:1 for configuration listeners: No security protocol defined for listener X");
    expect_listener_refused(
        "listeners=PLAINTEXT://:99999", false,
        "Invalid value PLAINTEXT://:99999 for configuration listeners: the port must be a number from 0 to 65535");
    expect_listener_refused(
        "advertised.listeners=PLAINTEXT://0.0.0.0:1", true,
        "Invalid value PLAINTEXT://0.0.0.0:1 for configuration advertised.listeners: advertised.listeners cannot use "
        "the nonroutable meta-address 0.0.0.0. Use a routable IP address.");
}

Test(config, meta_properties)
{
    char dir[] = "/tmp/karst-meta-XXXXXX";
    cr_assert_not_null(mkdtemp(dir));
    struct meta_properties m = {.cluster_id = "4L6g3nShT-eMCtK--X86sw", .node_id = 1, .directory_id = {{1, 2, 3}}}, got;
    char *error = NULL;
    cr_expect_eq(meta_properties_read(dir, &got, &error), -ENOENT);
    cr_expect_null(error);
    cr_expect_eq(meta_properties_write(dir, &m), 0);
    cr_assert_eq(meta_properties_read(dir, &got, &error), 0);
    cr_expect_str_eq(got.cluster_id, m.cluster_id);
    cr_expect_eq(got.node_id, 1);
    cr_expect(uuid_eq(got.directory_id, m.directory_id));
    strcpy(m.cluster_id, " any\\text\tis = one");
    cr_expect_eq(meta_properties_write(dir, &m), 0);
    cr_assert_eq(meta_properties_read(dir, &got, &error), 0);
    cr_expect_str_eq(got.cluster_id, m.cluster_id);
    char *path = xasprintf("%s/meta.properties", dir);
    FILE *f = fopen(path, "w");
    fputs("version=0\nbroker.id=1\ncluster.id=x\n", f);
    fclose(f);
    cr_expect_eq(meta_properties_read(dir, &got, &error), -EINVAL);
    cr_expect_not_null(strstr(error, "not of version 1"));
    free(error);
    unlink(path);
    rmdir(dir);
    free(path);
}
