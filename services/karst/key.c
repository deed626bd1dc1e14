/* key.c - `karst key`: a host's pair of keys for the bus (libs/bus/trust.h). */
#include <stdio.h>

#include "libs/bus/trust.h"
#include "services/karst/karst.h"

int key_main(const char *path)
{
    char public_key[TRUST_KEY_CHARS + 1], *error = NULL;

    if (trust_make_key(path, public_key, &error) != 0)
        return fail(STATUS_FAILED, error);
    puts(public_key);
    return 0;
}
