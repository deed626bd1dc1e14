/* model.c - what was sent, and what a producer's batches mean, in the plainest form. */
#include "libs/records/records.h"
#include "tests/torture/torture.h"
#include <stdlib.h>

void facts_push(struct facts *f, const struct fact *fact)
{
    if (f->count == f->room)
        f->at = xrealloc(f->at, (f->room = f->room * 2 + 64) * sizeof *f->at);
    f->at[f->count++] = *fact;
}

int64_t fact_max_time(const struct fact *f)
{
    int64_t max = RECORDS_NO_TIMESTAMP;
    for (int32_t i = 0; i < f->count; i++)
        max = MAX(max, f->times[i]);
    return max;
}

uint64_t torture_hash(const void *p, size_t n)
{
    const uint8_t *b = p;
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * 0x100000001b3u;
    return h;
}

void known_clear(struct known_producer known[KNOWN])
{
    for (int i = 0; i < KNOWN; i++) {
        known[i] = (struct known_producer){
            .id = i < PRODUCERS ? IDEMPOTENT_ID + i : TRANSACTIONAL_ID + i - PRODUCERS,
            .epoch = -1,
            .coordinator_epoch = -1,
            .txn_first = -1,
            .last_offset = -1,
            .marker_offset = -1,
        };
    }
}

struct known_producer *known_find(struct known_producer known[KNOWN], int64_t id)
{
    for (int i = 0; i < KNOWN; i++) {
        if (known[i].id == id)
            return &known[i];
    }
    return NULL;
}

void known_apply(struct known_producer known[KNOWN], const struct fact *f)
{
    struct known_producer *p = known_find(known, f->producer_id);
    if (p == NULL)
        return;
    if (p->epoch != f->producer_epoch)
        p->batch_count = 0;
    p->epoch = f->producer_epoch;
    p->last_time = fact_max_time(f);
    p->last_offset = f->next - 1;
    if (f->marker >= 0) {
        p->coordinator_epoch = f->coordinator_epoch;
        p->txn_first = -1;
        p->marker_offset = f->base;
        return;
    }
    if (p->batch_count == REMEMBERED) {
        memmove(p->batches, p->batches + 1, (REMEMBERED - 1) * sizeof p->batches[0]);
        p->batch_count--;
    }
    p->batches[p->batch_count].first_sequence = f->sequence;
    p->batches[p->batch_count].last_sequence = f->sequence + f->count - 1;
    p->batches[p->batch_count].base = f->base;
    p->batches[p->batch_count].last = f->next - 1;
    p->batch_count++;
    p->data_offset = f->next - 1;
    if ((f->attributes & BATCH_ATTR_TRANSACTIONAL) && p->txn_first < 0)
        p->txn_first = f->base;
}
