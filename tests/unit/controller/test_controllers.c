/* test_controllers.c - controllers that register (KIP-919), and what that has to do with features. */
#include "kafka/controller_registration.h"
#include "kafka/register_controller_record.h"
#include "libs/metadata/levels.h"
#include "tests/unit/controller/help.h"

static struct help h;
static void setup(void)
{
    help_open(&h);
}
static void teardown(void)
{
    help_close(&h);
}
TestSuite(controllers, .init = setup, .fini = teardown);

static enum kafka_error enroll(int32_t id, uint8_t life, uint16_t port, int16_t share_max)
{
    struct kafka_controller_registration_request_listener listener = {
        .name = SLICE_OF("CONTROLLER"), .host = SLICE_OF("h"), .port = port};
    struct kafka_controller_registration_request_feature feature = {SLICE_OF("share.version"), 0, share_max};
    struct kafka_controller_registration_request q;
    const char *message;
    kafka_controller_registration_request_init(&q);
    q.controller_id = id;
    q.incarnation_id = (struct uuid){{9, life}};
    q.listeners = &listener;
    q.features = &feature;
    q.listeners_count = q.features_count = 1;
    return controller_register_controller(h.c, &q, h.arena, &message);
}

Test(controllers, a_life_registers_once)
{
    cr_assert_eq(enroll(2, 1, 93, 1), KERR_NONE);
    cr_expect_eq(help_take(&h), 1);
    cr_assert_eq(enroll(2, 1, 93, 1), KERR_NONE);
    cr_expect_eq(help_take(&h), 0, "it is there already");
    cr_assert_eq(enroll(2, 2, 94, 1), KERR_NONE);
    cr_expect_eq(help_take(&h), 1, "the next life");

    struct image *i = help_replay(&h);
    const struct kafka_register_controller_record *m = image_controller(i, 2, h.arena);
    cr_assert_not_null(m);
    cr_expect_eq(m->incarnation_id.b[1], 2);
    cr_assert_eq(m->end_points_count, 1);
    cr_expect_eq(m->end_points[0].port, 94);
    cr_expect_null(image_controller(i, 3, h.arena));
    image_release(i);
}

Test(controllers, a_feature_that_one_does_not_understand_is_not_finalized)
{
    cr_assert_eq(enroll(2, 1, 93, 0), KERR_NONE);
    help_take(&h);
    help_finalize(&h, "share.version", 0, NULL);
    help_finalize(&h, "share.version", 1,
                  "The update failed for all features since the following feature had an error: Invalid update version "
                  "1 for feature share.version. Controller 2 does not support this feature.");
    cr_assert_eq(enroll(2, 2, 93, 1), KERR_NONE);
    help_take(&h);
    help_finalize(&h, "share.version", 1, NULL);
}

Test(controllers, its_id_names_a_node)
{
    const char *message;
    cr_expect_eq(help_alter_broker(&h, "2", "log.cleaner.threads", "1", &message), KERR_INVALID_REQUEST);
    cr_assert_eq(enroll(2, 1, 93, 1), KERR_NONE);
    help_take(&h);
    cr_expect_eq(help_alter_broker(&h, "2", "log.cleaner.threads", "1", &message), KERR_NONE);
}
