/* zmq.c - what ZeroMQ's sockets have in common. */
#include <zmq.h>

#include "libs/base/base.h"
#include "libs/bus/bus_internal.h"

void bus_zmq_set(void *zmq, int option, int value)
{
    if (zmq_setsockopt(zmq, option, &value, sizeof value) != 0)
        BUG("a ZeroMQ socket option is not known");
}

int bus_zmq_fd(void *zmq)
{
    int fd = -1;
    size_t size = sizeof fd;

    if (zmq_getsockopt(zmq, ZMQ_FD, &fd, &size) != 0)
        BUG("a ZeroMQ socket without a descriptor");
    return fd;
}
