/* api_describe_user_scram_credentials.c - DescribeUserScramCredentials (50), version 0: what the image has, without the
 * keys. */
#include <stdlib.h>

#include "kafka/apis.h"
#include "kafka/describe_user_scram_credentials.h"
#include "kafka/user_scram_credential_record.h"
#include "services/frontend/api_common.h"

typedef struct kafka_describe_user_scram_credentials_response describe_response;
typedef struct kafka_describe_user_scram_credentials_response_describe_user_scram_credentials_result row;
typedef struct kafka_describe_user_scram_credentials_response_credential_info info;

struct credentials {
    struct request *r;
    const struct kafka_user_scram_credential_record **all; /* by name, then mechanism */
    int32_t count, room;
};

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    describe_response response;
    kafka_describe_user_scram_credentials_response_init(&response);
    response.error_code = (int16_t)error;
    response.error_message = api_text(message);
    request_reply(r, &response);
}

static void collect(void *ctx, const struct kafka_user_scram_credential_record *m)
{
    struct credentials *c = ctx;
    c->all = arena_grow(c->r->arena, c->all, (size_t)c->count, &c->room, sizeof *c->all);
    c->all[c->count++] = m;
}

static int by_name_and_mechanism(const void *a, const void *b)
{
    const struct kafka_user_scram_credential_record *x = *(const struct kafka_user_scram_credential_record *const *)a,
                                                    *y = *(const struct kafka_user_scram_credential_record *const *)b;
    int order = slice_cmp(x->name, y->name);
    return order != 0 ? order : x->mechanism - y->mechanism;
}

/* The first of the user's; count: he has none. */
static int32_t first_of(const struct credentials *c, struct slice user)
{
    int32_t low = 0, high = c->count;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        if (slice_cmp(c->all[middle]->name, user) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < c->count && slice_eq(c->all[low]->name, user) ? low : c->count;
}

static void add_user(const struct credentials *c, struct slice user, bool twice, row *to)
{
    int32_t at = first_of(c, user);
    kafka_describe_user_scram_credentials_response_describe_user_scram_credentials_result_init(to);
    to->user = user;
    to->error_message = SLICE_EMPTY;
    if (twice || at == c->count) {
        to->error_code = twice ? KERR_DUPLICATE_RESOURCE : KERR_RESOURCE_NOT_FOUND;
        to->error_message = slice_str(
            arena_printf(c->r->arena, "%s: " SLICE_F,
                         twice ? "Cannot describe SCRAM credentials for the same user twice in a single request"
                               : "Attempt to describe a user credential that does not exist",
                         SLICE_A(user)));
        return;
    }
    int32_t end = at;
    while (end < c->count && slice_eq(c->all[end]->name, user))
        end++;
    to->credential_infos = arena_calloc(c->r->arena, (size_t)(end - at), sizeof *to->credential_infos);
    to->credential_infos_count = end - at;
    for (int32_t i = at; i < end; i++)
        to->credential_infos[i - at] = (info){c->all[i]->mechanism, c->all[i]->iterations};
}

static int by_text(const void *a, const void *b)
{
    return slice_cmp(*(const struct slice *)a, *(const struct slice *)b);
}

/* The users that are asked for, sorted; of nobody: all. */
static struct slice *users_of(const struct credentials *c,
                              const struct kafka_describe_user_scram_credentials_request *q, int32_t *ret_count)
{
    int32_t count = q->users_count > 0 ? q->users_count : c->count;
    struct slice *users = arena_calloc(c->r->arena, (size_t)count + 1, sizeof *users);
    for (int32_t i = 0; i < q->users_count; i++)
        users[i] = q->users[i].name;
    *ret_count = MAX(q->users_count, 0);
    for (int32_t i = 0; q->users_count <= 0 && i < c->count; i++)
        if (i == 0 || !slice_eq(c->all[i]->name, c->all[i - 1]->name))
            users[(*ret_count)++] = c->all[i]->name;
    qsort(users, (size_t)*ret_count, sizeof *users, by_text);
    return users;
}

static void handle(struct request *r)
{
    struct credentials c = {.r = r};
    int32_t count;
    describe_response response;
    image_each_scram(r->image, r->arena, collect, &c);
    if (c.count > 0)
        qsort(c.all, (size_t)c.count, sizeof *c.all, by_name_and_mechanism);
    struct slice *users = users_of(&c, r->body, &count);
    kafka_describe_user_scram_credentials_response_init(&response);
    response.error_message = SLICE_EMPTY;
    response.results = arena_calloc(r->arena, (size_t)count + 1, sizeof *response.results);
    response.results_count = 0;
    for (int32_t i = 0; i < count; i++) {
        bool twice = i + 1 < count && slice_eq(users[i], users[i + 1]);
        if (i == 0 || !slice_eq(users[i], users[i - 1]))
            add_user(&c, users[i], twice, &response.results[response.results_count++]);
    }
    request_reply(r, &response);
}

const struct api_handler api_describe_user_scram_credentials = {.key = KAFKA_API_DESCRIBE_USER_SCRAM_CREDENTIALS,
                                                                .version_min = 0,
                                                                .version_max = 0,
                                                                .at_controllers = true,
                                                                .handle = handle,
                                                                .fail = fail};
