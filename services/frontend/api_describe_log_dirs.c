/* api_describe_log_dirs.c - DescribeLogDirs (35), versions 1-5: the folders of one storage node. The request names no
 * broker: it is the one that the connection stands for. */
#include "kafka/apis.h"
#include "kafka/describe_log_dirs.h"
#include "services/frontend/api_common.h"

static void fail(struct request *r, enum kafka_error error, const char *message)
{
    (void)message; /* the response has no room for one */
    struct kafka_describe_log_dirs_response response;
    kafka_describe_log_dirs_response_init(&response);
    response.error_code = (int16_t)error;
    if (r->version < 3) { /* no field for the whole: a nameless folder says it */
        response.results = arena_calloc(r->arena, 1, sizeof *response.results);
        response.results_count = 1;
        kafka_describe_log_dirs_response_describe_log_dirs_result_init(&response.results[0]);
        response.results[0].error_code = (int16_t)error;
    }
    request_reply(r, &response);
}

const struct api_handler api_describe_log_dirs = {.key = KAFKA_API_DESCRIBE_LOG_DIRS,
                                                  .version_min = 1,
                                                  .version_max = 5,
                                                  .handle = request_forward_to_broker,
                                                  .fail = fail};
