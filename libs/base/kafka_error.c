#include "libs/base/kafka_error.h"

enum retry { NO, YES, METADATA, COORDINATOR };

static const struct {
    int code;
    const char *name;
    enum retry retry;
} errors[] = {
#define X(code, name, retry) {code, #name, retry},
    KAFKA_ERRORS(X)
#undef X
};

static size_t index_of(int code)
{
    size_t i = (size_t)(code + 1);
    return code >= -1 && i < COUNTOF(errors) ? i : 0;
}

const char *kafka_error_name(int code)
{
    return errors[index_of(code)].name;
}

bool kafka_error_retriable(int code)
{
    return errors[index_of(code)].retry != NO;
}

enum kafka_error kafka_error_of_errno(int negative_errno)
{
    switch (-negative_errno) {
    case 0: return KERR_NONE;
    case EBADMSG: return KERR_CORRUPT_MESSAGE;
    case ETIMEDOUT: return KERR_REQUEST_TIMED_OUT;
    case EINVAL: return KERR_INVALID_REQUEST;
    case E2BIG: return KERR_MESSAGE_TOO_LARGE;
    case EIO:
    case ENOSPC:
    case EROFS:
    case EACCES:
    case EDQUOT:
    case EMFILE:
    case ENFILE: return KERR_KAFKA_STORAGE_ERROR;
    default: return KERR_UNKNOWN_SERVER_ERROR;
    }
}
