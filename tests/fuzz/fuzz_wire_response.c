// link: wire base
/* Any bytes as a response of any API at any version: byte 0 the API, byte 1 the version. */
#include "tests/fuzz/wire_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const struct wire_type *t = wire_api((int16_t)(data[0] % wire_api_count()))->response;
    fuzz_message(t, fuzz_version(t, data[1]), slice_make(data + 2, size - 2));
    return 0;
}
