/* lineage.c - which epoch began at which offset of the log, and which voters which record named. */
#include <stdlib.h>

#include "kafka/kraft_version_record.h"
#include "libs/kraft/kraft_internal.h"
#include "libs/wire/wire.h"

enum { CONTROL_BYTES_MAX = 1 << 20, CONTROL_KEY = 4 };

/* ---- epochs ---- */

int32_t lineage_last_epoch(const struct kraft *k)
{
    if (k->epoch_count > 0)
        return k->epochs[k->epoch_count - 1].epoch;
    return k->snapshot_end > 0 ? k->snapshot_epoch : 0;
}

bool lineage_end_of(const struct kraft *k, int32_t epoch, int32_t *ret_epoch, int64_t *ret_end)
{
    int64_t end = k->log_end;
    for (size_t i = k->epoch_count; i-- > 0;) {
        if (k->epochs[i].epoch <= epoch) {
            *ret_epoch = k->epochs[i].epoch;
            *ret_end = end;
            return true;
        }
        end = k->epochs[i].start;
    }
    /* The log may begin right behind the snapshot. */
    if (k->snapshot_end == end && k->snapshot_end > 0 && k->snapshot_epoch <= epoch) {
        *ret_epoch = k->snapshot_epoch;
        *ret_end = end;
        return true;
    }
    return false;
}

void lineage_add_epoch(struct kraft *k, int32_t epoch, int64_t start)
{
    if (k->epoch_count > 0 && epoch <= k->epochs[k->epoch_count - 1].epoch)
        return;
    if (k->epoch_count == k->epoch_room) {
        k->epoch_room = k->epoch_room * 2 + 16;
        k->epochs = xrealloc(k->epochs, k->epoch_room * sizeof *k->epochs);
    }
    k->epochs[k->epoch_count++] = (struct kraft_epoch_start){epoch, start};
}

/* ---- voters ---- */

const struct voter_set *lineage_voters(const struct kraft *k)
{
    return k->sets[k->set_count - 1];
}

void lineage_add_voters(struct kraft *k, int64_t offset, int16_t version, const struct kraft_voters *voters)
{
    if (k->set_count > 0 && offset <= lineage_voters(k)->offset)
        return; /* read again */
    struct voter_set *s = xmalloc(sizeof *s);
    s->offset = offset;
    s->kraft_version = version;
    s->voters = *voters;
    k->sets = xrealloc(k->sets, (k->set_count + 1) * sizeof(struct voter_set *));
    k->sets[k->set_count++] = s;
}

void lineage_forget_old(struct kraft *k)
{
    while (k->set_count > 1 && k->sets[1]->offset < k->high_watermark) {
        free(k->sets[0]);
        memmove(&k->sets[0], &k->sets[1], --k->set_count * sizeof(struct voter_set *));
    }
}

/* ---- both ---- */

void lineage_truncate(struct kraft *k, int64_t end)
{
    while (k->epoch_count > 0 && k->epochs[k->epoch_count - 1].start >= end)
        k->epoch_count--;
    while (k->set_count > 1 && lineage_voters(k)->offset >= end)
        free(k->sets[--k->set_count]);
    k->log_end = end;
    k->flushed = MIN(k->flushed, end);
    kraft_voters_changed(k);
}

void lineage_restart(struct kraft *k, int64_t end, int32_t epoch)
{
    k->epoch_count = 0;
    k->log_start = k->log_end = k->flushed = k->snapshot_end = end;
    k->snapshot_epoch = epoch;
    while (k->set_count > 0)
        free(k->sets[--k->set_count]);
}

/* ---- reading ---- */

struct found {
    struct kraft_voters voters;
    int64_t offset; /* -1: none */
    int16_t version;
    bool has_version;
};

/* The body of a control record: an int16 version, then the message. */
static bool take_version(struct slice value, struct found *f)
{
    struct arena *a = arena_new(CONTROL_BYTES_MAX);
    struct kafka_kraft_version_record m;
    bool good = wire_decode(&kafka_kraft_version_record_type, 0, value, a, &m, NULL) == 0;
    if (good) {
        f->version = m.kraft_version;
        f->has_version = true;
    }
    arena_free(a);
    return good;
}

static bool take_control(const struct record *r, struct found *f)
{
    if (r->key.size < CONTROL_KEY)
        return false;
    int16_t type = (int16_t)(r->key.data[2] << 8 | r->key.data[3]);
    struct slice value = r->value;
    if (type == CONTROL_KRAFT_VERSION)
        return take_version(value, f);
    if (type != CONTROL_KRAFT_VOTERS)
        return true;
    f->offset = r->offset;
    return kraft_voters_decode(value, &f->voters) == 0;
}

static int scan_control(const struct batch *b, struct slice bytes, struct found *f)
{
    struct buf scratch CLEANUP(buf_free) = {0};
    struct record_iter it;
    struct record r;
    int got = record_iter_init(&it, b, bytes, &scratch, CONTROL_BYTES_MAX);
    if (got != 0)
        return -EBADMSG;
    while ((got = record_iter_next(&it, &r)) == 1)
        if (!take_control(&r, f))
            return -EBADMSG;
    return got;
}

/* Are they batches of one log, of epochs that do not fall? */
static int judge(const struct kraft *k, struct slice bytes, int64_t at, int32_t epoch_max, struct found *f,
                 int64_t *ret_end, size_t *ret_size)
{
    struct slice rest = bytes, one;
    struct batch b;
    int32_t epoch = at < k->log_end ? 0 : lineage_last_epoch(k);
    size_t size = 0;
    int got;
    while ((got = batch_next(&rest, &b, &one)) == 1) {
        if (b.base_offset != at || b.leader_epoch < epoch || b.leader_epoch > epoch_max || !batch_crc_holds(&b, one))
            return -EBADMSG;
        if (batch_is_control(&b) && scan_control(&b, one, f) != 0)
            return -EBADMSG;
        epoch = b.leader_epoch;
        at = batch_next_offset(&b);
        size += one.size;
    }
    *ret_end = at;
    *ret_size = size;
    return got == 0 || got == -ENODATA ? 0 : -EBADMSG;
}

/* They were judged. */
static void take_batches(struct kraft *k, struct slice rest, struct found *f)
{
    struct slice one;
    struct batch b;
    while (batch_next(&rest, &b, &one) == 1) {
        lineage_add_epoch(k, b.leader_epoch, b.base_offset);
        *f = (struct found){.offset = -1};
        if (batch_is_control(&b) && scan_control(&b, one, f) == 0 && f->offset >= 0)
            lineage_add_voters(k, f->offset, f->has_version ? f->version : lineage_voters(k)->kraft_version,
                               &f->voters);
    }
}

int lineage_scan(struct kraft *k, struct slice bytes, int64_t at, int32_t epoch_max, int64_t *ret_end, size_t *ret_size)
{
    struct found *f = xcalloc(1, sizeof *f);
    int error = judge(k, bytes, at, epoch_max, f, ret_end, ret_size);
    if (error == 0)
        take_batches(k, slice_make(bytes.data, *ret_size), f);
    free(f);
    return error;
}

bool lineage_snapshot_voters(struct slice snapshot, struct kraft_voters *ret_voters, int16_t *ret_version)
{
    struct found *f = xcalloc(1, sizeof *f);
    struct slice rest = snapshot, one;
    struct batch b;
    bool good = true;
    f->offset = -1;
    while (good && batch_next(&rest, &b, &one) == 1)
        if (batch_is_control(&b))
            good = scan_control(&b, one, f) == 0;
    good = good && f->offset >= 0;
    if (good) {
        *ret_voters = f->voters;
        *ret_version = f->version;
    }
    free(f);
    return good;
}
