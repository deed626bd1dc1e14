#include "services/frontend/api_list.h"
#include "services/frontend/frontend.h"

#define X(name) extern const struct api_handler api_##name;
FRONTEND_APIS(X)
#undef X

#define X(name) &api_##name,
static const struct api_handler *const handlers[] = {FRONTEND_APIS(X)};
#undef X

size_t api_handler_count(void)
{
    return COUNTOF(handlers);
}
const struct api_handler *api_handler_at(size_t i)
{
    return handlers[i];
}

const struct api_handler *api_handler_of(int16_t key)
{
    size_t low = 0, high = COUNTOF(handlers);

    while (low < high) {
        size_t middle = (low + high) / 2;
        if (handlers[middle]->key == key)
            return handlers[middle];
        if (handlers[middle]->key < key)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}
