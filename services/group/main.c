/* main.c - karst-group: the coordinator of consumer groups and their committed offsets.
 *
 * Started by   karst up, or anybody: karst-group --config FILE --id N. Any number of them share the partitions of
 * __consumer_offsets. Peers        front ends call it with clients' requests; it calls the storage nodes that lead its
 * partitions (Read to load, Append). Keeps        nothing on disk. In memory: the groups of the partitions that the
 * controller gave to this life of it. Signals      SIGTERM, SIGINT: who waits is told to find another coordinator, then
 * goodbye; a second one: at once. A crash      loses what waits: clients ask again. The next owner reads the
 * partitions; members go on with their session timeouts.
 *
 * A turn: the bus delivers requests and answers -> steps of the core, which stage replies -> LOOP_COMMIT: one Append a
 * partition with all records of the turn -> the bus sends. */
#include <sys/random.h>

#include "libs/base/log.h"
#include "services/group/group.h"

/* ---- the core's questions ---- */

static void random_bytes(void *ctx, uint8_t out[16])
{
    (void)ctx;
    if (getrandom(out, 16, 0) != 16)
        BUG("the kernel has no random bytes");
}

static bool topic_by_name(void *ctx, struct slice name, struct uuid *ret_id, int32_t *ret_partitions)
{
    const struct group_service *g = ctx;
    const struct image_topic *t = g->image != NULL ? image_topic_by_name(g->image, name) : NULL;
    if (t == NULL)
        return false;
    *ret_id = t->id;
    *ret_partitions = t->partition_count;
    return true;
}

static bool topic_by_id(void *ctx, struct uuid id, struct slice *ret_name, int32_t *ret_partitions)
{
    const struct group_service *g = ctx;
    const struct image_topic *t = g->image != NULL ? image_topic_by_id(g->image, id) : NULL;
    if (t == NULL)
        return false;
    *ret_name = t->name;
    *ret_partitions = t->partition_count;
    return true;
}

/* ---- steps ---- */

static void carry_out(struct group_service *g, const struct groups_action *a)
{
    switch (a->kind) {
    case GROUPS_ACTION_REPLY: group_reply(g, a); return;
    case GROUPS_ACTION_APPEND: append_start(g, a); return;
    case GROUPS_ACTION_LOAD: load_start(g, a); return;
    }
    BUG("the group core wants something unknown");
}

void group_step(struct group_service *g, const struct groups_event *event)
{
    struct groups_out out;
    struct groups_now now = {.mono_ms = loop_now_ms(g->loop), .wall_ms = loop_wall_ms(g->loop)};
    groups_step(g->core, event, now, &out);
    for (size_t i = 0; i < out.count; i++)
        carry_out(g, &out.actions[i]);
    if (groups_unreadable(g->core) > g->unreadable) {
        log_warn("loading %s: %llu records could not be read and are left alone", "__consumer_offsets",
                 (unsigned long long)(groups_unreadable(g->core) - g->unreadable));
        g->unreadable = groups_unreadable(g->core);
    }
}

static void on_timer(void *ctx);

static void arm_timer(struct group_service *g)
{
    uint64_t due = groups_deadline_ms(g->core), now = loop_now_ms(g->loop);
    if (due == UINT64_MAX || (g->timer != NULL && g->timer_due_ms <= due))
        return; /* it fires no later than needed; an early firing arms anew */
    g->timer = loop_timer_stop(g->timer);
    g->timer_due_ms = due;
    g->timer = loop_timer_start(g->loop, due > now ? due - now : 1, 0, on_timer, g);
}

static void on_timer(void *ctx)
{
    struct group_service *g = ctx;
    g->timer = loop_timer_stop(g->timer);
    group_step(g, &(struct groups_event){.kind = GROUPS_EVENT_TIME});
    arm_timer(g);
}

static void on_turn(void *ctx)
{
    struct group_service *g = ctx;
    append_tell_ended(g);
    if (groups_dirty(g->core))
        group_step(g, &(struct groups_event){.kind = GROUPS_EVENT_FLUSH});
    arm_timer(g);
}

/* ---- the service's callbacks ---- */

static void on_drain(void *ctx)
{
    struct group_service *g = ctx;
    g->draining = true;
    group_release_all(g);
    service_drained(g->service);
}

static void read_config(const struct config *c, struct groups_config *to)
{
    groups_config_init(to);
    to->initial_rebalance_delay_ms = config_int(c, "group.initial.rebalance.delay.ms");
    to->session_timeout_min_ms = config_int(c, "group.min.session.timeout.ms");
    to->session_timeout_max_ms = config_int(c, "group.max.session.timeout.ms");
    to->group_max_size = config_int(c, "group.max.size");
    to->metadata_max_bytes = config_int(c, "offset.metadata.max.bytes");
    to->retention_ms = config_int(c, "offsets.retention.minutes") * INT64_C(60000);
    to->retention_check_interval_ms = config_long(c, "offsets.retention.check.interval.ms");
}

static void open_state(struct group_service *g)
{
    const struct config *config = service_config(g->service);
    struct groups_config core_config;
    struct groups_env env = {
        .ctx = g, .random = random_bytes, .topic_by_name = topic_by_name, .topic_by_id = topic_by_id};
    read_config(config, &core_config);
    g->loop = service_loop(g->service);
    g->bus = service_bus(g->service);
    g->append_timeout_ms = (uint32_t)config_int(config, "offsets.commit.timeout.ms");
    g->codec = config_int(config, "offsets.topic.compression.codec");
    g->core = groups_new(&core_config, &env);
    group_serve(g);
    loop_hook(g->loop, LOOP_COMMIT, on_turn, g);
}

/* Before the bus goes: nothing of the core may start a call any more. */
static void end_state(struct group_service *g)
{
    g->draining = true;
    group_release_all(g);
    g->timer = loop_timer_stop(g->timer);
}

static void close_state(struct group_service *g)
{
    append_free_all(g);
    g->core = groups_free(g->core);
    g->image = image_release(g->image);
}

int main(int argc, char **argv)
{
    struct group_service g = {0};
    struct service_options options = {
        .role = KARST__BUS__ROLE__ROLE_GROUP, .ctx = &g, .on_image = group_on_image, .on_drain = on_drain};
    int status = service_open(argc, argv, &options, &g.service);
    if (status != 0)
        return status;
    open_state(&g);
    service_join(g.service);
    status = service_run(g.service);
    end_state(&g);
    g.service = service_close(g.service);
    close_state(&g);
    return status;
}
