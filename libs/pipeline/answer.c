/* answer.c - requests from their frame to the last byte of their answer. */
#include "libs/base/bytes.h"
#include "libs/pipeline/state.h"

#include <stdlib.h>

static int16_t item_key(const struct item *i)
{
    return get_i16(i->frame.data);
}

void item_add(struct pipeline *p, struct conn *c, struct slice frame, struct ref_owner *owner, struct piece *piece)
{
    struct item *i = p->free_items;

    if (i != NULL)
        p->free_items = i->next;
    else
        i = xmalloc(sizeof *i);
    *i = (struct item){
        .conn = c, .state = ITEM_QUEUED, .frame = frame, .charged = frame.size, .owner = owner, .piece = piece};
    if (c->first == NULL)
        c->first = i;
    else
        c->last->next = i;
    c->last = i;
    if (c->start == NULL)
        c->start = i;
    c->waiting++;
    p->waiting++;
    if (piece != NULL) {
        c->input_bytes += frame.size;
        piece_enter(p, piece);
    } else {
        input_charge(p, c, frame.size);
    }
    conn_update_ready(p, c);
}

void item_discharge(struct pipeline *p, struct item *i, struct conn *c)
{
    if (c != NULL)
        c->input_bytes -= i->charged;
    input_discharge(p, NULL, i->charged - (i->piece != NULL ? i->frame.size : 0));
    if (i->piece != NULL)
        piece_leave(p, TAKE_PTR(i->piece));
}

void item_free(struct pipeline *p, struct item *i)
{
    ref_owner_release(i->owner);
    for (size_t n = 0; n < i->piece_count; n++)
        ref_release(&i->pieces[n]);
    if (i->pieces != &i->only_piece)
        free(i->pieces);
    i->next = p->free_items;
    p->free_items = i;
}

void items_drop(struct pipeline *p, struct conn *c)
{
    while (c->first != NULL) {
        struct item *i = c->first;
        c->first = i->next;
        if (i->state == ITEM_RUNNING) {
            i->conn = NULL;
            i->next = NULL;
            c->input_bytes -= i->charged; /* stays charged to the process until the answer */
            i->is_gone_listed = true;
            DL_APPEND2(p->gone, i, gone_prev, gone_next);
            continue;
        }
        if (i->state == ITEM_ENDED) {
            p->output_used -= i->answer_bytes;
        } else {
            p->waiting--;
            item_discharge(p, i, c);
        }
        item_free(p, i);
    }
    c->last = c->start = NULL;
    c->waiting = c->running = 0;
}

bool pipeline_gone(struct pipeline *p, uint64_t *ret_request)
{
    struct item *i = p->gone;

    if (i == NULL)
        return false;
    DL_DELETE2(p->gone, i, gone_prev, gone_next);
    i->is_gone_listed = false;
    *ret_request = i->id;
    return true;
}

/* ---- running ---- */

static bool may_run(const struct pipeline *p, const struct conn *c)
{
    if (c->start == NULL || c->failed || c->out_bytes > p->o.output_resume_bytes)
        return false;
    if (c->first == c->start)
        return true;
    /* Something before it is not answered: all of those must be of the same overlapping API. c->first is not ended
     * (I1), so it runs. */
    int16_t key = item_key(c->start);
    return item_key(c->first) == key && p->o.overlaps(key);
}

void conn_update_ready(struct pipeline *p, struct conn *c)
{
    bool ready = may_run(p, c);

    if (ready == c->in_ready)
        return;
    c->in_ready = ready;
    if (ready)
        DL_APPEND2(p->ready, c, ready_prev, ready_next);
    else
        DL_DELETE2(p->ready, c, ready_prev, ready_next);
}

bool pipeline_next(struct pipeline *p, struct pipeline_request *ret_request)
{
    struct conn *c = p->ready;

    if (c == NULL)
        return false;
    DL_DELETE2(p->ready, c, ready_prev, ready_next);
    c->in_ready = false;
    struct item *i = c->start;
    c->start = i->next;
    i->state = ITEM_RUNNING;
    i->id = slots_add(&p->items, i);
    c->running++;
    p->running++;
    conn_update_ready(p, c);
    *ret_request = (struct pipeline_request){
        .id = i->id,
        .conn = c->id,
        .frame = i->frame,
        .owner = i->owner,
        .api_key = get_i16(i->frame.data),
        .api_version = get_i16(i->frame.data + 2),
        .correlation_id = get_i32(i->frame.data + 4),
    };
    return true;
}

void pipeline_charge(struct pipeline *p, uint64_t request, uint64_t bytes)
{
    struct item *i = slots_get(&p->items, request);

    ASSERT(i != NULL && i->state == ITEM_RUNNING && i->conn != NULL);
    i->charged += bytes;
    input_charge(p, i->conn, bytes);
}

/* ---- answers ---- */

/* What r takes of this process's memory. */
static uint64_t memory_of(const struct ref *r)
{
    return r->kind == REF_FILE ? 0 : r->size_bytes;
}

/* Takes over r's count. */
static void out_append(struct conn *c, struct ref *r)
{
    if (r->size_bytes == 0) {
        ref_release(r);
        return;
    }
    if (c->out_first + c->out_count == c->out_capacity) {
        if (c->out_first > c->out_capacity / 2) {
            memmove(c->out, c->out + c->out_first, c->out_count * sizeof *c->out);
            c->out_first = 0;
        } else {
            c->out_capacity = c->out_capacity ? c->out_capacity * 2 : 8;
            c->out = xrealloc(c->out, c->out_capacity * sizeof *c->out);
        }
    }
    c->out[c->out_first + c->out_count++] = *r;
    c->out_bytes += r->size_bytes;
    c->out_memory += memory_of(r);
}

/* Moves the answers whose turn has come to the output. */
static void flush_answers(struct pipeline *p, struct conn *c)
{
    while (c->first != NULL && c->first->state == ITEM_ENDED) {
        struct item *i = c->first;
        c->first = i->next;
        if (c->first == NULL)
            c->last = NULL;
        if (c->out_count == 0)
            c->out_since_ms = c->wrote_ms = p->now_ms;
        for (size_t n = 0; n < i->piece_count; n++)
            out_append(c, &i->pieces[n]);
        i->piece_count = 0;
        enum pipeline_end end = i->end;
        item_free(p, i);
        if (end == PIPELINE_CLOSE) {
            conn_close_input(p, c, "a request could not be answered");
            items_drop(p, c);
        }
    }
    conn_update_ready(p, c);
    conn_attention(p, c);
}

static void end_orphan(struct pipeline *p, struct item *i, struct ref *pieces, size_t count)
{
    if (i->is_gone_listed)
        DL_DELETE2(p->gone, i, gone_prev, gone_next);
    for (size_t n = 0; n < count; n++)
        ref_release(&pieces[n]);
    item_discharge(p, i, NULL);
    item_free(p, i);
}

void pipeline_answer(struct pipeline *p, uint64_t request, enum pipeline_end end, struct ref *pieces, size_t count)
{
    struct item *i = slots_get(&p->items, request);

    ASSERT(i != NULL && i->state == ITEM_RUNNING && (end == PIPELINE_ANSWERED || count == 0));
    slots_remove(&p->items, request);
    p->running--;
    p->waiting--;
    struct conn *c = i->conn;
    if (c == NULL) {
        end_orphan(p, i, pieces, count);
        return;
    }
    i->id = 0;
    i->state = ITEM_ENDED;
    i->end = end;
    c->running--;
    c->waiting--;
    item_discharge(p, i, c);
    if (count > 0) {
        i->pieces = count == 1 ? &i->only_piece : xmalloc(count * sizeof *pieces);
        memcpy(i->pieces, pieces, count * sizeof *pieces);
        i->piece_count = count;
        for (size_t n = 0; n < count; n++)
            i->answer_bytes += memory_of(&pieces[n]);
        p->output_used += i->answer_bytes;
    }
    ref_owner_release(TAKE_PTR(i->owner));
    flush_answers(p, c);
}

int pipeline_output(struct pipeline *p, uint64_t conn, struct iovec *out, int max, struct pipeline_file *ret_file)
{
    const struct conn *c = slots_get(&p->conns, conn);
    int n = 0;

    ASSERT(c != NULL);
    ret_file->size_bytes = 0;
    for (size_t i = 0; i < c->out_count && n < max; i++) {
        const struct ref *r = &c->out[c->out_first + i];
        size_t at = i == 0 ? c->out_at : 0;
        if (r->kind == REF_FILE) {
            *ret_file = (struct pipeline_file){ref_fd(r), r->position + at, r->size_bytes - at};
            break;
        }
        struct slice bytes = ref_bytes(r);
        out[n++] = (struct iovec){(void *)(uintptr_t)(bytes.data + at), bytes.size - at};
    }
    return n;
}

void pipeline_written(struct pipeline *p, uint64_t conn, size_t size, uint64_t now_ms)
{
    struct conn *c = slots_get(&p->conns, conn);

    ASSERT(c != NULL && size <= c->out_bytes);
    if (c->quiet_since_ms != now_ms) {
        DL_DELETE(p->all, c);
        DL_APPEND(p->all, c);
        c->quiet_since_ms = now_ms;
    }
    c->wrote_ms = p->now_ms = now_ms;
    c->out_bytes -= size;
    while (c->out_count > 0) {
        struct ref *r = &c->out[c->out_first];
        uint64_t part = MIN(size, r->size_bytes - c->out_at);
        if (r->kind != REF_FILE) {
            c->out_memory -= part;
            p->output_used -= part;
        }
        size -= part;
        c->out_at += part;
        if (c->out_at < r->size_bytes)
            break;
        c->out_at = 0;
        ref_release(r);
        c->out_first++;
        c->out_count--;
    }
    if (c->out_count == 0) {
        c->out_first = 0;
        conn_attention(p, c);
    }
    conn_update_ready(p, c);
}
