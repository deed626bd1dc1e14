/* kclient.h - a model Kafka client's connection: requests out, responses in their order, over simulated TCP in real
 * bytes. Threading: one. */
#ifndef KARST_TESTS_SIM_KCLIENT_H
#define KARST_TESTS_SIM_KCLIENT_H

#include "tests/sim/tcp.h"

struct kclient;

/* response: the struct of the API; lives until the function returns. NULL: the connection ended first, nobody knows
 * what became of the request. Runs once for each request, in their order. */
typedef void kclient_fn(void *ctx, const void *response);

NODISCARD struct kclient *kclient_new(struct tcp *t, struct sim *s, const char *client_id);
struct kclient *kclient_free(struct kclient *c); /* requests that wait end without a call */

/* Opens a connection when there is none: false while nobody listens. */
bool kclient_connect(struct kclient *c, uint16_t port);
/* process_life of the front end that it is connected to. */
uint64_t kclient_life(const struct kclient *c);
size_t kclient_waiting(const struct kclient *c);
/* A connection must be open. It is closed when no response has come for REQUEST_MS. */
enum { KCLIENT_REQUEST_MS = 12000 };
void kclient_ask(struct kclient *c, int16_t api_key, int16_t version, const void *request, kclient_fn *fn, void *ctx);

#endif
