// link: wire base
/* Any bytes as a record, header or other message that is no request or response: byte 0 which, byte 1 the version. */
#include "tests/fuzz/wire_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    unsigned first = wire_folder_start[WIRE_FOLDER_HEADER], count = wire_folder_start[WIRE_FOLDERS] - first;
    const struct wire_type *t = wire_messages[first + data[0] % count];
    fuzz_message(t, fuzz_version(t, data[1]), slice_make(data + 2, size - 2));
    return 0;
}
