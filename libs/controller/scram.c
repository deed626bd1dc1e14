/* scram.c - AlterUserScramCredentials (51). The checks and texts are those of Kafka 4.3.1. The client sends the salted
 * password; the log keeps what proves one and does not tell it (RFC 5802): the stored key and the server key. They are
 * kept and described; no listener authenticates with them yet. */
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "kafka/alter_user_scram_credentials.h"
#include "kafka/remove_user_scram_credential_record.h"
#include "kafka/user_scram_credential_record.h"
#include "libs/controller/internal.h"

enum { SHA_256 = 1, SHA_512 = 2, ITERATIONS_MIN = 4096, ITERATIONS_MAX = 16384 }; /* Kafka's ScramMechanism */

typedef struct kafka_alter_user_scram_credentials_request_scram_credential_upsertion upsertion;
typedef struct kafka_alter_user_scram_credentials_request_scram_credential_deletion deletion;

struct altering_scram {
    struct controller *c;
    struct arena *arena;
    struct name_set names; /* of deletions, then upsertions */
    struct kafka_alter_user_scram_credentials_response *p;
};

static enum kafka_error refuse(const char **ret_message, const char *message, enum kafka_error error)
{
    *ret_message = message;
    return error;
}

static enum kafka_error check_user(struct slice name, int8_t mechanism, const char **ret_message)
{
    if (name.size == 0)
        return refuse(ret_message, "Username must not be empty", KERR_UNACCEPTABLE_CREDENTIAL);
    if (mechanism != SHA_256 && mechanism != SHA_512)
        return refuse(ret_message, "Unknown SCRAM mechanism", KERR_UNSUPPORTED_SASL_MECHANISM);
    return KERR_NONE;
}

static enum kafka_error delete_one(struct altering_scram *k, const deletion *q, const char **ret_message)
{
    enum kafka_error error = check_user(q->name, q->mechanism, ret_message);
    if (error != KERR_NONE)
        return error;
    if (!image_has_scram(k->c->image, q->name, q->mechanism))
        return refuse(ret_message, "Attempt to delete a user credential that does not exist", KERR_RESOURCE_NOT_FOUND);
    struct kafka_remove_user_scram_credential_record m = {.name = q->name, .mechanism = q->mechanism};
    controller_put(k->c, METARECORD_REMOVE_USER_SCRAM_CREDENTIAL, 0, &m);
    return KERR_NONE;
}

/* HMAC(salted password, text). False: there is no such digest in this OpenSSL. */
static bool mac(const EVP_MD *md, struct slice salted, const char *text, uint8_t *to, unsigned *ret_size)
{
    return md != NULL && salted.size <= INT32_MAX &&
           HMAC(md, salted.data, (int)salted.size, (const uint8_t *)text, strlen(text), to, ret_size) != NULL;
}

static enum kafka_error upsert_one(struct altering_scram *k, const upsertion *q, const char **ret_message)
{
    uint8_t client[EVP_MAX_MD_SIZE], stored[EVP_MAX_MD_SIZE], server[EVP_MAX_MD_SIZE];
    unsigned client_size = 0, stored_size = 0, server_size = 0;
    enum kafka_error error = check_user(q->name, q->mechanism, ret_message);
    if (error != KERR_NONE)
        return error;
    if (q->iterations < ITERATIONS_MIN || q->iterations > ITERATIONS_MAX)
        return refuse(ret_message, q->iterations < ITERATIONS_MIN ? "Too few iterations" : "Too many iterations",
                      KERR_UNACCEPTABLE_CREDENTIAL);
    const EVP_MD *md = q->mechanism == SHA_256 ? EVP_sha256() : EVP_sha512();
    if (q->salted_password.size == 0)
        return refuse(ret_message, "Empty key", KERR_UNKNOWN_SERVER_ERROR);
    if (!mac(md, q->salted_password, "Client Key", client, &client_size) ||
        !mac(md, q->salted_password, "Server Key", server, &server_size) ||
        EVP_Digest(client, client_size, stored, &stored_size, md, NULL) != 1)
        return refuse(ret_message, "The digest of the mechanism cannot be computed.", KERR_UNKNOWN_SERVER_ERROR);
    struct kafka_user_scram_credential_record m = {
        .name = q->name,
        .mechanism = q->mechanism,
        .salt = q->salt,
        .stored_key = slice_make(stored, stored_size),
        .server_key = slice_make(server, server_size),
        .iterations = q->iterations,
    };
    return controller_put(k->c, METARECORD_USER_SCRAM_CREDENTIAL, 0, &m)
               ? KERR_NONE
               : refuse(ret_message, "A name is longer than 32767 bytes.", KERR_INVALID_REQUEST);
}

static void add_answer(struct altering_scram *k, struct slice user, enum kafka_error error, const char *message)
{
    struct kafka_alter_user_scram_credentials_response_alter_user_scram_credentials_result *r =
        &k->p->results[k->p->results_count++];
    kafka_alter_user_scram_credentials_response_alter_user_scram_credentials_result_init(r);
    r->user = user;
    r->error_code = (int16_t)error;
    r->error_message = slice_str(message);
}

/* A user is altered once in a request; the first thing that is wrong with him is told, and nothing of him is kept. */
static void alter(struct altering_scram *k, const struct kafka_alter_user_scram_credentials_request *q, int32_t at)
{
    bool deletes = at < q->deletions_count;
    struct slice name = deletes ? q->deletions[at].name : q->upsertions[at - q->deletions_count].name;
    struct controller_mark mark = controller_mark(k->c);
    const char *message = NULL;
    int32_t first = at, times = name_set_find(&k->names, name, &first);
    if (first != at)
        return;
    enum kafka_error error = deletes ? delete_one(k, &q->deletions[at], &message)
                                     : upsert_one(k, &q->upsertions[at - q->deletions_count], &message);
    if (error == KERR_NONE && times > 1)
        error =
            refuse(&message, "A user credential cannot be altered twice in the same request", KERR_DUPLICATE_RESOURCE);
    if (error != KERR_NONE)
        controller_rewind(k->c, mark);
    add_answer(k, name, error, message);
}

void controller_alter_scram(struct controller *c, const struct kafka_alter_user_scram_credentials_request *q,
                            struct arena *arena, struct kafka_alter_user_scram_credentials_response *ret_p)
{
    struct altering_scram k = {.c = c, .arena = arena, .p = ret_p};
    int32_t count = q->deletions_count + q->upsertions_count;
    kafka_alter_user_scram_credentials_response_init(ret_p);
    ret_p->results = arena_calloc(arena, (size_t)count + 1, sizeof *ret_p->results);
    ret_p->results_count = 0;
    name_set_init(&k.names, arena, (size_t)count);
    for (int32_t i = 0; i < count; i++)
        name_set_add(&k.names,
                     i < q->deletions_count ? q->deletions[i].name : q->upsertions[i - q->deletions_count].name, i);
    name_set_seal(&k.names);
    for (int32_t i = 0; i < count; i++)
        alter(&k, q, i);
}
